"""The values that pass between the parts: frozen, without behaviour worth a name.

Nothing here opens, starts or decides anything, and nothing here imports pytest,
SQLAlchemy or a driver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Sourced(Generic[T]):
    """A setting with the place that it came from, as errors name it.

    Args:
        value: The value, already checked.
        source: For example ``--asyncdb=postgres``, ``ASYNCDB_BACKENDS``, ``pytest.ini``
            or ``default``.
    """

    value: T
    source: str


@dataclasses.dataclass(frozen=True)
class BackendSpec:
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


@dataclasses.dataclass(frozen=True)
class Server:
    """A running DBMS that can hold several databases.

    Args:
        backend: The backend's name.
        version: The version that the server itself reports, such as ``17.11``.
        provider: The provider that obtained it.
        reason: Why this provider was taken, one clause.
        managed: True where we started it, and so may tune and end it.
        host: Host name or address.
        port: TCP port.
        user: The user that may create databases.
        password: That user's password; never shown.
        maintenance: The database connected to in order to create and drop others.
        query: Further parameters of the URL, from an external server's own URL.
        scheme: The dialect in an external server's own URL, where it matters.
        tuning: The throw-away settings in force, in words.
        seconds: How long the start took.
        single: The maintenance database is the only one that may be used, and this is what it
            holds and keeps; None: databases may be made.
        room: How many connections the whole run may have; None: nobody knows.
        kept: The folder of a server that stays for later runs; None: it does not, or is not ours.
    """

    backend: str
    version: str
    provider: str
    reason: str
    managed: bool
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    maintenance: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    scheme: str | None = None
    tuning: str = ""
    seconds: float = 0.0
    single: tuple[str, ...] | None = None
    room: int | None = None
    kept: str | None = None

    def to_message(self) -> dict[str, Any]:
        """The server as plain data, for the channel between xdist's processes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Server:
        """The opposite of :meth:`to_message`; sequences come back as tuples."""
        query = tuple((key, value) for key, value in message["query"])
        single = message["single"] if message["single"] is None else tuple(message["single"])
        return cls(**{**message, "query": query, "single": single})


@dataclasses.dataclass(frozen=True)
class Copied:
    """A database that is a copy of its template.

    Args:
        name: Its name on the server.
        url: Its SQLAlchemy URL.
        keeper: Keeps it alive until it is closed, where somebody has to.
    """

    name: str
    url: URL
    keeper: Any = None


@dataclasses.dataclass(frozen=True)
class Capabilities:
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


@dataclasses.dataclass(frozen=True)
class Found:
    """What a provider would use for a spec, found without starting anything.

    Args:
        provider: The provider's name.
        reason: Why it can be had, one clause for the header.
        version: The version that it will be, as far as it is known beforehand.
        tuning: The throw-away settings that will be in force, in words.
        at_hand: Nothing has to be downloaded for it.
        detail: What the provider needs to go on; its own business.
    """

    provider: str
    reason: str
    version: str | None
    tuning: str = ""
    at_hand: bool = dataclasses.field(default=True, kw_only=True)
    detail: Any = dataclasses.field(default=None, repr=False)
