"""pytest's hooks, and nothing else.

Every pytest run imports this module, so it imports no database library.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import threading
import warnings
from collections.abc import Generator
from typing import Any, cast

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._run import collection, unparametrised
from pytest_asyncdb._run.stash import ITEM, RUN, forget_test, state_of

#: The name of a :class:`_First` among pytest's plugins.
_FIRST = "asyncdb-first"


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_asyncdb import fixtures, hookspecs

    pluginmanager.add_hookspecs(hookspecs)
    pluginmanager.register(_First(), _FIRST)
    # With "pytest_plugins" pytest would read the entry points of all packages once more.
    pluginmanager.register(fixtures, fixtures.__name__)


def pytest_addoption(parser: pytest.Parser) -> None:
    from pytest_asyncdb._config.option_table import add_options

    add_options(parser)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    from pytest_asyncdb._config.registry import Registry
    from pytest_asyncdb._run.run import Run

    config.addinivalue_line(
        "markers",
        "asyncdb(*backends, exclude=(), isolation=None, requires=(), schema=True, "
        "reset_sequences=None, reason=''): "
        "the backends that a database test is for, and how it is isolated (pytest-asyncdb)",
    )
    registry = Registry()
    config.hook.pytest_asyncdb_register(registry=registry)
    try:
        show_line = cast("_First", config.pluginmanager.get_plugin(_FIRST)).show_line
        run = config.stash[RUN] = Run(config, registry, show_line)
    except errors.AsyncdbError as error:
        raise pytest.UsageError(str(error)) from None
    config.add_cleanup(run.close)  # pytest_unconfigure is not called if another plugin fails here
    if run.owns_servers:
        _end_on_sigterm(config)
    config.pluginmanager.register(_Notes(config), "asyncdb-notes")
    # xdist's workers send the outcomes to the controller.
    if run.settings.compares and run.worker == "main" and not run.settings.doctor:
        from pytest_asyncdb.reports.matrix import Matrix

        path = run.settings.report.value
        file = config.invocation_params.dir / path if path else None
        config.pluginmanager.register(Matrix(run, file), "asyncdb-matrix")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the doctor instead of the tests, as pytest's own ``--version`` does."""
    if not config.getoption("asyncdb_doctor"):
        return None
    from pytest_asyncdb._run.pytest_internals import configure
    from pytest_asyncdb.reports import doctor

    configure(config)
    found = doctor.examine(config, config.stash[RUN])
    config.get_terminal_writer().line(doctor.render(found))
    return int(doctor.wrong(found) > 0)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker of xdist a channel on which it asks the controller for servers."""
    from pytest_asyncdb._run.worker_channel import prepare_worker

    run = node.config.stash[RUN]
    prepare_worker(node, run.id, run.owned)


def pytest_report_header(config: pytest.Config) -> list[str]:
    from pytest_asyncdb.reports import header

    run = config.stash[RUN]
    return header.header(run, config.option.verbose > 0) if run.worker == "main" else []


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> None:
    collection.apply_marker(collector, name, obj)


def pytest_itemcollected(item: pytest.Item) -> None:
    collection.open_view_first(item)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    collection.parametrize(metafunc)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Deselect the backends that the marker of a parameter does not allow; keep the order of tests
    if there is one backend.
    """
    if left_out := dict.fromkeys(collection.left_out(items)):
        config.hook.pytest_deselected(items=[*left_out])
        items[:] = [item for item in items if item not in left_out]
    with collection.ungrouped(items, config.stash[RUN]):
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Watch engines if the project has database tests."""
    if any(collection.BACKEND in getattr(item, "fixturenames", ()) for item in session.items):
        session.config.stash[RUN].redirector.active = True


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Start the servers that the tests need, and import the drivers, before the first test.

    A driver that is imported while a test has replaced the classes of datetime, as freezegun does,
    keeps these classes.
    """
    run, option = session.config.stash[RUN], session.config.getoption
    if option("collectonly") or option("setupplan", None) or session.testsfailed:
        return
    specs = dict.fromkeys(filter(None, map(unparametrised.backend_of, session.items)))
    if specs and run.owned is not None:
        run.owned.start([*specs, *run.settings.databases.values()])
    for spec in specs:
        with contextlib.suppress(ImportError, errors.AsyncdbError):  # reported by the tests
            importlib.import_module(run.driver(spec).module)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Remember the next test, refuse the application's engines, and wait for the server.

    The next test's database may be prepared meanwhile. The engines are refused until the test's
    database is open. A limit for the time of a test, such as pytest-timeout's, begins inside of
    this hook, so the wait does not count. It happens here also because a child that is forked for
    the test could not wait.
    """
    state_of(item).next = nextitem
    item.config.stash[ITEM] = item
    if (run := item.config.stash[RUN]).watches:
        run.redirector.run_test(item.nodeid)
    if not item.config.getoption("setupplan", None) and (spec := unparametrised.backend_of(item)):
        with contextlib.suppress(Exception):  # the fixture raises the error, too
            run.server(spec)
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> None:
    unparametrised.hold(fixturedef, request)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget the backend of the previous test."""
    unparametrised.renew(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    run, test = item.config.stash[RUN], state_of(item)
    if call.when == "call" and call.excinfo is not None:
        test.failure = call.excinfo.value
    if call.excinfo is None or item.config.getoption("fulltrace", None):
        report = yield
    else:
        from pytest_asyncdb.reports import tracebacks

        with tracebacks.shortened(call.excinfo.value):
            report = yield
    if run.watches or test.only or call.excinfo is not None:
        from pytest_asyncdb.reports import item_report

        item_report.complete(report, item, call)
    if call.when == "teardown":
        forget_test(item)
        if run.is_child:
            run.close()
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: Any, config: pytest.Config
) -> Generator[None, object, object]:
    """Show equal failures once, before pytest prints them, and add a line after its short
    summary."""
    for failures in filter(None, map(terminalreporter.stats.get, ("error", "failed"))):
        from pytest_asyncdb.reports.item_report import BRIEF
        from pytest_asyncdb.reports.repeated import show_once

        show_once(failures, config.option.tbstyle in BRIEF)
    result = yield
    matrix = config.pluginmanager.get_plugin("asyncdb-matrix")
    if matrix is not None and (line := matrix.last_line()):
        terminalreporter.write_line(line, yellow=True)
    return result


class _First:
    """Runs before other plugins are configured, and before pytest begins to capture output."""

    def __init__(self) -> None:
        self._stderr: int | None = None
        with contextlib.suppress(OSError):  # a process without stderr
            self._stderr = os.dup(2)

    def show_line(self, line: str) -> None:
        """Print *line* on the terminal, also from a thread, and while pytest captures output.

        It has a line of its own: the dots of tests may stand on the present one.
        """
        text = f"{os.linesep}asyncdb: {line}{os.linesep}"
        with contextlib.suppress(OSError):
            if self._stderr is not None:
                os.write(self._stderr, text.encode(errors="replace"))

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Silence pytest-asyncio's warning that its ini option is unset.

        It would be in the first lines of every run, or end the run if warnings are errors. The
        doctor reports it instead.
        """
        config.add_cleanup(self._close)  # after the run is closed, which may show a line
        message = 'The configuration option "asyncio_default_fixture_loop_scope" is unset'
        warnings.filterwarnings("ignore", message, pytest.PytestDeprecationWarning)

    def _close(self) -> None:
        if self._stderr is not None:
            os.close(self._stderr)
            self._stderr = None


class _Notes:
    """Writes between the failures and pytest's short summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        #: The tests that have begun and not ended, including those in xdist's workers.
        self._running: dict[str, None] = {}
        self._interruption: list[str] = []

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        from pytest_asyncdb.reports import interruption

        if isinstance(excinfo.value, KeyboardInterrupt):  # not pytest.exit()
            self._interruption += interruption.lines(self._config, self._running, excinfo.value)

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        run, lines = config.stash[RUN], self._interruption
        every = (report for found in terminalreporter.stats.values() for report in found)
        reports = [r for r in every if any("asyncdb_" in n for n in getattr(r, "__dict__", ()))]
        if reports or run.settings.stats:
            from pytest_asyncdb.reports import header

            lines = [*header.notes(run, reports), *lines]
        if lines:
            terminalreporter.write_sep("=", "asyncdb", yellow=True)
        for line in lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if (run := config.stash.get(RUN, None)) is not None:
        run.close()
        del config.stash[RUN]


def _end_on_sigterm(config: pytest.Config) -> None:
    """End the run on SIGTERM as on Ctrl-C, so that servers and databases are removed.

    This does nothing if the program or another plugin handles the signal.
    """

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt("SIGTERM")

    def restore() -> None:
        if signal.getsignal(signal.SIGTERM) is interrupt:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)
        config.add_cleanup(restore)
