"""The values that pass between the parts: frozen, without behaviour worth a name.

Every run makes these types. As named tuples that takes a quarter of the time of data classes.

Nothing here opens, starts or decides anything, and nothing here imports pytest,
SQLAlchemy or a driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

T = TypeVar("T")


class Sourced(NamedTuple, Generic[T]):
    """A setting with the place that it came from, as errors name it.

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
        """The spec as it stands in test ids: without characters that need quoting."""
        return self.written.replace("+", "-").replace("@", "-")

    def __str__(self) -> str:
        return self.written


class Copied(NamedTuple):
    """A database that is a copy of its template.

    Args:
        name: Its name on the server.
        url: Its SQLAlchemy URL.
        keeper: Keeps it alive until it is closed, where somebody has to.
    """

    name: str
    url: URL
    keeper: Any = None


class Capabilities(NamedTuple):
    """What strategies and tests may depend on; ``requires=`` of the marker names these.

    Args:
        transactional_ddl: A rollback undoes CREATE, ALTER and DROP.
        several_connections: Several connections may write at once.
        sequences_roll_back: A rollback gives used ids back.
        schemas: A database holds several schemas.
        deadlock_ends_transaction: A deadlock rolls back the whole transaction,
            savepoints included.
    """

    transactional_ddl: bool
    several_connections: bool
    sequences_roll_back: bool
    schemas: bool
    deadlock_ends_transaction: bool = False
