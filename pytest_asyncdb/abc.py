"""What the author of an extension needs: the contracts of backends, drivers, server providers and
isolation strategies, with the values that they exchange.

Data is in backends and drivers, mechanism in providers and strategies. So a new backend is one file
of data, and a new provider or strategy is one file that works for every backend. Values come first,
then the recipes for servers, then the contracts. Importing this module imports neither pytest nor
SQLAlchemy nor a driver.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

# For extensions. The package itself imports these names from values.py.
from pytest_asyncdb.values import BackendSpec as BackendSpec
from pytest_asyncdb.values import Sourced as Sourced
from pytest_asyncdb.values import is_tagged as is_tagged

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_asyncdb._engines.host_loop import HostLoop as HostLoop
    from pytest_asyncdb._record.statement_log import StatementLog as StatementLog

T = TypeVar("T")

#: The rows of a query.
Rows = Sequence[tuple[Any, ...]]
#: Runs one statement over another, short-lived connection.
Side = Callable[[str], Coroutine[Any, Any, None]]
#: Shows the user a line while something takes long.
Show = Callable[[str], None]

#: Classes of the plugin that belong to the contracts. They are loaded at their first use.
_LAZY = {
    "HostLoop": "pytest_asyncdb._engines.host_loop",
    "StatementLog": "pytest_asyncdb._record.statement_log",
}


if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            return getattr(importlib.import_module(_LAZY[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Closing(Protocol):
    """Something that can be closed."""

    def close(self) -> None: ...


class DatabaseRef(NamedTuple):
    """A database of the plugin.

    Args:
        name: Its name on the server.
        url: Its SQLAlchemy URL.
        keeper: An open connection without which the database would vanish (SQLite); or None.
    """

    name: str
    url: URL
    keeper: Any = None


class Capabilities(NamedTuple):
    """What strategies and tests may depend on; the marker's ``requires=`` takes these names.

    Args:
        transactional_ddl: A rollback undoes CREATE, ALTER and DROP.
        several_connections: Several connections may write at the same time.
        sequences_roll_back: A rollback undoes the use of ids.
        schemas: A database can have several schemas.
        deadlock_ends_transaction: A deadlock rolls back the whole transaction, including
            savepoints.
    """

    transactional_ddl: bool
    several_connections: bool
    sequences_roll_back: bool
    schemas: bool
    deadlock_ends_transaction: bool = False


@dataclasses.dataclass(frozen=True)
class Server:
    """A running DBMS that can hold several databases.

    Args:
        backend: The backend's name.
        version: The version that the server itself reports, such as ``17.11``.
        provider: The provider that obtained it.
        reason: Why this provider was chosen, one clause.
        managed: The plugin started the server, and may tune and stop it.
        host: Host name or address.
        port: TCP port.
        user: The user that may create databases.
        password: That user's password; never shown.
        maintenance: The database to connect to in order to create and drop others; empty: the
            driver's default; None: the databases live in this process.
        query: Further parameters of an external server's URL.
        scheme: The dialect in an external server's URL, if it is not the backend's own.
        tuning: The throw-away settings in force, in words.
        seconds: How long the start took.
        connection_limit: How many connections the whole run may open; None: not known.
        kept: The folder of a server of the plugin that stays for later runs; else None.
        behind_pooler: The server's own address, if the URL leads to a connection pooler, which
            may give each transaction another session; empty: it does not.
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
    connection_limit: int | None = None
    kept: str | None = None
    behind_pooler: str = ""

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Server:
        """The opposite of ``dataclasses.asdict``, also by way of JSON."""
        return cls(**{**message, "query": tuple(map(tuple, message["query"]))})


class Candidate(NamedTuple):
    """What a provider would use for a spec, found without starting anything.

    Args:
        provider: The provider's name.
        reason: Why it is available, one clause for the header.
        version: The version of the server, if it is known beforehand.
        tuning: The throw-away settings that will be in force, in words.
        detail: Private data of the provider; never shown.
        at_hand: True if nothing has to be downloaded for it.
    """

    provider: str
    reason: str
    version: str | None
    tuning: str = ""
    detail: Any = None
    at_hand: bool = True

    def __repr__(self) -> str:
        return f"Candidate({self.provider!r}, {self.reason!r}, {self.version!r})"


class ViewRequest(NamedTuple):
    """What a test asks of its isolation strategy.

    Args:
        test: The node id of the test.
        prefetch: How many of the next tests will need such a view.
        reset_sequences: True: sequences and AUTO_INCREMENT start where the template's do. False:
            they need not, if that is cheaper. None: the strategy decides.
    """

    test: str
    prefetch: int = 0
    reset_sequences: bool | None = None


class LocalPlace(NamedTuple):
    """The paths and settings from which a recipe makes the commands of a local server.

    Args:
        programs: The path of each program, by its name.
        data: The data folder; the programs create it.
        credentials: A file with the recipe's ``credentials``.
        root: True if the process runs as root. Some programs need an option then.
        version: The version of the programs.
    """

    programs: Mapping[str, str]
    data: str
    credentials: str
    root: bool
    version: str


class LocalRecipe(NamedTuple):
    """How to find and run a backend's server programs.

    Args:
        programs: Programs that belong together; the first is the server.
        folders: Glob patterns of the usual system folders.
        version_command: Arguments that make the server program print its version.
        initialise: Returns the command that fills the data folder.
        serve: Returns the command that runs the server on a port of 127.0.0.1.
        credentials: The text of a file for these commands; ``{password}`` stands for a random
            password.
        recognises: Takes the version line. Returns whether it is of this backend.
        stop: The name of the signal that ends the server at once.
        refuses_root: True if the programs refuse to run as root.
        arguments: The user's settings, which come after *serve*. The plugin puts them here.
    """

    programs: tuple[str, ...]
    folders: tuple[str, ...]
    version_command: tuple[str, ...]
    initialise: Callable[[LocalPlace], list[str]]
    serve: Callable[[LocalPlace, int], list[str]]
    credentials: str
    recognises: Callable[[str], bool]
    stop: str = "SIGKILL"
    refuses_root: bool = False
    arguments: tuple[str, ...] = ()

    def command(self, place: LocalPlace, port: int) -> list[str]:
        """Return the command that runs the server, with the user's settings."""
        return [*self.serve(place, port), *self.arguments]


class ContainerRecipe(NamedTuple):
    """How to run a backend's image.

    Args:
        image: The image's name without tag.
        tag: The tag if the user names no version.
        images: Images that the user wants instead, by version. The key is empty for all others.
        port: The port inside the container.
        environment: Returns the variables for an image with a given tag; ``{password}`` stands for
            a random password.
        command: Arguments after the image.
        data_folder: The folder to mount in memory.
    """

    image: str
    tag: str
    port: int
    environment: Callable[[str], Mapping[str, str]]
    command: tuple[str, ...]
    data_folder: str
    images: Mapping[str, str] = {}

    def image_of(self, version: str | None) -> str:
        """Return the image for a version as the user wrote it."""
        image = self.images.get(version or "", self.images.get("")) or self.image
        return image if is_tagged(image) else f"{image}:{version or self.tag}"


#: For one look at one socket. epoll and kqueue would need another file descriptor.
_Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Driver(abc.ABC):
    """A library that talks to a server. It says what differs between two libraries for one DBMS.

    The methods take the library's own connections, not SQLAlchemy's adapters. Every coroutine runs
    on the plugin's loop.
    """

    #: The word in ``backend+driver``, and the driver name in SQLAlchemy's URL.
    name: ClassVar[str]
    #: The name for ``import``. SQLAlchemy imports it, the plugin does not.
    module: ClassVar[str]
    #: The extra of pytest-asyncdb that installs the library; empty: there is none.
    extra: ClassVar[str] = ""
    #: True if a statement ends a result that has unread rows.
    one_result: ClassVar[bool] = False
    #: SQLAlchemy's ``connect_args`` for a connection pooler. Its sessions do not keep prepared
    #: statements for a connection.
    pooler_arguments: ClassVar[Mapping[str, Any]] = {}
    #: The ``connect_args`` for the plugin's own connections, which repeat a few long queries.
    own_arguments: ClassVar[Mapping[str, Any]] = {}

    def connect_args(self, server: Server) -> dict[str, Any]:
        """Return SQLAlchemy's ``connect_args`` that connections to *server* need."""
        return dict(self.pooler_arguments) if server.behind_pooler else {}

    def session_id(self, connection: Any) -> int | None:
        """Return the session id that the server, or a pooler, reported when connecting.

        Costs no round trip. None: the library does not know it.
        """
        return None

    def adapt(self, adapted: Any, begin: str | None = None) -> None:
        """Keep SQLAlchemy's adapter of a new connection from beginning transactions by itself.

        With *begin*, the library begins a transaction with this statement when it is asked to
        write. Called in a SQLAlchemy greenlet.
        """

    #: True if the library's connection begins a transaction with a statement, also without
    #: SQLAlchemy's adapter.
    begins: ClassVar[bool] = True
    #: True if the library keeps the columns of a query with the connection, even after the schema
    #: has changed.
    keeps_columns: ClassVar[bool] = False
    #: True if the end of a transaction waits for a statement that another task is running on the
    #: connection.
    takes_turns: ClassVar[bool] = True

    def in_progress(self, begun: bool) -> Exception | None:
        """Return what the end of a transaction raises if it does not wait (:attr:`takes_turns`).

        Args:
            begun: True if the transaction has begun on the server.
        """
        return None

    def close_cursor(self, cursor: Any) -> bool:
        """Close SQLAlchemy's cursor without awaiting. Its rows have been fetched.

        Returns:
            False if closing it must be awaited.
        """
        return False

    def ended_stream(self) -> Exception | None:
        """Return what reading on a stream raises after the end of its transaction; None:
        nothing."""
        return None

    @abc.abstractmethod
    async def run(self, connection: Any, statements: Sequence[str]) -> Sequence[Rows]:
        """Run statements of the plugin, in one round trip if the protocol allows it.

        Returns:
            The rows of each statement, if the library returns those of several; else nothing.

        Raises:
            Exception: The driver's own; the statements after the failed one did not run.
        """

    def split(self, script: str) -> Sequence[str]:
        """Return the parts of a text of several statements, as :meth:`run` takes them."""
        return (script,)

    async def ask(self, connection: Any, query: str) -> Rows:
        """Return the rows of one query of the plugin, as a prepared statement if the library has
        those.

        Raises:
            Exception: The driver's own.
        """
        (rows,) = await self.run(connection, [query])
        return rows

    async def session_settings(self, connection: Any) -> Sequence[str]:
        """Return statements that :meth:`reset_session` needs to restore what connecting has set.

        Called once for each engine, with a new connection.
        """
        return ()

    async def watch_session(self, connection: Any) -> None:
        """Note that a test has the connection from now on."""

    async def reset_session(
        self, connection: Any, first: Sequence[str], then: Sequence[str]
    ) -> bool | None:
        """Roll back and clean the session for the next test, in one round trip if the protocol
        allows it.

        Args:
            first: Statements that must succeed in the transaction before the rollback.
            then: Statements to run after the rollback: those of :meth:`session_settings` and of the
                backend.

        Returns:
            True if the session is clean. False if it is not, so that the connection must be
            replaced. None if the rollback may not have undone all rows, so that the database must
            be replaced, too.

        Raises:
            Exception: The driver's own. If the transaction has ended, the connection must be
                replaced; else *first* has failed.
        """
        end = [] if self.in_transaction(connection) is False else ["ROLLBACK"]
        await self.run(connection, [*first, *end, *then])
        return True

    @abc.abstractmethod
    def in_transaction(self, connection: Any) -> bool | None:
        """Return whether the connection is in a transaction; None: the client does not know it now.

        Costs no round trip.
        """

    @abc.abstractmethod
    def is_closed(self, connection: Any) -> bool:
        """Return whether the connection is known to be unusable. Costs no round trip."""

    def socket(self, connection: Any) -> Any:
        """Return the socket of the connection, or its file descriptor; None: there is none.

        On an idle connection it becomes readable only if the server closes the connection.
        """
        return None

    def was_ended(self, connection: Any) -> bool:
        """Return whether the server has closed this idle connection, or has sent anything else.

        Costs no round trip.
        """
        socket = self.socket(connection)
        if socket is None:
            return False
        with _Selector() as selector:
            try:
                selector.register(socket, selectors.EVENT_READ)
            except ValueError:  # closed
                return True
            return bool(selector.select(0))

    @abc.abstractmethod
    async def cancel(self, connection: Any, statement: asyncio.Future[Any], side: Side) -> None:
        """Cancel the running *statement* on the server, so that the connection stays usable.

        Args:
            connection: The connection that runs it.
            statement: The future of the call; may be cancelled if the driver then cancels the
                statement on the server.
            side: Runs one statement over another, short-lived connection.
        """

    def error_code(self, error: BaseException) -> int | str | None:
        """Return the server's code of a driver error: an errno, or an SQLSTATE."""
        return None


class Backend(abc.ABC):
    """A DBMS family as data. Nothing here starts, opens or decides anything."""

    #: The word in ``--asyncdb``.
    name: ClassVar[str]
    #: Other accepted words.
    aliases: ClassVar[tuple[str, ...]] = ()
    #: The name in sentences.
    label: ClassVar[str]
    #: The dialect's name in SQLAlchemy's URL.
    dialect: ClassVar[str]
    #: Words with which a user's URL for this backend may begin.
    schemes: ClassVar[tuple[str, ...]]
    #: Parameters of every URL.
    url_query: ClassVar[Mapping[str, str]] = {}
    #: The oldest version that the plugin works with; empty: any.
    oldest: ClassVar[str] = ""
    #: The drivers, best first.
    drivers: ClassVar[tuple[type[Driver], ...]]
    capabilities: ClassVar[Capabilities]
    #: True if the databases live in this process, without a server.
    in_process: ClassVar[bool] = False
    #: The suffix of a database's file, if several connections use the database; :meth:`url` then
    #: gets the file's path for a name. Empty: databases have no files of their own.
    file_suffix: ClassVar[str] = ""
    #: How to run its server programs and its image; None: the plugin cannot start it that way. If
    #: both are None, a server by URL, or of another provider, is used.
    local: LocalRecipe | None = None
    container: ContainerRecipe | None = None
    #: The throw-away settings of such a server, in words.
    tuning: ClassVar[str] = ""
    #: The user of such a server that may create databases, and the database that exists from the
    #: start; empty: the driver's default.
    user: ClassVar[str] = ""
    maintenance: ClassVar[str] = ""
    #: Settings of a server that the plugin needs for itself, with ``_`` instead of ``-``.
    own_settings: ClassVar[frozenset[str]] = frozenset()
    #: For ``reset`` and ``copy``: the statement that begins a transaction before the first
    #: statement that writes; None: the driver begins transactions.
    begin_at_write: ClassVar[str | None] = None
    #: True if ``schema=`` of a table is the name of another database.
    schemas_are_databases: ClassVar[bool] = False
    #: True if a restorer always copies the whole template. ``copy`` then reuses databases.
    restores_whole: ClassVar[bool] = False
    #: Error codes after which the server may have rolled back the whole transaction. Its next
    #: answer shows whether it has.
    transaction_ending_errors: ClassVar[frozenset[int | str]] = frozenset()
    #: A pattern for ``code: text`` of errors that a statement causes in a transaction, or in one
    #: that has done something before, but not on a connection with AUTOCOMMIT.
    outside_transactions: ClassVar[str] = "(?!)"
    #: A statement without effect. Its answer shows the driver whether there is a transaction.
    probe: ClassVar[str] = "SELECT 1"
    #: Statements that end what a session keeps after a rollback, such as its locks. One of them
    #: fails if something is left. ``{database}`` stands for the session's database.
    after_rollback: ClassVar[tuple[str, ...]] = ()
    #: Statements that end what a session has committed, such as its settings. They run before
    #: :attr:`after_rollback`.
    after_commits: ClassVar[tuple[str, ...]] = ()
    #: A query that shows whether the schema has constraints that are checked at COMMIT.
    deferred_query: ClassVar[str | None] = None
    #: Statements that prepare a connection for such checks; run outside of a transaction.
    deferred_prepare: ClassVar[tuple[str, ...]] = ()
    #: Statements that fail if such a constraint is violated. Otherwise they do what COMMIT does to
    #: it.
    deferred_check: ClassVar[tuple[str, ...]] = ()
    #: Statements that make a transaction read only.
    read_only: ClassVar[tuple[str, ...]] = ()
    #: The error code of every statement after a failed one until a rollback; None: a failed
    #: statement undoes only itself.
    failed_transaction: ClassVar[int | str | None] = None
    #: Error codes of a statement that did not get a lock in time.
    lock_timeout_codes: ClassVar[frozenset[int | str]] = frozenset()
    #: Seconds that a statement of a test waits for a lock, unless the user sets another limit.
    lock_wait: ClassVar[float] = 20.0
    #: Error codes of a copy while sessions are connected to the template.
    in_use_codes: ClassVar[frozenset[int | str]] = frozenset()
    #: Error codes of a statement for which the account has no right.
    access_denied_codes: ClassVar[frozenset[int | str]] = frozenset()
    #: Error codes of a statement that writes, if the server or its transactions are read-only.
    read_only_codes: ClassVar[frozenset[int | str]] = frozenset()
    #: The right to create and drop the plugin's databases, and the statement that gives it to
    #: ``{user}``.
    create_right: ClassVar[str] = ""
    create_grant: ClassVar[str] = ""
    #: A query that shows how many more connections the account may open now.
    free_connections_query: ClassVar[str | None] = None

    #: A query over a connection to a database that the server does not drop. It returns statements
    #: after which the server drops it, for example those that roll back its prepared transactions.
    free_to_drop_query: ClassVar[str | None] = None

    def url(self, server: Server, driver: str, database: str | None) -> URL:
        """Return the SQLAlchemy URL of *database* on *server*; None: the maintenance database."""
        from sqlalchemy.engine import URL

        return URL.create(
            f"{server.scheme or self.dialect}+{driver}",
            username=server.user,
            password=server.password,
            host=server.host,
            port=server.port,
            database=database or server.maintenance or None,
            query={**self.url_query, **dict(server.query)},
        )

    def set_at_start(self, name: str, value: str) -> Sequence[str]:
        """Return the arguments of the server program that give a setting a value."""
        raise NotImplementedError

    def setting_query(self, name: str) -> str:
        """Return a query with one value, a setting of the server."""
        raise NotImplementedError

    async def after_create(self, sql: Sql, server: Server, extensions: Sequence[str]) -> None:
        """Prepare a new database, before its schema is built.

        Called once for each template; the copies have the result. If the template is kept for later
        runs, its fingerprint describes this method as it describes a seed.

        Args:
            sql: A connection to the database, without the user's listeners, which may need what is
                created here.
            extensions: The names in ``asyncdb_extensions``.

        Raises:
            SchemaError: The server cannot give the database what it needs.
        """

    def begin(self, isolation_level: str | None) -> str:
        """Return the statement that begins the outer transaction.

        Args:
            isolation_level: The engine's level, if the user gave one.
        """
        return "BEGIN"

    def local_settings(self, statement: str, parameters: Any) -> Sequence[str]:
        """Return the names of the settings that *statement* changes until the end of its
        transaction.

        Called only if there is a "set" in the text of *statement*.
        """
        return ()

    def at_commit(self, statement: str) -> Sequence[str]:
        """Return statements that do what the server does at COMMIT because of *statement*."""
        return ()

    def keep_setting(self, name: str, slot: str) -> tuple[str, str]:
        """Return a statement that keeps the value of the setting *name* under the name *slot*, and
        one that restores the value, unless the first was rolled back."""
        raise NotImplementedError

    def hold(self, url: URL, source: URL | None = None) -> Closing | None:
        """Create the database of *url*, if a database exists only as long as a connection to it.

        The database exists until the result is closed. Return None if databases exist without a
        connection.

        Args:
            source: The URL of the database to copy; None: the new one is empty.
        """
        return None

    async def copier(self, sql: Sql, template: str, server: Server) -> Copier:
        """Return how to copy *template*. Called once for each template.

        Args:
            sql: A maintenance connection; it may read the template.

        Returns:
            A function that takes the name of the copy, and returns the statements that make it over
                a maintenance connection. The first statement runs by itself, the others in one
                round trip. There are none if :meth:`hold` makes the copy.
        """
        return lambda name: ()

    def restorer(self, sql: Sql, database: DatabaseRef, template: DatabaseRef) -> Restorer:
        """Return the restorer of *database*.

        Args:
            sql: A connection to *database*, open as long as the restorer is used.
            template: The database that *database* was copied from, on the same server.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def create_database(self, name: str) -> Sequence[str]:
        """Return statements that create an empty database, over a maintenance connection.

        Like the statements of every method here, they run in one round trip if the driver can do
        that.
        """

    @abc.abstractmethod
    def client_command(self, server: Server, file: str, database: str) -> tuple[Sequence[str], str]:
        """Return the command that opens a database, and the text of the file with its password.

        Args:
            file: The path of that file. For a backend without a server: the path of the database.
        """

    def save(self, database: DatabaseRef, path: str) -> None:
        """Write a database that lives in this process to a file."""
        raise NotImplementedError

    @abc.abstractmethod
    def drop_database(self, name: str, server: Server) -> Sequence[str]:
        """Return statements that drop a database, even if sessions are connected to it."""

    def drop_again(self, name: str) -> Sequence[str]:
        """Return statements that drop a database after :meth:`drop_database` has failed.

        Each is sent alone, after those of :attr:`free_to_drop_query`.
        """
        raise NotImplementedError

    def end_connections(self, database: str) -> Sequence[str]:
        """Return statements. The last one returns rows: statements that end the connections to
        *database*.

        Empty: dropping the database does not wait for them.
        """
        return ()

    def stop_events(self, database: str, server: Server) -> Sequence[str]:
        """Return statements. The last one returns rows: statements that stop scheduled events.

        These are the events of the template *database*; without them, those of its copies do not
        run either. Empty: no event can run.
        """
        return ()

    def lock_timeout(self, seconds: float) -> Sequence[str]:
        """Return statements that limit how long a connection waits for a lock."""
        return ()

    def at_connect(self) -> Sequence[str]:
        """Return statements for each new connection of a test, to run before its listeners.

        They limit its waits for locks to :attr:`lock_wait`, unless the user has set a limit, among
        other things.
        """
        return ()

    @abc.abstractmethod
    def list_databases(self) -> str:
        """Return a query whose first column has the names of all databases."""

    def sessions(self, prefix: str) -> Sequence[str]:
        """Return statements. The last one returns a row for each session in some databases.

        These are the databases with a name that begins with *prefix*. Empty: the server does not
        say.
        """
        return ()

    def hold_lock(self, run: str) -> str | None:
        """Return a query that tries to take the lock of a run, and says whether the session now
        holds it.

        The lock lasts as long as the session and applies to the whole server. The query does not
        wait for it. The name of the lock must not change, because other versions of the plugin must
        find it. None: the server has no such locks.
        """
        return None

    def hold_lock_in_transaction(self, run: str) -> Sequence[str]:
        """Return statements that begin a transaction which holds the same lock.

        They are for a session of a connection pooler. The last statement, also by itself, says
        whether no other session holds the lock. Empty: the server has no such locks.
        """
        return ()

    def end_idle(self, database: str) -> Sequence[str]:
        """Return statements that end the sessions in *database* that the account may end.

        A connection pooler, for example, keeps such sessions open, and *database* cannot be copied
        then.
        """
        return ()

    def keep_session(self) -> Sequence[str]:
        """Return statements that switch the session's idle timeout off, and TCP keepalives on."""
        return ()

    def library_version(self) -> str:
        """Return the version of the library of a backend that is :attr:`in_process`.

        This imports nothing that a run without database tests would not need.
        """
        raise NotImplementedError

    def version_query(self) -> str:
        """Return a query whose first value is the server's version.

        Two more values show whether there is a connection pooler: the session's id, to compare with
        :meth:`Driver.session_id`, and the server's own address.
        """
        return "SELECT version()"

    def version_of(self, text: str) -> str:
        """Return the version number in what :meth:`version_query` or the program printed."""
        import re

        match = re.search(r"\d+(?:\.\d+)+", text)
        return match.group() if match else text


class ServerProvider(abc.ABC):
    """Obtains a server: finds out whether one is available, then provides it."""

    #: The word in ``--asyncdb-server`` and in the header.
    name: ClassVar[str]
    #: True if its servers can stay for later runs.
    keeps: ClassVar[bool] = False
    #: The id of the run, for the record of the owner of what :meth:`obtain` starts.
    run: str = ""
    #: True if servers stay for later runs, if they can. Then leaving :meth:`obtain` stops nothing,
    #: and ``Server.kept`` is set.
    reuse: bool = False
    #: Called when :meth:`obtain` is left. Returns whether the server must stay because a database
    #: on it stays. None: no database stays.
    needed: Callable[[Server], bool] | None = None

    @abc.abstractmethod
    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        """Return what would be used for *spec*. Starts nothing and waits for nothing.

        Args:
            spec: The backend as the user named it; its version narrows the choice.
            backend: The backend's data.
            url: The URL that the user gave for this backend, if any.

        Raises:
            ProviderUnavailable: With the reason, one clause that can follow ``url: ``.
        """

    def load(self, found: Candidate, backend: Backend) -> None:
        """Import what :meth:`obtain` needs; called before it, in the main thread.

        Python's warning filters belong to the whole process, and pytest changes them for each
        test: a module that silences its own warnings must not be imported in a thread.
        """

    @abc.abstractmethod
    def obtain(
        self, found: Candidate, spec: BackendSpec, backend: Backend, driver: Driver, progress: Show
    ) -> AbstractContextManager[Server]:
        """Return a context with a server that answers a query.

        The context may be entered in any thread, and left in another. On leaving, what was started
        is stopped and its data is gone.

        Args:
            found: The result of :meth:`find`.
            progress: Called with a line for the user if something takes long.

        Raises:
            ServerStartError: The server did not start. The error shows what it printed.
        """


#: Returns the statements that make a copy of a template database, given the copy's name.
Copier = Callable[[str], Sequence[str]]


class Sql(Protocol):
    """A connection of the plugin on which every statement commits by itself."""

    async def fetch(self, query: str) -> Rows:
        """Return the rows of a query; see :meth:`Driver.ask`."""

    async def script(self, statements: Sequence[str]) -> Sequence[Rows]:
        """Run several statements, in one round trip if the driver can; see
        :meth:`Driver.run`."""

    async def settle(self, statements: Sequence[str]) -> None:
        """Run statements that set the session, now and on each connection that replaces a lost
        one."""
        await self.script(statements)

    async def answer(self, statements: Sequence[str]) -> Rows:
        """Run statements, and return the rows of the last one.

        If there are several, the driver must be able to return the rows of several statements.
        """
        if len(statements) == 1:
            return await self.fetch(statements[0])
        return (await self.script(statements))[-1]


#: The prefix of the word for a changed sequence or AUTO_INCREMENT counter.
IDS = "ids "
#: The prefix of the word for a connection that is still in a transaction.
LEFT_OPEN = "connection "
#: Number of characters to which such a connection's last statement is cut.
LEFT_TEXT = 600


class Restorer(abc.ABC):
    """Finds what changed in one database, whatever changed it, and restores it.

    Every coroutine runs on the plugin's loop. No test uses the database meanwhile.
    """

    #: Things in which the account cannot see changes, and why, after :meth:`remember`. An example:
    #: ``table public.doc: row security hides rows from the role app``. If there are any, the
    #: database is replaced after each test that may have changed it.
    unseen: Sequence[str] = ()

    @abc.abstractmethod
    async def remember(self) -> None:
        """Remember the current state, which equals the template, for :meth:`restore`.

        Called once, before everything else.
        """

    @abc.abstractmethod
    async def changed(self) -> Sequence[str]:
        """Return what differs from the remembered state; empty: nothing.

        The words are such as ``table public.users`` or ``schema``. The server finds the changes in
        one round trip, so that it does not matter what has made them, or how. Another session that
        is still in a transaction counts as well, in words that begin with :data:`LEFT_OPEN`.
        """

    @abc.abstractmethod
    async def restore(self, changed: Sequence[str]) -> bool:
        """Restore *changed*, the result of :meth:`changed`, and end connections that are still in a
        transaction.

        Returns:
            False if this is not possible. The database must be replaced by another copy then.
        """


class Database(abc.ABC):
    """A worker's databases with one schema and seed, as an isolation strategy sees them.

    All are copies of one template, created at their first use.
    """

    backend: Backend
    driver: Driver
    server: Server
    #: Number of connections that a strategy may keep open between tests, including prefetched ones.
    idle_limit: int
    #: The run's engine options for these databases, as the user's fixture returned them.
    engine_options: Mapping[str, Any]

    @property
    @abc.abstractmethod
    def url(self) -> URL:
        """The URL of the database that many tests share; created at the first access."""

    @abc.abstractmethod
    def restorer(self, copy: DatabaseRef | None = None) -> AbstractContextManager[Restorer]:
        """Return a restorer of a database that equals its template now.

        Args:
            copy: The result of :meth:`copy`; None: the shared database.
        """

    @abc.abstractmethod
    def reference(self) -> URL:
        """Return the URL of another database that equals the template and that no test uses."""

    @abc.abstractmethod
    def discard(self) -> None:
        """Drop the shared database, which can no longer be used. The next :attr:`url` is that of a
        new one."""

    @abc.abstractmethod
    def copy(self, prefetch: int, prefetched: Callable[[DatabaseRef], None]) -> DatabaseRef:
        """Return a new database for one test.

        Args:
            prefetch: The number of copies to make in advance.
            prefetched: Called in another thread with each copy that is made.
        """

    @abc.abstractmethod
    def drop(self, copy: DatabaseRef) -> None:
        """Drop the result of :meth:`copy`, even if sessions are connected to it. Need not wait for
        it."""

    @abc.abstractmethod
    def keep(self, copy: DatabaseRef | None = None) -> DatabaseRef | Exception:
        """Copy a database without connections, so that the copy outlives the run.

        Return the copy, or the error that prevented it.

        Args:
            copy: The result of :meth:`copy`; None: the shared database.
        """


class View(abc.ABC):
    """One test's view of its database: the engines of the test, and what they have recorded."""

    #: The engine on the test's database; usable on any event loop.
    engine: AsyncEngine
    #: The URL of the test's database.
    url: URL
    #: The statements that the engine has run for the test.
    log: StatementLog
    #: True if the test has failed, and its database must be kept (``--asyncdb-keep``). Set before
    #: its fixtures are torn down.
    keeping: bool = False
    #: With :attr:`keeping`, after :meth:`close`: the kept database, or the error that prevented it.
    kept: DatabaseRef | Exception | None = None
    #: See :attr:`Restorer.unseen`: why the database is replaced after the test.
    unseen: Sequence[str] = ()
    #: What the seeds have returned, in their order, pickled.
    seeded: Sequence[bytes] = ()
    #: True if each connection of the engine has its own transaction.
    independent: ClassVar[bool]

    @abc.abstractmethod
    def checkpoint(self) -> AbstractContextManager[None]:
        """Return a context that, on exit, restores the data to what they were on entry. Blocks.

        Raises:
            IsolationConflict: On entry, if it is not possible now; nothing has changed.
        """

    @property
    @abc.abstractmethod
    def sync_engine(self) -> Engine:
        """An engine like :attr:`engine` for sync code, in any thread and on any event loop."""

    @abc.abstractmethod
    def reference(self) -> URL:
        """Return the URL of another database with the same schema and seed that no test uses."""

    def read(self, work: Callable[[Connection], T]) -> T | None:
        """Call *work* with a connection that sees what the test has done so far. Blocks.

        *work* must only read. In ``rollback``, and on SQLite, uncommitted changes are visible as
        well. Return None if this is not possible at the moment.

        Raises:
            Exception: The driver's own.
        """
        return None

    def expect_checkpoints(self) -> None:
        """Prepare for :meth:`checkpoint`. Called before the test does anything, if it may call
        that."""

    def watch(self) -> None:
        """Note that code may connect to the database without the engine from now on."""

    def waits(self) -> Sequence[str]:
        """Return lines about the statements that ran when the user interrupted the test, and about
        the transactions that may have made them wait."""
        return ()

    @abc.abstractmethod
    def closing(self) -> AbstractContextManager[None]:
        """Return a context in which sync code may close sessions and connections of the engine.

        The code may run with or without a running loop. :meth:`close` undoes their work at the
        latest. Costs no round trip.
        """

    @abc.abstractmethod
    def close(self) -> Sequence[BaseException]:
        """End the view, undo the test's work, and return the breaches of the isolation.

        Called once, from a sync fixture's teardown. Returns within a limited time, and never raises
        because of what the test did.
        """


class Isolation(abc.ABC):
    """Keeps the tests of a worker apart."""

    #: The word in ``--asyncdb-isolation`` and in the marker.
    name: ClassVar[str]
    #: True if a test has one connection, in a transaction from its start to its end. Then the
    #: strategy also works through a connection pooler (:attr:`Server.behind_pooler`).
    one_connection: ClassVar[bool] = False

    @abc.abstractmethod
    def __init__(self, database: Database, host: HostLoop) -> None:
        """Store the arguments. Must not use the database yet.

        Args:
            database: The worker's databases.
            host: The loop on which connections live.
        """

    @abc.abstractmethod
    def view(self, request: ViewRequest) -> View:
        """Open a test's view of its database. Costs no round trip when the database exists."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close what is kept between tests. May be called twice."""
