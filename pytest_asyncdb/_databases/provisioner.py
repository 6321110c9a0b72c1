"""Creates and drops databases on a server: the templates and their copies.

A template is built once (``build.py``), by the process that asks for it first (``templates.py``).
Every database that a test sees is a copy of a template.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import pickle
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from sqlalchemy.engine import URL

from pytest_asyncdb import errors
from pytest_asyncdb._databases import build, messages
from pytest_asyncdb._databases.connection import AutocommitConnection, maintenance
from pytest_asyncdb._databases.database_files import DatabaseFiles
from pytest_asyncdb._databases.fingerprint import Fingerprint
from pytest_asyncdb._databases.kept_databases import kept_folder
from pytest_asyncdb._databases.plan import SchemaPlan
from pytest_asyncdb._databases.templates import KEPT_PREFIX, Claims, KeptTemplates
from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb._record.text import error_text, in_short
from pytest_asyncdb.abc import Backend, Closing, Copier, DatabaseRef, Driver, Server

T = TypeVar("T")

#: A template database, and what its seeds have returned, in their order, pickled.
_Built = tuple[DatabaseRef, tuple[bytes, ...]]
#: Seconds that the statements which create and drop databases may take.
PATIENCE = 60.0


@dataclasses.dataclass(frozen=True)
class Template:
    """A complete template database.

    Args:
        database: The database.
        copier: Returns the statements that copy it.
        seeded: What its seeds have returned, in their order, pickled.
    """

    database: DatabaseRef
    copier: Copier
    seeded: tuple[bytes, ...] = ()


@dataclasses.dataclass(eq=False)
class Provisioner:
    """Creates databases on a server, for one process and driver.

    Args:
        prefix: The prefix of the names of its databases: run and worker.
        claims: The run's templates on all servers. Not used for SQLite, because no other process
            can see its databases.
        idle_limit: See :attr:`pytest_asyncdb.abc.Database.idle_limit`.
    """

    server: Server
    backend: Backend
    driver: Driver
    prefix: str
    host: HostLoop
    claims: Claims | None
    idle_limit: int

    def __post_init__(self) -> None:
        kept = self.server.kept
        self._kept_templates = None if kept is None else KeptTemplates(kept)
        self._numbers = itertools.count(1)
        self._templates: dict[str, Template | errors.AsyncdbError] = {}
        self._files = DatabaseFiles(self.prefix, self.backend.file_suffix)
        self._maintenance = self.new_connection()
        #: For each template that was built here: seconds for its schema and its seeds; None: it has
        #: none.
        self.built: list[tuple[float | None, float | None]] = []

    @property
    def in_process(self) -> bool:
        """Whether the databases live in this process, without a server."""
        return self.server.maintenance is None

    def template(self, plan: SchemaPlan, options: Mapping[str, Any]) -> Template:
        """Return the template for *plan*. Builds it, unless another process does. Blocks.

        Raises:
            AsyncdbError: The building has failed, now or before.
        """
        dialect = build.building_engine(self._url(None), options).dialect
        fingerprint = Fingerprint(plan, dialect, options, type(self.backend).after_create)
        key = fingerprint.of_run()
        if key not in self._templates:
            try:
                base = None if plan.base is None else self.template(plan.base, options)
                make = functools.partial(self._build, base, plan, options)
                if self.in_process or self.claims is None:
                    made, seeded = make(f"{self.prefix}_t{next(self._numbers)}")
                elif self._kept_templates and (lasting := fingerprint.lasting()):
                    made, seeded = self._obtain(self._kept_templates, lasting, make)
                else:
                    server = self.server
                    of_server = f"{server.user}@{server.host}:{server.port} {key}"
                    made, seeded = self._obtain(self.claims, of_server, make)
                copier = self.run(self.backend.copier(self._maintenance, made.name, self.server))
                self._templates[key] = Template(made, copier, seeded)
            except errors.AsyncdbError as error:
                self._templates[key] = error  # raised again for the next tests
        template = self._templates[key]
        if isinstance(template, errors.AsyncdbError):
            raise template
        return template

    async def copy(
        self,
        template: Template,
        sql: AutocommitConnection | None = None,
        one_connection: bool = False,
    ) -> DatabaseRef:
        """Create a database that equals *template*.

        Args:
            sql: A maintenance connection of the running loop, if that is not the plugin's.
            one_connection: True if no second connection will use the database while the first is in
                a transaction.
        """
        name = f"{self.prefix}_{next(self._numbers)}"
        await self._copy(template, name, sql or self._maintenance)
        is_file = self.backend.file_suffix and not one_connection
        url = self._url(self._files.path(name) if is_file else name)
        return DatabaseRef(name, url, self.backend.hold(url, template.database.url))

    async def _copy(self, template: Template, name: str, sql: AutocommitConnection) -> None:
        if self.in_process:
            return  # Backend.hold() copies
        try:
            create, *others = template.copier(name)
            if self.server.behind_pooler:
                await sql.script(self.backend.end_idle(template.database.name))
            await sql.script([create])
            await sql.script(others)
        except BaseException as error:
            with contextlib.suppress(Exception):  # the end of the run drops it
                await drop(sql, self.backend, self.server, name)
            if self.driver.error_code(error) in self.backend.in_use_codes:
                raise messages.template_in_use(self.backend.label, error) from error
            raise

    async def drop(self, database: DatabaseRef, sql: AutocommitConnection | None = None) -> None:
        """Drop a database, even if sessions are connected to it; *sql* as in :meth:`copy`."""
        if database.keeper is not None:
            database.keeper.close()
        if not self.in_process:
            await drop(sql or self._maintenance, self.backend, self.server, database.name)
        self._files.remove(database.name)

    def keep(self, database: DatabaseRef) -> DatabaseRef:
        """Make a copy, which outlives the run, of a database without connections. Blocks.

        Raises:
            Exception: The driver's own, or OSError.
        """
        # Not a name of the run's databases, which are dropped.
        name = f"asyncdb_kept_{self.prefix.removeprefix('asyncdb_')}_{next(self._numbers)}"
        folder = kept_folder()  # without a record there, `reap` would not find the copy
        if self.in_process:
            path = folder / f"{name}.sqlite"
            self.backend.save(database, str(path))
            return DatabaseRef(name, database.url.set(database=str(path), query={}))
        copier = self.run(self.backend.copier(self._maintenance, database.name, self.server))
        self.run(self._copy(Template(database, copier), name, self._maintenance))
        return DatabaseRef(name, self._url(name))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* on the plugin's loop and return its result. Blocks."""
        return self.host.run(work, PATIENCE)

    def new_connection(self) -> AutocommitConnection:
        """Return another connection to the maintenance database."""
        return maintenance(self.server, self.backend, self.driver)

    def close(self) -> None:
        """Release what this process holds. The end of the run drops the databases. May be called
        twice."""
        if self._kept_templates is not None:
            self._kept_templates.close()
        templates, self._templates = self._templates, {}
        for template in templates.values():
            if isinstance(template, Template) and template.database.keeper is not None:
                template.database.keeper.close()
        self._files.close()
        self.run(self._maintenance.close())

    def _url(self, name: str | None) -> URL:
        return self.backend.url(self.server, self.driver.name, name)

    def _obtain(self, claims: Claims, key: str, make: Callable[[str], _Built]) -> _Built:
        """Return the template that the processes which share *claims* call *key*; build it if none
        has."""
        while (claim := claims.claim(key)).mine:
            try:
                _, seeded = make(claim.name)
            except BaseException as error:
                # A BaseException that is no Exception, such as a test's time limit, is no fault of
                # the template.
                claims.settle(key, str(error) if isinstance(error, Exception) else "")
                raise
            claims.settle(key, None, pickle.dumps(seeded))
        # A process of this user has pickled it: one of the run, or an earlier run on the server.
        return DatabaseRef(claim.name, self._url(claim.name)), pickle.loads(claim.seeded)  # noqa: S301

    def _build(
        self, base: Template | None, plan: SchemaPlan, options: Mapping[str, Any], name: str
    ) -> _Built:
        """Build the template *name*. If that fails, drop what was built."""
        keeper: Closing | None = None
        url = self._url(name)
        try:
            if name.startswith(KEPT_PREFIX):  # a process that was killed may have left a part
                self.run(self.drop(DatabaseRef(name, url)))
            if base is not None:
                self.run(self._copy(base, name, self._maintenance))
            elif not self.in_process:
                self._create(name)
            keeper = self.backend.hold(url, None if base is None else base.database.url)
            returned = self.host.run(self._fill(url, base is None, plan, options))
        except BaseException:
            with contextlib.suppress(Exception):  # the first error says more
                self.run(self.drop(DatabaseRef(name, url, keeper)))
            raise
        seeded = (*returned,) if base is None else (*base.seeded, *returned)
        return DatabaseRef(name, url, keeper), seeded

    def _create(self, name: str) -> None:
        backend, server = self.backend, self.server
        try:
            self.run(self._maintenance.script(backend.create_database(name)))
        except Exception as error:
            code = self.driver.error_code(error)
            lacks = f"The account needs the right {backend.create_right}."
            grant = backend.create_grant.format(user=server.user)
            remedy = f"let an administrator of the {backend.label} server run: {grant}"
            if code in backend.read_only_codes:
                lacks = "The server is read-only, or the account's transactions are."
                remedy = f"let {server.reason} lead to a server and an account that may write"
            elif code not in backend.access_denied_codes:
                raise
            raise errors.ServerUnavailable(
                f"the account {server.user!r} may not create databases ({server.reason})",
                [error_text(error), lacks],
                [remedy, f"or leave {server.reason} out and let a server be started"],
            ) from error

    async def _fill(
        self, url: URL, bare: bool, plan: SchemaPlan, options: Mapping[str, Any]
    ) -> list[bytes]:
        engine = build.building_engine(url, options, self.driver.connect_args(self.server))
        has_schema = bare and not plan.empty
        seeds = plan.seeds if bare else plan.seeds[-1:]
        begun = time.perf_counter()
        try:
            if bare:
                await self._prepare(url, plan)
            if options.get("connect_args"):
                await build.try_options(engine)
            # Alembic's revisions run as they do in production, without take_scripts().
            is_alembic = hasattr(plan.migrate, "input_files")
            if not is_alembic:
                build.take_scripts(engine, self.driver)
            if has_schema:
                await build.build_schema(engine, self.backend, plan)
            await self._stop_events(url)
            built = time.perf_counter()
            if is_alembic:
                build.take_scripts(engine, self.driver)
            returned = await build.fill(engine, self.backend, seeds, plan.session_options)
            await self._stop_events(url)
            took = built - begun, time.perf_counter() - built
            self.built.append((took[0] if has_schema else None, took[1] if seeds else None))
            return returned
        finally:
            await engine.dispose()

    async def _prepare(self, url: URL, plan: SchemaPlan) -> None:
        """Call the backend's hook for a new database. A pooler may not lead to that database."""
        needed = self.driver.connect_args(self.server)
        async with AutocommitConnection(url, self.driver, needed) as own:
            try:
                if self.server.behind_pooler:
                    await own.fetch("SELECT 1")
            except Exception as error:
                raise messages.not_routed(self.server, error) from error
            try:
                await self.backend.after_create(own, self.server, plan.extensions)
            except errors.SchemaError:
                raise
            except Exception as error:
                backend, kind = self.backend, type(self.backend).__name__
                raise errors.SchemaError(
                    f"after_create failed on {backend.label}",
                    [error_text(error)],
                    [f"correct {kind}.after_create() of the backend {backend.name}"],
                ) from error

    async def _stop_events(self, url: URL) -> None:
        if query := self.backend.stop_events(url.database or "", self.server):
            await self._maintenance.script([s for (s,) in await self._maintenance.answer(query)])


async def drop(sql: AutocommitConnection, backend: Backend, server: Server, name: str) -> None:
    """Drop a database, even if sessions are connected to it."""
    if query := backend.end_connections(name):
        for (statement,) in await sql.answer(query):
            with contextlib.suppress(Exception):  # the connection has ended meanwhile
                await sql.script([statement])
    try:
        await sql.script(backend.drop_database(name, server))
    except Exception:
        if backend.free_to_drop_query is None:
            raise
        async with sql.beside(name) as own:
            for (statement,) in await own.fetch(backend.free_to_drop_query):
                await own.script([statement])
        for statement in backend.drop_again(name):
            await sql.script([statement])


async def try_drop(sql: AutocommitConnection, backend: Backend, server: Server, name: str) -> str:
    """Drop a database. Return an empty text, or a colon and the reason why it could not be
    dropped."""
    try:
        await drop(sql, backend, server, name)
    except Exception as error:
        return f": {in_short(error)}"
    return ""


async def drop_leftovers(server: Server, backend: Backend, driver: Driver, prefix: str) -> None:
    """Drop every database with a name that begins with the prefix of a run.

    Raises:
        AsyncdbError: Some databases could not be dropped; the error names them.
    """
    async with maintenance(server, backend, driver) as sql:
        found = [name for (name,) in await sql.fetch(backend.list_databases())]
        names = [name for name in found if name.startswith(prefix)]
        reasons = {name: await try_drop(sql, backend, server, name) for name in names}
    if failed := [f"{name}{reason}" for name, reason in reasons.items() if reason]:
        raise errors.AsyncdbError("; ".join(failed))
