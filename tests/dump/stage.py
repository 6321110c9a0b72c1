"""Where changes are made and undone: one server, one template, one strategy."""

from __future__ import annotations

import asyncio
import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from types import ModuleType
from typing import Any

from dump import dump_mysql, dump_postgres, dump_sqlite
from fix_databases import worker_database
from fix_servers import Servers, Target
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pytest_asyncdb import errors
from pytest_asyncdb._databases.plan import SchemaPlan
from pytest_asyncdb._databases.worker_databases import WorkerDatabase
from pytest_asyncdb._engines.host_loop import HostLoop
from pytest_asyncdb.abc import DatabaseRef, Isolation, ViewRequest

DUMPS: dict[str, ModuleType] = {
    "sqlite": dump_sqlite,
    "postgres": dump_postgres,
    "mysql": dump_mysql,
    "mariadb": dump_mysql,
}

#: What each part of a database holds.
Dump = dict[str, Any]

#: One statement or several.
Change = str | Sequence[str]

#: What cannot run in a transaction; in one, MariaDB lets EXCHANGE PARTITION wait for itself.
AUTOCOMMIT = ("CONCURRENTLY", "VACUUM", "ADD VALUE", "CREATE SUBSCRIPTION", "EXCHANGE PARTITION")


async def execute(connection: AsyncConnection, statements: Change) -> None:
    """Run statements that have no parameters."""
    for statement in [statements] if isinstance(statements, str) else statements:
        await connection.exec_driver_sql(
            statement, execution_options={"no_parameters": True, "stream_results": False}
        )


@dataclasses.dataclass
class Stage:
    """A strategy on a database with everything in it."""

    target: Target
    database: WorkerDatabase
    strategy: Isolation
    host: HostLoop
    runner: asyncio.Runner

    def dump(self, database: str | None = None) -> Dump:
        """What is in a database; None: in the worker's."""
        name = database or self.database.url.database
        with closing(self.target.observer.connect(name)) as connection:
            return DUMPS[self.target.backend].dump(connection, self._own)  # type: ignore[no-any-return]

    def explain(self, found: Dump, expected: Dump, database: str | None) -> str:
        """How a database differs from the template, in a few lines."""
        module = DUMPS[self.target.backend]
        lines = []
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                with (
                    closing(self.target.observer.connect(database)) as this,
                    closing(self.target.observer.connect(self.template.url.database)) as template,
                ):
                    new = module.rows(this, self._own, name)
                    old = module.rows(template, self._own, name)
                lines.append(f"{name}: new {_some(new - old)}, gone {_some(old - new)}")
        return "\n  ".join(lines)

    def renew(self) -> None:
        """Begin again with another database and other connections."""
        self.strategy.close()
        self.database.discard()
        self.strategy = type(self.strategy)(self.database, self.host)  # type: ignore[call-arg]

    @property
    def template(self) -> DatabaseRef:
        return self.database.template.database

    @property
    def _own(self) -> str:
        """The lock timeout of copies."""
        return f"{round(self.database.backend.lock_wait * 1000)}ms"

    def play(self, name: str, work: Callable[[AsyncEngine], Any]) -> list[BaseException]:
        """Run *work* as a test; returns what the end of the test reports."""
        with self.test(name, work) as breaches:
            pass
        return breaches

    @contextmanager
    def test(self, name: str, work: Callable[[AsyncEngine], Any]) -> Iterator[list[BaseException]]:
        """Run *work* in a test that ends with the context. Gives what the end will report."""
        breaches: list[BaseException] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the drivers, of what is left open
            view = self.strategy.view(ViewRequest(name))
            try:
                self.runner.run(work(view.engine))
                yield breaches
            finally:
                breaches += view.close()


def _some(rows: Counter[str]) -> list[str]:
    return [row[:300] for row in list(rows)[:2]]


async def change(engine: AsyncEngine, statements: Change) -> None:
    """Run the statements of one change, and commit."""
    words = " ".join([statements] if isinstance(statements, str) else statements)
    async with engine.connect() as connection:
        if any(word in words for word in AUTOCOMMIT):
            await connection.execution_options(isolation_level="AUTOCOMMIT")
        await execute(connection, statements)
        await connection.commit()


@contextmanager
def open_stage(
    target: Target, servers: Servers, schema: Sequence[str], strategy: type[Any]
) -> Iterator[Stage]:
    """A stage whose template *schema* builds.

    Args:
        strategy: The class of the strategy.
    """

    async def migrate(connection: AsyncConnection) -> None:
        await execute(connection, schema)

    with ExitStack() as stack:
        plan = SchemaPlan((), migrate)
        database, host = stack.enter_context(worker_database(target, servers, "dump", plan))
        runner = stack.enter_context(asyncio.Runner())
        stage = Stage(target, database, strategy(database, host), host, runner)
        stack.callback(lambda: stage.strategy.close())
        assert database.template
        yield stage


#: What the end of a test may report: something that was not put back is no error of the plugin.
REPORTED = (errors.IsolationBreach,)
