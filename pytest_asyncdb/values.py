"""Values that every run needs to read its options.

Extensions import them from ``abc``. A run without database tests does not load that module.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Sourced(NamedTuple, Generic[T]):
    """A setting and where it was written, for errors.

    Args:
        value: The value, already checked.
        source: For example ``--asyncdb=postgres``, ``ASYNCDB_BACKENDS``, ``pytest.ini``
            or ``default``.
    """

    value: T
    source: str


class BackendSpec(NamedTuple):
    """One backend as the user named it: ``backend[+driver][@version]``.

    Args:
        backend: ``sqlite``, ``postgres``, ``mysql``, ``mariadb`` or a third party's name.
        driver: The driver as written, or None for the first that is installed.
        version: The server version as written, or None for any.
        written: The word itself, for ids and errors.
        source: Where it was written.
    """

    backend: str
    driver: str | None = None
    version: str | None = None
    written: str = ""
    source: str = "default"

    @property
    def id(self) -> str:
        """The spec as it stands in test ids, without characters that need quoting."""
        return self.written.replace("+", "-").replace("@", "-")

    def __str__(self) -> str:
        return self.written

    def __repr__(self) -> str:
        # Other plugins store a test's parameters as text, which must not change with the options.
        return self.written


def is_tagged(image: str) -> bool:
    """Return whether the name of an image says its version, by a tag or a digest."""
    return any(mark in image.rpartition("/")[2] for mark in ":@")
