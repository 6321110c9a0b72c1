"""The fixtures. Their docstrings are the reference.

All of them are plain sync fixtures: they need no event loop, and their values work on any loop. The
session-scoped fixtures, except ``asyncdb_backend``, are meant to be overridden in a conftest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._run.collection import spec_of
from pytest_asyncdb._run.fixture_checks import checked_options, is_known, refuse_trio, refuse_word
from pytest_asyncdb._run.stash import ITEM, RUN, state_of
from pytest_asyncdb._run.unparametrised import choose

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_sessionmaker,
    )
    from sqlalchemy.orm import Session

    from pytest_asyncdb._run.handle import Asyncdb, AsyncdbBackend
    from pytest_asyncdb.abc import View
    from pytest_asyncdb.values import BackendSpec


@contextlib.contextmanager
def plain_errors(missing: str = "error") -> Iterator[None]:
    """Turn the plugin's errors into failures without a traceback, or into skips if a server is
    missing."""
    try:
        yield
    except errors.AsyncdbError as error:
        unavailable = errors.ServerUnavailable | errors.ServerStartError | errors.DriverMissing
        if missing == "skip" and isinstance(error, unavailable):
            raise pytest.skip.Exception(str(error)) from None
        raise pytest.fail.Exception(str(error), pytrace=False) from None


# For projects to override.


@pytest.fixture(scope="session")
def asyncdb_metadata(pytestconfig: pytest.Config) -> Any:
    """The tables: a ``MetaData``, a declarative base, or a list of these.

    Scope: session. For several databases it is a dict from their names to these; the first database
    is that of the other fixtures. Default: what the ini option ``asyncdb_metadata`` names. A
    conftest in a subfolder may override it for its tests, which then use another database. None: no
    tables.
    """
    from pytest_asyncdb._databases.plan import MAIN, load_metadata
    from pytest_asyncdb._run.open_views import NOT_GIVEN

    written = pytestconfig.stash[RUN].settings.metadata
    if not written.value:
        return NOT_GIVEN
    with plain_errors():
        found = load_metadata(written)
    return found[MAIN] if [*found] == [MAIN] else found


@pytest.fixture(scope="session")
def asyncdb_engine_options(
    pytestconfig: pytest.Config, asyncdb_app_engines: Any
) -> Mapping[str, Any]:
    """Arguments for the engine, as for ``build_engine``; default: the application's for JSON.

    Scope: session. May request ``asyncdb_backend`` to differ between backends. Options of the pool
    have no effect, except ``pool_events``. The default is the ``json_serializer`` and
    ``json_deserializer`` of the first engine that ``asyncdb_app_engines`` names, if it exists.
    """
    from pytest_asyncdb._run.app_engines import engine_options, of_fixture

    with plain_errors():
        settings = pytestconfig.stash[RUN].settings
        return engine_options(of_fixture(asyncdb_app_engines, settings.app_engines))


@pytest.fixture(scope="session")
def asyncdb_session_options(
    pytestconfig: pytest.Config, asyncdb_app_engines: Any
) -> Mapping[str, Any]:
    """Arguments for ``async_sessionmaker``; default: those of the application's own.

    Scope: session. The application's own is the first sessionmaker that ``asyncdb_app_engines``
    names. If it names none, the default is ``expire_on_commit=False``, and SQLModel's session if
    ``asyncdb_metadata`` in the ini file names SQLModel.
    """
    from pytest_asyncdb._run.app_engines import of_fixture, session_options, sqlmodel_session

    settings = pytestconfig.stash[RUN].settings
    with plain_errors():
        own = session_options(of_fixture(asyncdb_app_engines, settings.app_engines))
        if own is not None:
            return own
        return {"expire_on_commit": False, **sqlmodel_session(settings.metadata)}


@pytest.fixture(scope="session")
def asyncdb_app_engines(pytestconfig: pytest.Config) -> Any:
    """The application's own engines, which connect to the test's database during a test.

    Scope: session. An engine or a sessionmaker, sync or async, a function that returns one,
    ``module:attribute`` of any of them, or a list of these. A text that begins with ``-`` names an
    engine that keeps its own database. Default: what the ini option ``asyncdb_app_engines`` names.
    Costs some microseconds for each test and engine.
    """
    return pytestconfig.stash[RUN].settings.app_engines.value


@pytest.fixture(scope="session")
def asyncdb_migrate(pytestconfig: pytest.Config) -> Any:
    """A function that builds the schema instead of ``create_all``.

    Scope: session. The function is sync or async, and has parameters named ``connection``,
    ``engine`` or ``url``. It runs once for each run and server. Default: Alembic with the file that
    the ini option ``asyncdb_migrations`` names, else None. For several databases it is a dict from
    their names to functions.
    """
    written = pytestconfig.stash[RUN].settings.migrations
    if not written.value:
        return None
    from pytest_asyncdb._databases.migrations import AlembicMigration

    found = {name: AlembicMigration(path, written.source) for name, path in written.value.items()}
    with plain_errors():
        for migration in found.values():
            migration.check()
    return found[None] if [*found] == [None] else found


@pytest.fixture(scope="session")
def asyncdb_seed(pytestconfig: pytest.Config) -> Any:
    """An async function that fills the new database, given a session.

    Scope: session. The function runs once for each run and server, and every test starts with its
    rows. Default: it runs the SQL files that the ini option ``asyncdb_seed`` names; without them
    None. A module or class may override the fixture. A list of functions is a list of layers, each
    of which runs once: ``return [asyncdb_seed, more]``. What the function returns is
    ``asyncdb.seeded``. For several databases it is a dict from their names to functions.
    """
    from pytest_asyncdb._databases.seeds import SeedFiles

    found = {n: SeedFiles(paths) for n, paths in pytestconfig.stash[RUN].settings.seed.items()}
    return found[None] if [*found] == [None] else found or None


# For tests.


@pytest.fixture(scope="session")
def asyncdb_backend(request: pytest.FixtureRequest) -> AsyncdbBackend:
    """The backend on which the test runs: name, driver, server version, capabilities.

    Scope: session; parametrised with the backends of the run. Costs nothing; reading ``version``
    waits for the server. Option: ``--asyncdb``.
    """
    from pytest_asyncdb._config.specs import parse_spec
    from pytest_asyncdb._run.handle import AsyncdbBackend

    run = request.config.stash[RUN]
    spec = getattr(request, "param", None)
    if spec is None:
        # Chosen for each test, because a fixture that is not set up again may hold the value.
        return AsyncdbBackend(run, lambda: choose(request.config.stash[ITEM]))
    if isinstance(spec, str):
        with plain_errors():
            spec = parse_spec(spec, "parametrize of asyncdb_backend", run.registry)
    return AsyncdbBackend(run, spec)


@pytest.fixture
def _asyncdb_view(
    request: pytest.FixtureRequest,
    asyncdb_backend: AsyncdbBackend,
    asyncdb_metadata: Any,
    asyncdb_engine_options: Mapping[str, Any],
    asyncdb_migrate: Callable[..., Any] | None,
    asyncdb_seed: Callable[..., Any] | None,
    asyncdb_session_options: Mapping[str, Any],
    asyncdb_app_engines: Any,
) -> Iterator[View]:
    """The test's view of its database; internal to pytest-asyncdb."""
    from pytest_asyncdb._config.markers import read_markers
    from pytest_asyncdb._run.app_engines import of_fixture
    from pytest_asyncdb._run.open_views import open_views, read_plans
    from pytest_asyncdb.abc import ViewRequest
    from pytest_asyncdb.isolation.started_tasks import StartedTasks

    run = request.config.stash[RUN]
    run.timer.start()
    node = request.node
    with plain_errors(run.settings.missing.value):
        refuse_trio(request)
        refuse_word(asyncdb_backend)
        marking = read_markers(node, run.registry)
        own = checked_options(asyncdb_session_options, "asyncdb_session_options", "bind", "binds")
        plans = read_plans(
            run, marking.schema, asyncdb_metadata, asyncdb_migrate, asyncdb_seed, own
        )
        options = checked_options(asyncdb_engine_options, "asyncdb_engine_options", "url")
        isolation = marking.isolation or run.settings.isolation.value
        prefetch = _prefetch(node, asyncdb_backend.spec, isolation)
        wanted = ViewRequest(node.nodeid, prefetch, marking.reset_sequences)
        views = open_views(run, asyncdb_backend.spec, plans, options, isolation, wanted)
    view = next(iter(views.values()))
    try:
        with plain_errors():
            entries = of_fixture(asyncdb_app_engines, run.settings.app_engines)
            run.redirector.begin(views, entries, node.nodeid)
    except BaseException:
        run.redirector.end()
        for one in views.values():
            one.close()
        raise
    test = state_of(node)
    test.view, test.views = view, views
    test.log = view.log, f"{asyncdb_backend}, {isolation}"
    tasks = StartedTasks(node.nodeid, run.late.append)
    run.timer.stop(str(asyncdb_backend), isolation, "set-up")
    with tasks.of_test(node):
        yield view
    run.timer.start()
    tasks.ended = True
    run.redirector.end()
    if view.keeping and (why := run.why_not_kept(asyncdb_backend.spec)) is not None:
        view.keeping = False
        test.kept = False, why
    breaches = [breach for one in views.values() for breach in one.close()]
    breaches += tasks.close()
    breaches = [b for b in breaches if not is_known(b, test.failure)]
    if view.kept is not None:
        test.kept = run.keep(view.kept, asyncdb_backend.spec, node.nodeid)
    run.timer.stop(str(asyncdb_backend), isolation, "teardown")
    if breaches and (lost := run.liveness.lost(asyncdb_backend.spec)) is not None:
        first = [] if test.lost else [lost]  # it explains what could not be undone
        breaches = [*first, *(b for b in breaches if not getattr(b, "not_undone", False))]
    if breaches and not request.session.exitstatus:  # else the run was interrupted
        pytest.fail("\n\n".join(map(str, breaches)), pytrace=False)


@pytest.fixture
def asyncdb_url(_asyncdb_view: View) -> URL:
    """The SQLAlchemy URL of the test's database.

    Scope: test. Costs nothing. In the ``rollback`` strategy a connection of another engine does not
    see the test's work. What that connection commits is undone and reported, which costs a round
    trip.
    """
    _asyncdb_view.watch()
    return _asyncdb_view.url


@pytest.fixture
def asyncdb_engine(_asyncdb_view: View) -> AsyncEngine:
    """An ``AsyncEngine`` on the test's database; its work is gone after the test.

    Scope: test. Costs nothing until its first statement. In the ``rollback`` strategy all
    connections share the test's outer transaction: begin, commit and rollback are savepoints,
    and units of work of several tasks take turns.
    """
    return _asyncdb_view.engine


@pytest.fixture
def asyncdb_connection(
    request: pytest.FixtureRequest, _asyncdb_view: View
) -> Iterator[AsyncConnection]:
    """An ``AsyncConnection`` on the test's database; its work is gone after the test.

    Scope: test. Costs nothing until its first statement. ``commit()`` and ``rollback()``
    work as usual.
    """
    from sqlalchemy.ext.asyncio import AsyncConnection

    from pytest_asyncdb.isolation.connector import PATIENCE

    engine = _asyncdb_view.engine
    # In a greenlet of SQLAlchemy, because listeners may run statements.
    host = request.config.stash[RUN].host
    connection = AsyncConnection(engine, host.call(engine.sync_engine.connect, patience=PATIENCE))
    yield connection
    with _asyncdb_view.closing():
        connection.sync_connection.close()  # type: ignore[union-attr]


@pytest.fixture
def asyncdb_sessionmaker(
    _asyncdb_view: View, asyncdb_session_options: Mapping[str, Any]
) -> async_sessionmaker[AsyncSession]:
    """An ``async_sessionmaker`` on the test's database, for the application's sessions.

    Scope: test. Costs nothing. Every session from it has its own transaction, and the end of the
    test undoes all of them. Options: override ``asyncdb_session_options``.
    """
    from sqlalchemy.ext.asyncio import async_sessionmaker

    return async_sessionmaker(_asyncdb_view.engine, **asyncdb_session_options)


@pytest.fixture
def asyncdb_session(
    _asyncdb_view: View, asyncdb_sessionmaker: async_sessionmaker[AsyncSession]
) -> Iterator[AsyncSession]:
    """An ``AsyncSession`` on the test's database; its work is gone after the test.

    Scope: test. Costs one round trip for BEGIN and one for ROLLBACK. In the ``rollback``
    strategy ``commit()`` releases a savepoint. Options: override
    ``asyncdb_session_options``.
    """
    session = asyncdb_sessionmaker()
    yield session
    with _asyncdb_view.closing():
        session.sync_session.close()


@pytest.fixture
def asyncdb_sync_engine(_asyncdb_view: View) -> Engine:
    """A sync ``Engine`` on the test's database, for the sync parts of an application.

    Scope: test. Works in sync and async tests and in threads; needs no other driver. In
    ``rollback`` its work is in the test's outer transaction, like that of ``asyncdb_engine``. A
    statement blocks the event loop of its thread, as with a sync driver.
    """
    return _asyncdb_view.sync_engine


@pytest.fixture
def asyncdb_sync_session(
    _asyncdb_view: View, asyncdb_session_options: Mapping[str, Any]
) -> Iterator[Session]:
    """A sync ``Session`` on the test's database; its work is gone after the test.

    Scope: test. Like ``asyncdb_sync_engine``. Options: those of ``asyncdb_session_options``;
    instead of an async class, its ``sync_session_class`` is used.
    """
    from sqlalchemy.orm import Session, sessionmaker

    options = {**asyncdb_session_options}
    own = getattr(options.pop("class_", None), "sync_session_class", Session)
    options["class_"] = options.pop("sync_session_class", own)
    session = sessionmaker(_asyncdb_view.sync_engine, **options)()
    yield session
    with _asyncdb_view.closing():
        session.close()


@pytest.fixture
def asyncdb(
    request: pytest.FixtureRequest,
    asyncdb_backend: AsyncdbBackend,
    _asyncdb_view: View,
    asyncdb_metadata: Any,
    asyncdb_session_options: Mapping[str, Any],
) -> Asyncdb:
    """A handle of the test's database: connections, checkpoints, changes, schema differences.

    Scope: test. Costs nothing; in the ``copy`` strategy, on a server, some milliseconds.
    """
    from pytest_asyncdb._run.handle import Asyncdb

    run, views = request.config.stash[RUN], state_of(request.node).views
    for view in views.values():
        view.expect_checkpoints()
    rest = asyncdb_metadata, asyncdb_session_options
    return Asyncdb(run, asyncdb_backend, request.node.nodeid, views, *rest)


def _prefetch(node: Any, spec: BackendSpec, isolation: str) -> int:
    """Return how many databases to prepare in advance: some, if the next test needs one of the same
    kind."""
    from pytest_asyncdb._config.markers import read_markers

    item, run = state_of(node).next, node.config.stash[RUN]
    if item is None or spec_of(item) != spec:
        return 0
    marking = read_markers(item, run.registry)
    return 2 if (marking.isolation or run.settings.isolation.value) == isolation else 0
