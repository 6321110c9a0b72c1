"""The contracts of the four axes: backend, driver, server provider, isolation strategy.

Data lives in backends and drivers, mechanism in providers and strategies: a new backend
is one file of data, a new provider or strategy one file that works for every backend.
Nothing here imports pytest, SQLAlchemy or a driver at run time.
"""

from __future__ import annotations

import abc
import dataclasses
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.engine import URL, Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_asyncdb._databases.connection_limit import Budget
    from pytest_asyncdb._engines.host_loop import HostLoop
    from pytest_asyncdb._record.statement_log import StatementLog

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


class DatabaseRef(NamedTuple):
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


@dataclasses.dataclass(frozen=True)
class LocalPlace:
    """Where a backend's server programs run; what a recipe makes its commands from.

    Args:
        programs: Name to path.
        data: The data folder; the programs create it.
        credentials: A file with the recipe's ``credentials``.
        root: Are we root? Some programs then want to be told.
        version: The programs'.
    """

    programs: Mapping[str, str]
    data: str
    credentials: str
    root: bool
    version: str


@dataclasses.dataclass(frozen=True)
class LocalRecipe:
    """How a backend's server programs are found and run; see ``servers/local.py``.

    Args:
        programs: Programs that belong together; the first is the server.
        folders: Glob patterns of the usual system folders.
        version_command: Arguments that make the server program print its version.
        initialise: The command that fills the data folder.
        serve: The command that runs the server on a port of 127.0.0.1.
        credentials: The text of a file for these commands, ``{password}`` standing for a
            random password.
        stop: The name of the signal that ends the server at once, such as ``SIGKILL``.
        refuses_root: The programs refuse to run as root.
        user: The user that may create databases.
        maintenance: The database that exists from the start.
        tuning: The throw-away settings of ``serve``, in words.
        recognises: Given the version line, does it belong to this backend?
    """

    programs: tuple[str, ...]
    folders: tuple[str, ...]
    version_command: tuple[str, ...]
    initialise: Callable[[LocalPlace], list[str]]
    serve: Callable[[LocalPlace, int], list[str]]
    credentials: str
    stop: str
    refuses_root: bool
    user: str
    maintenance: str
    tuning: str
    recognises: Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class ContainerRecipe:
    """How a backend's image is run; see ``servers/container.py``.

    Args:
        image: The image's name without tag.
        tag: The tag where no version is asked for.
        port: The port inside the container.
        environment: Variables for an image of a tag, ``{password}`` standing for a random
            password.
        command: Arguments after the image.
        data_folder: The folder that is kept in memory.
        user: The user that may create databases.
        maintenance: The database that exists from the start.
        tuning: The throw-away settings of ``command``, in words.
    """

    image: str
    tag: str
    port: int
    environment: Callable[[str], Mapping[str, str]]
    command: tuple[str, ...]
    data_folder: str
    user: str
    maintenance: str
    tuning: str


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
class Candidate:
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


#: For one look at one socket; epoll and kqueue would need a descriptor of their own.
_LOOK: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Driver(abc.ABC):
    """A library that talks to a server: what differs between two libraries for one DBMS.

    The connections that the methods take are the library's own, not SQLAlchemy's
    adapters. Every coroutine runs on the plugin's own loop.
    """

    #: The word in ``backend+driver``, and the driver name in SQLAlchemy's URL.
    name: ClassVar[str]
    #: What ``import`` needs; imported by SQLAlchemy, never by us.
    module: ClassVar[str]
    #: What ``pip install`` needs: the extra of this package.
    extra: ClassVar[str]

    def connect_args(self) -> Mapping[str, Any]:
        """Arguments for ``create_async_engine(connect_args=…)`` on a server of ours."""
        return {}

    def adapt(self, adapted: Any) -> None:
        """Put SQLAlchemy's adapter of a new connection in a state in which it begins no
        transaction by itself. Called once per connection, in a SQLAlchemy greenlet."""

    @abc.abstractmethod
    async def run(
        self, connection: Any, statements: Sequence[str]
    ) -> Sequence[Sequence[tuple[Any, ...]]]:
        """Run statements of ours, in one round trip where the protocol can.

        Returns:
            The rows of each, where the library tells them of several; else nothing.

        Raises:
            Exception: The driver's own; the statements after the failed one did not run.
        """

    async def ask(self, connection: Any, query: str) -> Sequence[tuple[Any, ...]]:
        """The rows of one query of ours, prepared where the library can.

        Raises:
            Exception: The driver's own.
        """
        (rows,) = await self.run(connection, [query])
        return rows

    @abc.abstractmethod
    def in_transaction(self, connection: Any) -> bool | None:
        """Is the connection in a transaction? From the client's own knowledge, without a
        round trip; None where it is not known at the moment."""

    @abc.abstractmethod
    def is_closed(self, connection: Any) -> bool:
        """Is the connection known to be unusable? Without a round trip."""

    def socket(self, connection: Any) -> Any:
        """The socket, or its number, on which the server speaks to an idle connection only
        when it ends it; None where there is none."""
        return None

    def was_ended(self, connection: Any) -> bool:
        """Has the server ended this connection, which is idle, or does it have anything else to
        say? Found without a round trip."""
        socket = self.socket(connection)
        if socket is None:
            return False
        with _LOOK() as selector:
            try:
                selector.register(socket, selectors.EVENT_READ)
            except ValueError:  # closed
                return True
            return bool(selector.select(0))

    @abc.abstractmethod
    async def cancel(
        self,
        connection: Any,
        statement: asyncio.Future[Any],
        side: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        """End the running *statement* on the server so that the connection stays usable.

        Args:
            connection: The connection that runs it.
            statement: The future of the call; it may be cancelled where the driver then
                tells the server by itself.
            side: Runs one statement over another, short-lived connection.
        """

    def error_code(self, error: BaseException) -> int | str | None:
        """The server's code of a driver error: an errno, or an SQLSTATE."""
        return None

    def session(self, connection: Any) -> int | None:
        """The server's own number of the connection, which is open; None: it has none."""
        return None


class Backend(abc.ABC):
    """A DBMS family, as data: nothing here starts, opens or decides."""

    #: The word in ``--asyncdb``.
    name: ClassVar[str]
    #: Other words that are accepted for it.
    aliases: ClassVar[tuple[str, ...]] = ()
    #: The name in sentences.
    label: ClassVar[str]
    #: The dialect's name in SQLAlchemy's URL.
    dialect: ClassVar[str]
    #: Words that may stand first in a user's URL for it.
    schemes: ClassVar[tuple[str, ...]]
    #: The oldest version that the plugin works with; empty: any.
    oldest: ClassVar[str] = ""
    #: The drivers, best first.
    drivers: ClassVar[tuple[type[Driver], ...]]
    capabilities: ClassVar[Capabilities]
    #: None where the server lives in this process.
    local: ClassVar[LocalRecipe | None] = None
    container: ClassVar[ContainerRecipe | None] = None
    #: What begins a transaction where the driver must not do it, before the first statement
    #: that writes (``reset`` and ``copy``); None: the driver begins it.
    begin_at_write: ClassVar[str | None] = None
    #: Does a restorer copy the whole template, whatever has happened? A database that only the
    #: test's engine has reached is then as good as another copy.
    restores_whole: ClassVar[bool] = False
    #: Error codes after which the server may have rolled back the whole transaction; its
    #: next answer tells.
    transaction_ending_errors: ClassVar[frozenset[int | str]] = frozenset()
    #: A statement without effect; its answer shows the driver whether there is a transaction.
    probe: ClassVar[str] = "SELECT 1"
    #: A query that tells whether the schema has constraints that are checked at COMMIT.
    deferred_exist: ClassVar[str | None] = None
    #: Gives the place of rows that were undone free for others, where the server keeps it until it
    #: is told; outside of a transaction.
    tidy: ClassVar[str | None] = None
    #: Statements that prepare a connection for such checks; run outside of a transaction.
    deferred_prepare: ClassVar[tuple[str, ...]] = ()
    #: Statements that fail where such a constraint is violated, and change nothing.
    deferred_check: ClassVar[tuple[str, ...]] = ()
    #: The error code of a savepoint that is not there, where a statement may have ended the
    #: transaction and begun another one; None: no statement can.
    no_such_savepoint: ClassVar[int | str | None] = None
    #: Error codes of a statement that the account may not use.
    denied: ClassVar[frozenset[int | str]] = frozenset()
    #: What gives ``{user}`` the right to make databases of ours.
    grant: ClassVar[str] = ""
    #: A query for what the database holds that it is asked in: rows of a word with a name, such
    #: as ``table public.users``, and the statement that drops it; None: there is no such query.
    contents: ClassVar[str | None] = None
    #: A query for how many more connections this account may have now.
    room: ClassVar[str | None] = None
    #: Statements before those of :attr:`contents`, for a connection that is ours.
    emptying: ClassVar[tuple[str, ...]] = ()
    #: The error code of every statement after a failed one until something is rolled back;
    #: None: a failed statement undoes only itself.
    failed_transaction: ClassVar[int | str | None] = None

    #: Error codes of a statement that did not get a lock in time.
    lock_timeouts: ClassVar[frozenset[int | str]] = frozenset()
    #: Error codes of a copy whose template somebody is connected to.
    in_use: ClassVar[frozenset[int | str]] = frozenset()
    #: Error codes of a statement that :meth:`cancel` has ended.
    cancelled: ClassVar[frozenset[int | str]] = frozenset()

    @abc.abstractmethod
    def url(self, server: Server, driver: str, database: str | None) -> URL:
        """The SQLAlchemy URL of *database* on *server*; None: the maintenance database."""

    def begin(self, isolation_level: str | None) -> str:
        """The statement that begins the outer transaction.

        Args:
            isolation_level: The engine's own level, where the user gave one.
        """
        return "BEGIN"

    def hold(self, url: URL, source: URL | None = None) -> Closing | None:
        """Something that keeps the database of *url* alive until it is closed, where a
        database lives only as long as a connection does; else None.

        Args:
            source: The database that it is to be a copy of, where there is one.
        """
        return None

    async def copier(self, sql: Sql, template: str, server: Server) -> Copier:
        """How databases are made that equal *template*. Called once for each template.

        Args:
            sql: A maintenance connection; it may look into the template.

        Returns:
            The statements that make a copy with the name that it is given, for a
            maintenance connection. None where :meth:`hold` makes the copy.
        """
        return lambda name: ()

    def restorer(self, sql: Sql, database: DatabaseRef, template: DatabaseRef) -> Restorer:
        """What puts *database* back to what its template is.

        Args:
            sql: A connection to that very database, kept as long as the restorer is.
            template: The database that it was copied from, on the same server.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def create_database(self, name: str) -> Sequence[str]:
        """Statements that make an empty database, for the maintenance connection."""

    @abc.abstractmethod
    def client(self, server: Server, place: str, database: str) -> tuple[Sequence[str], str]:
        """The command that opens a database, and the text of a private file that it reads.

        Args:
            place: The path of that file; without a server, of the database.
        """

    def save(self, copied: DatabaseRef, path: str) -> None:
        """Write a database to a file, where there is no server on which it could stay."""
        raise NotImplementedError

    @abc.abstractmethod
    def drop_database(self, name: str, server: Server) -> Sequence[str]:
        """Statements that drop a database whoever is connected to it."""

    def end_connections(self, database: str) -> Sequence[str]:
        """Statements, of which the last one has rows: statements that end the connections to
        *database*, where dropping it would wait for them. None: it would not."""
        return ()

    def lock_timeout(self, seconds: float) -> Sequence[str]:
        """Statements that bound how long a connection waits for locks, from now on."""
        return ()

    def waits(self, database: str) -> str | None:
        """A query for who waits for a lock in *database*, for a maintenance connection.

        Its rows: for how many seconds one waits; the session that does, its user and
        application; the same of the session that it waits for. None: the server cannot say.
        """
        return None

    def holders(self, database: str) -> Sequence[str]:
        """Statements, of which the last one has rows: the sessions in *database* that are in a
        transaction.

        The rows: the session, its user and application, and whether it has locks that others
        than those who change a schema may wait for. None: the server cannot say.
        """
        return ()

    def connected(self, database: str) -> str | None:
        """A query for who is connected to *database*: the session, its user and application;
        None: it does not matter to copies."""
        return None

    def cancel(self, session: int) -> str:
        """The statement that ends what a session waits for, and leaves its connection open."""
        raise NotImplementedError

    @abc.abstractmethod
    def list_databases(self) -> str:
        """A query whose first column is every database's name."""

    def sessions(self, prefix: str) -> Sequence[str]:
        """Statements, of which the last one has a row for each session in a database whose name
        begins with *prefix*. None: the server cannot say."""
        return ()

    def hold_lock(self, run: str) -> str | None:
        """A query whose one value is true where the session now holds the lock of a run.

        The lock lasts as long as the session, is one for the whole server, and is not waited
        for. Other versions of the plugin must find it: what it is called must not change.
        None: the server has nothing like it.
        """
        return None

    def release_lock(self, run: str) -> str:
        """A query that gives back what :meth:`hold_lock` has taken."""
        raise NotImplementedError

    def keep_session(self) -> Sequence[str]:
        """Statements after which the server does not end this session for being idle, and
        notices within minutes that the other side has gone."""
        return ()

    def version_query(self) -> str:
        """A query whose one value is the server's version."""
        return "SELECT version()"

    def version_of(self, text: str) -> str:
        """The version number in what :meth:`version_query` or the program printed."""
        import re

        match = re.search(r"\d+(?:\.\d+)+", text)
        return match.group() if match else text


class ServerProvider(abc.ABC):
    """Obtains a server: finds out whether it can, then keeps one for as long as needed."""

    #: The word in ``--asyncdb-server`` and in the header.
    name: ClassVar[str]
    #: The id of the run that asks, for the record of who owns what :meth:`obtain` makes.
    run: str = ""
    #: Shall servers stay for later runs, where they can (:attr:`keeps`)? Then leaving
    #: :meth:`obtain` stops nothing, and ``Server.kept`` is set.
    reuse: bool = False
    #: Asked when :meth:`obtain` is left: is there anything on the server for which it must stay?
    #: None: there will not be.
    needed: Callable[[Server], bool] | None = None

    @property
    def keeps(self) -> bool:
        """Can servers of this provider stay for later runs?"""
        return False

    @abc.abstractmethod
    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        """Say what would be used; start nothing, wait for nothing.

        Args:
            spec: What the user asked for; its version narrows the choice.
            backend: The backend's data.
            url: The URL that the user gave for this backend, if any.

        Raises:
            ProviderUnavailable: With the reason, one clause that fits behind ``url: ``.
        """

    def load(self, found: Candidate, backend: Backend) -> None:
        """Import what :meth:`obtain` needs; called before it, in the caller's thread.

        Python's warning filters belong to the whole process, and pytest changes them for
        each test: an import that silences a warning of its own is not safe in a thread.
        """

    @abc.abstractmethod
    def obtain(
        self,
        found: Candidate,
        spec: BackendSpec,
        backend: Backend,
        driver: Driver,
        progress: Callable[[str], None],
    ) -> AbstractContextManager[Server]:
        """A server that answers a query, for as long as the context is entered.

        May be entered in any thread, and left in another. On leaving, what was started
        is stopped and its data is gone.

        Args:
            found: What :meth:`find` said.
            progress: Takes a line for the user when something takes long.

        Raises:
            ServerStartError: With what the server printed.
        """


#: Gives the statements that make a copy of a template database, by the copy's name.
Copier = Callable[[str], Sequence[str]]


class Sql(Protocol):
    """A connection of ours on which each statement commits by itself."""

    async def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""

    async def ask(self, query: str) -> Sequence[tuple[Any, ...]]:
        """The rows of a query that is sent often: past SQLAlchemy, with the driver's errors; see
        :meth:`Driver.ask`."""

    async def script(self, statements: Sequence[str]) -> Sequence[Sequence[tuple[Any, ...]]]:
        """Run several statements, in one round trip where the driver can; see
        :meth:`Driver.run`."""

    async def answer(self, statements: Sequence[str]) -> Sequence[tuple[Any, ...]]:
        """Run statements, and return the rows of the last one. Several only where the driver
        tells the rows of several."""
        if len(statements) == 1:
            return await self.fetch(statements[0])
        return (await self.script(statements))[-1]


#: How a word for a counter begins that has moved.
IDS = "ids "
#: So many tests leave so much behind in a database that statements get slower by some percent.
UNTIDY = 1000

#: How a word for a connection begins that was left in a transaction.
LEFT_OPEN = "connection "
#: So many characters of such a connection's last statement are told.
LEFT_TEXT = 600


class Restorer(abc.ABC):
    """Puts one database back to what it was when it was made, whoever has changed it.

    Every coroutine runs on the plugin's own loop. Nobody else uses the database meanwhile.
    """

    @abc.abstractmethod
    async def remember(self) -> None:
        """Take the state of the database, which equals its template, for what
        :meth:`restore` leads back to. Called once, before everything else."""

    @abc.abstractmethod
    async def changed(self) -> Sequence[str]:
        """What differs from what was remembered, in words such as ``table public.users`` or
        ``schema``; empty: nothing. One round trip, found by the server: it does not matter
        who has changed it, or how.

        A connection that somebody else has left in a transaction counts, in words that
        begin with :data:`LEFT_OPEN`."""

    @abc.abstractmethod
    async def restore(self, changed: Sequence[str]) -> bool:
        """Put *changed*, as :meth:`changed` gave it, back, and end connections that were left
        in a transaction.

        Returns:
            False where it cannot: the database is then replaced by another copy.
        """

    async def put_back(self, ids: bool) -> tuple[Sequence[str], bool]:
        """Look what has changed, and restore it.

        Args:
            ids: Moved counters count as changes.

        Returns:
            What had changed, and whether it could be put back.
        """
        changed = await self.changed()
        if not ids:
            changed = [word for word in changed if not word.startswith(IDS)]
        return changed, not changed or await self.restore(changed)

    async def restart_ids(self) -> None:
        """Let sequences and AUTO_INCREMENT begin where the template's do."""


class Closing(Protocol):
    """Something that can be closed."""

    def close(self) -> None: ...


class Database(abc.ABC):
    """A worker's databases with one schema and seed, as an isolation strategy sees them.

    All are copies of one template, made when they are first asked for.
    """

    backend: Backend
    driver: Driver
    server: Server
    #: How many connections there may be.
    budget: Budget
    #: The run's engine options for these databases, as the user's fixture gave them.
    engine_options: Mapping[str, Any]

    @property
    @abc.abstractmethod
    def url(self) -> URL:
        """The URL of the database that is kept for many tests, which is there from now on.
        May build it."""

    @abc.abstractmethod
    def restorer(self, copied: DatabaseRef | None = None) -> AbstractContextManager[Restorer]:
        """What puts a database back to what its template is, which it equals now.

        Args:
            copied: A database of :meth:`copy`; None: the kept one.
        """

    @abc.abstractmethod
    def reference(self) -> URL:
        """The URL of another database that nobody but us uses: as the template."""

    @abc.abstractmethod
    def discard(self) -> None:
        """Drop the kept database: it holds what it should not. The next :attr:`url` is that
        of a new one."""

    @abc.abstractmethod
    def copy(self, coming: int, made: Callable[[DatabaseRef], None]) -> DatabaseRef:
        """Another database, for one test.

        Args:
            coming: How many more of them will soon be asked for.
            made: Called with each of those that are made ahead, in another thread.
        """

    @abc.abstractmethod
    def drop(self, copied: DatabaseRef, first: Callable[[], None]) -> None:
        """Drop what :meth:`copy` gave, whoever is connected to it; need not wait for it.

        Args:
            first: Called before, perhaps in another thread, unless the run ends.
        """

    @abc.abstractmethod
    def keep(self, copied: DatabaseRef | None = None) -> DatabaseRef | Exception:
        """A copy of a database that outlives the run, or why there is none.

        Args:
            copied: What :meth:`copy` gave; None: the kept one. Nobody is connected to it.
        """


class Session(NamedTuple):
    """One connection of a test, as it is at the moment.

    Args:
        number: The server's own number of it; None: it has none.
        who: Who uses it, in words.
        place: Where that stands: lines of the user's code, the innermost last.
        statement: What it runs; None: nothing.
        checkout: The checkout in the journal whose open transaction it has; None: everything
            that the test has run is in it.
        in_transaction: As far as the driver knows.
        link: Itself.
    """

    number: int | None
    who: str
    place: Sequence[str]
    statement: str | None
    checkout: int | None
    in_transaction: bool
    link: object


#: Called in the place of a statement that did not get its lock within so many seconds.
TimedOut = Callable[[Session | None, str, float], None]


class Waits(Protocol):
    """The connections of one test, and what becomes of their waits for locks."""

    #: Who wants to know about statements that did not get their locks in time.
    timed_out: TimedOut | None

    def sessions(self) -> list[Session]:
        """The connections that are in use. From any thread."""

    def end(self, session: Session | None, why: BaseException) -> None:
        """What *session* runs is about to be cancelled: the test fails with *why*, there if it
        can, else at its end. From any thread."""


class View(abc.ABC):
    """What one test sees of its database."""

    #: What its connections are at.
    waits: Waits

    #: The engine on the test's database; usable on any event loop.
    engine: AsyncEngine
    #: The URL of the test's database.
    url: URL
    #: What the engine has run for the test.
    journal: StatementLog
    #: The test has failed, and what it has left is to outlive it: set before its fixtures are
    #: torn down.
    keeping: bool = False
    #: With :attr:`keeping`, after :meth:`close`: what outlives it, or why nothing does.
    kept: DatabaseRef | Exception | None = None
    #: Are the engine's connections independent of each other, with transactions of their own?
    independent: ClassVar[bool]

    @abc.abstractmethod
    def checkpoint(self) -> AbstractContextManager[None]:
        """On leaving it the data is put back to what it was on entering. Blocks.

        Raises:
            IsolationConflict: On entering: something stands against it; nothing is changed.
        """

    @abc.abstractmethod
    def reference(self) -> URL:
        """The URL of another database, with the same schema and seed, that no test uses."""

    def read(self, work: Callable[[Connection], T]) -> T | None:
        """Call *work* with a connection that sees what the test has done so far, and only reads.
        Blocks; costs nothing where it is not called. None: it cannot be had at the moment.

        In ``rollback``, and on SQLite, what is not committed is seen, too.

        Raises:
            Exception: The driver's own.
        """
        return None

    def expect_checkpoints(self) -> None:
        """The test may ask for checkpoints; so far it has done nothing."""

    def watch(self) -> None:
        """Somebody else may connect to the database from now on, past the engine."""

    @abc.abstractmethod
    def closing(self) -> AbstractContextManager[None]:
        """While it is entered, sessions and connections of the engine may be closed by sync
        code on any loop, or on none; their work is undone at the latest by :meth:`close`.
        Costs no round trip."""

    @abc.abstractmethod
    def close(self) -> Sequence[BaseException]:
        """End the test's view and undo its work. Returns what broke the isolation.

        Called once, from a sync fixture's teardown; bounded in time; never raises for
        what the test did."""


class ViewRequest(NamedTuple):
    """What a test asks its isolation strategy for.

    Args:
        test: Its node id.
        coming: How many of the tests that come next will want such a view.
        restart_ids: Sequences and AUTO_INCREMENT begin anew; False: they may go on, where that
            costs less; None: as the strategy does by itself.
    """

    test: str
    coming: int = 0
    restart_ids: bool | None = None


class Isolation(abc.ABC):
    """Keeps tests apart on one database of a worker."""

    #: The word in ``--asyncdb-isolation`` and in the marker.
    name: ClassVar[str]
    #: Does it need several databases?
    needs_copies: ClassVar[bool] = False

    @abc.abstractmethod
    def __init__(self, database: Database, host: HostLoop) -> None:
        """Take a worker's database, without touching it, and the loop for connections."""

    @abc.abstractmethod
    def view(self, wish: ViewRequest) -> View:
        """Open a test's view. Costs no round trip, but for what it is made on."""

    def relax(self) -> None:
        """Close connections that are for later tests, where others need their room."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what is kept between tests. May be called twice."""
