"""Databases on a server: the template, its copies, and their end.

A template is built once (``build.py``), by whichever process asks first
(``templates.py``), and every database that a test sees is a copy of it. What a test does in
a database is not known here, nor is pytest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pytest_asyncdb import errors
from pytest_asyncdb._databases import messages
from pytest_asyncdb._databases.build import build_schema, building_engine, fill
from pytest_asyncdb._databases.kept_databases import kept_folder, kept_name
from pytest_asyncdb._databases.lasting import LastingTemplates
from pytest_asyncdb._databases.sources import reading, sources, stamps
from pytest_asyncdb._databases.sql import Connection
from pytest_asyncdb.abc import Backend, Closing, Copier, DatabaseRef, Driver, Server

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_asyncdb._databases.connection_limit import Budget
    from pytest_asyncdb._databases.plan import SchemaPlan
    from pytest_asyncdb._databases.templates import Claim
    from pytest_asyncdb._engines.host_loop import HostLoop

#: Seconds for the statements that make and drop databases.
PATIENCE = 60.0
#: Seconds in which a server must answer a worker on another host.
_REACH = 10.0
#: Seconds for which dropping what is in a database waits for others' locks.
_LOCKS = 10.0


class Claims(Protocol):
    """Gives templates of a server: who builds which, so that each is built once."""

    def claim(self, fingerprint: str) -> Claim: ...

    def settle(self, fingerprint: str, error: str | None) -> None: ...


@dataclasses.dataclass(frozen=True)
class Template:
    """A complete template database: only ever copied.

    Args:
        copied: The database.
        copier: Gives the statements that copy it.
    """

    copied: DatabaseRef
    copier: Copier


class Provisioner:
    """Makes databases on a server, for one process and driver.

    Args:
        prefix: How the names of its databases begin: run and worker.
        claims: None where no other process can see the server's databases.
    """

    def __init__(
        self,
        server: Server,
        backend: Backend,
        driver: Driver,
        prefix: str,
        host: HostLoop,
        claims: Claims | None,
        budget: Budget,
    ) -> None:
        self.server = server
        self.backend = backend
        self.driver = driver
        self.host = host
        self.budget = budget
        self._prefix = prefix
        self._claims = claims if server.maintenance is not None else None
        self._lasting = None if server.kept is None else LastingTemplates(server.kept)
        self._numbers = itertools.count(1)
        self._templates: dict[str, Template | errors.AsyncdbError] = {}
        self._maintenance: Connection | None = None
        #: Seconds for schema and seeds of each template that was built here; None: it has none.
        self.built: list[tuple[float | None, float | None]] = []

    def reach(self) -> None:
        """See that the server, which answers its owner, answers here as well; blocks.

        Raises:
            ServerUnavailable: It does not, or another one does.
        """
        if self.server.maintenance is None:
            return
        try:
            connection = self._connection()
            ((said,),) = self.host.run(connection.fetch(self.backend.version_query()), _REACH)
        except errors.AsyncdbError:
            raise
        except Exception as error:
            self.relax()
            raise self._not_reached(f"{type(error).__name__}: {error}") from error
        if self.backend.version_of(str(said)) != self.server.version:
            raise self._not_reached(f"another server answers: {said}")

    def _not_reached(self, said: str) -> errors.AsyncdbError:
        server = self.server
        address = f"{server.host}:{server.port}" if server.port else str(server.host)
        return messages.not_reached(
            self.backend.label, server.reason, address, socket.gethostname(), said
        )

    def template(self, plan: SchemaPlan, options: Mapping[str, Any]) -> Template:
        """The template for *plan*, built here if nobody has done so; blocks.

        Raises:
            AsyncdbError: Building it failed, now or before.
        """
        dialect = building_engine(self._url(None), options).dialect
        fingerprint = plan.fingerprint(dialect, options)
        if fingerprint not in self._templates:
            try:
                base = None if plan.base is None else self.template(plan.base, options)
                lasting = plan.lasting_fingerprint(dialect, options) if self._lasting else None
                self._templates[fingerprint] = (
                    self._obtain(fingerprint, base, plan, options)
                    if lasting is None
                    else self._obtain_lasting(lasting, base, plan, options)
                )
            except errors.AsyncdbError as error:
                self._templates[fingerprint] = error  # for the next tests, without another try
        template = self._templates[fingerprint]
        if isinstance(template, errors.AsyncdbError):
            raise template
        return template

    def copy(self, template: Template) -> DatabaseRef:
        """Another database that equals *template*; blocks."""
        return self.host.run(self.copying(template, self._lend()), PATIENCE)

    async def copying(self, template: Template, sql: Callable[[], Connection]) -> DatabaseRef:
        """Like :meth:`copy`, on whatever loop *sql* gives connections for."""
        name = f"{self._prefix}_{next(self._numbers)}"
        if self.server.maintenance is not None:
            await self.backend_copy(sql(), template, name)
        url = self._url(name)
        return DatabaseRef(name, url, self.backend.hold(url, template.copied.url))

    async def backend_copy(self, sql: Connection, template: Template, name: str) -> None:
        """Make the copy called *name* over a maintenance connection; all of it or nothing."""
        try:
            await sql.script(template.copier(name))
            if limit := self.backend.limit_lock_waits_in(name):
                await sql.script(limit)
        except BaseException as error:
            with contextlib.suppress(Exception):  # the end of the run drops it
                await drop(sql, self.backend, self.server, name)
            query = self.backend.connected(template.copied.name)
            if query is None or self.driver.error_code(error) not in self.backend.in_use:
                raise
            raise messages.template_in_use(self.backend.label, await sql.fetch(query)) from error

    def drop(self, copied: DatabaseRef) -> None:
        """Drop a database, whoever is connected to it; blocks."""
        self.host.run(self.dropping(copied, self._lend()), PATIENCE)

    async def dropping(self, copied: DatabaseRef, sql: Callable[[], Connection]) -> None:
        """Like :meth:`drop`, on whatever loop *sql* gives connections for."""
        if copied.keeper is not None:
            copied.keeper.close()
        if self.server.maintenance is not None:
            await drop(sql(), self.backend, self.server, copied.name)

    def keep(self, copied: DatabaseRef) -> DatabaseRef:
        """A copy of a database to which nobody is connected, which outlives the run; blocks.

        Raises:
            Exception: The driver's own, or OSError.
        """
        name = kept_name(self._prefix, next(self._numbers))
        folder = kept_folder()  # without which nobody would find the copy again
        if self.server.maintenance is None:
            path = folder / f"{name}.sqlite"
            self.backend.save(copied, str(path))
            return DatabaseRef(name, copied.url.set(database=str(path), query={}))
        copier = self._copier(copied.name)
        self._run(self.backend_copy(self._connection(), Template(copied, copier), name))
        return DatabaseRef(name, self._url(name))

    def rebuild(self, plan: SchemaPlan, options: Mapping[str, Any]) -> DatabaseRef:
        """Build *plan* in the one database that may be used; blocks."""
        assert self.server.single is not None
        url = self._url(None)
        self._run(empty(self._connection(), self.backend, self.server))
        self.host.run(self._fill(url, True, plan, options))
        return DatabaseRef(self.server.maintenance or "", url)

    def new_connection(self) -> Connection:
        """A connection of its own to the maintenance database."""
        return Connection(self._url(None), self.driver)

    def close(self) -> None:
        """Let go of what is kept; the end of the run drops the databases. Twice is fine."""
        if self._lasting is not None:
            self._lasting.close()
        templates, self._templates = self._templates, {}
        for template in templates.values():
            if isinstance(template, Template) and template.copied.keeper is not None:
                template.copied.keeper.close()
        self.relax()

    def relax(self) -> None:
        """Close the connection that is kept; the next use opens another one."""
        maintenance, self._maintenance = self._maintenance, None
        if maintenance is not None:
            self.host.run(maintenance.close(), PATIENCE)
            self.budget.give()

    def _url(self, name: str | None) -> URL:
        return self.backend.url(self.server, self.driver.name, name)

    def _connection(self) -> Connection:
        if self._maintenance is None:
            self.budget.take()
            self._maintenance = self.new_connection()
        return self._maintenance

    def _lend(self) -> Callable[[], Connection]:
        """Gives the maintenance connection. Room for it is made here, not on our loop."""
        if self.server.maintenance is None:
            return self._connection  # nobody asks for it
        connection = self._connection()
        return lambda: connection

    def _obtain(
        self,
        fingerprint: str,
        base: Template | None,
        plan: SchemaPlan,
        options: Mapping[str, Any],
    ) -> Template:
        if self._claims is None:
            name, mine = f"{self._prefix}_t{next(self._numbers)}", True
        else:
            claim = self._claims.claim(fingerprint)
            name, mine = claim.name, claim.mine
        keeper = None
        if mine:
            error: BaseException | None = None
            try:
                keeper = self._build(name, base, plan, options)
            except BaseException as problem:
                error = problem
                raise
            finally:
                if self._claims is not None:
                    self._claims.settle(fingerprint, None if error is None else str(error))
        copier = _no_statements if self.server.maintenance is None else self._copier(name)
        return Template(DatabaseRef(name, self._url(name), keeper), copier)

    def _obtain_lasting(
        self,
        fingerprint: str,
        base: Template | None,
        plan: SchemaPlan,
        options: Mapping[str, Any],
    ) -> Template:
        """One that another run may have built, and later ones will find."""
        assert self._lasting is not None
        claim = self._lasting.claim(fingerprint)
        if claim.mine:
            built_from = None
            try:
                with reading() as read:
                    self._build(claim.name, base, plan, options)
                built_from = stamps(sources(plan.functions(), read))
            finally:
                self._lasting.settle(fingerprint, claim.name, built_from)
        return Template(DatabaseRef(claim.name, self._url(claim.name)), self._copier(claim.name))

    def _copier(self, name: str) -> Copier:
        copier: Copier = self._run(self.backend.copier(self._connection(), name, self.server))
        return copier

    def _build(
        self, name: str, base: Template | None, plan: SchemaPlan, options: Mapping[str, Any]
    ) -> Closing | None:
        """Build the template called *name*; all of it or nothing."""
        keeper: Closing | None = None
        url = self._url(name)
        try:
            if self.server.maintenance is None:
                pass
            elif base is None:
                self._create(name)
            else:
                self._run(self.backend_copy(self._connection(), base, name))
            keeper = self.backend.hold(url, None if base is None else base.copied.url)
            self.host.run(self._fill(url, base is None, plan, options))
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong before says more
                self.drop(DatabaseRef(name, url, keeper))
            raise
        return keeper

    def _create(self, name: str) -> None:
        from sqlalchemy.exc import DBAPIError

        try:
            self._run(create(self._connection(), self.backend, name))
        except DBAPIError as error:
            if error.orig is None or self.driver.error_code(error.orig) not in self.backend.denied:
                raise
            grant = self.backend.grant.format(user=self.server.user)
            raise messages.may_not_create(
                self.backend.label, self.server.user, self.server.reason, error, grant
            ) from error

    async def _fill(
        self, url: URL, bare: bool, plan: SchemaPlan, options: Mapping[str, Any]
    ) -> None:
        engine = building_engine(url, options)
        has_schema = bare and not plan.empty
        seeds = plan.seeds if bare else plan.seeds[-1:]
        begun = time.perf_counter()
        try:
            if has_schema:
                await build_schema(engine, self.backend, plan)
            built = time.perf_counter()
            await fill(engine, self.backend, seeds)
            took = built - begun, time.perf_counter() - built
            self.built.append((took[0] if has_schema else None, took[1] if seeds else None))
        finally:
            await engine.dispose()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.host.run(work, PATIENCE)


def _no_statements(name: str) -> tuple[str, ...]:
    return ()


async def create(sql: Connection, backend: Backend, name: str) -> None:
    """Make an empty database, over a maintenance connection."""
    await sql.each(backend.create_database(name))


async def drop(sql: Connection, backend: Backend, server: Server, name: str) -> None:
    """Drop a database, whoever is connected to it."""
    from sqlalchemy.exc import DBAPIError

    query = backend.end_connections(name)
    if query:
        for (statement,) in await sql.answer(query):
            with contextlib.suppress(DBAPIError):  # it has ended meanwhile
                await sql.each([statement])
    await sql.each(backend.drop_database(name, server))


async def contents(sql: Connection, backend: Backend) -> list[tuple[str, str]]:
    """What the database of *sql* holds, in words, each with the statement that drops it."""
    assert backend.contents is not None
    return [(str(what), str(statement)) for what, statement in await sql.fetch(backend.contents)]


async def empty(sql: Connection, backend: Backend, server: Server) -> None:
    """Drop what the one database holds that may be used, but for what it keeps.

    Raises:
        SchemaError: The server does not let us.
    """
    from sqlalchemy.exc import DBAPIError

    kept = server.single or ()
    found = [statement for what, statement in await contents(sql, backend) if what not in kept]
    if not found:
        return
    try:
        await sql.script([*backend.lock_timeout(_LOCKS), *backend.emptying, *found])
    except DBAPIError as error:
        raise messages.single_not_emptied(server.maintenance or "", server.reason, error) from error


async def room(server: Server, backend: Backend, driver: Driver) -> int | None:
    """How many connections a server has room for; None where it does not say."""
    if backend.room is None:
        return None
    async with Connection(backend.url(server, driver.name, None), driver) as sql:
        ((number,),) = await sql.fetch(backend.room)
        return None if number is None else int(number)


async def drop_leftovers(server: Server, backend: Backend, driver: Driver, prefix: str) -> None:
    """Drop every database of a run: those whose names begin with its prefix."""
    async with Connection(backend.url(server, driver.name, None), driver) as sql:
        for (name,) in await sql.fetch(backend.list_databases()):
            if name.startswith(prefix):
                await drop(sql, backend, server, name)
