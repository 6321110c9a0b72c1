"""pytest's hooks; what they do is elsewhere.

Importing this module must stay cheap: it happens in every pytest run.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._run.collection import BACKEND, VIEW, Reaching, wants_view, with_view_first
from pytest_asyncdb._run.stash import COMPARED, MATRIX, RUN, forget_test, state_of

if TYPE_CHECKING:
    from pytest_asyncdb._config.markers import MarkerOptions
    from pytest_asyncdb._run.run import Run


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_asyncdb import fixtures, hookspecs

    pluginmanager.add_hookspecs(hookspecs)
    # For "pytest_plugins" pytest would read the entry points of all that is installed once more.
    pluginmanager.register(fixtures, fixtures.__name__)


def pytest_addoption(parser: pytest.Parser) -> None:
    from pytest_asyncdb._config.options import add_options

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
        run = config.stash[RUN] = Run(config, registry)
    except errors.AsyncdbError as error:
        raise pytest.UsageError(str(error)) from None
    # Should another plugin fail before our turn comes at the end.
    config.add_cleanup(run.close)
    if any(not entry.foreign for entry in run.named_engines):
        config.pluginmanager.register(Reaching(run.named_engines), "asyncdb-reaching")
    if run.owned is not None:
        _end_on_sigterm(config)
        config.pluginmanager.register(run.noted, "asyncdb-times")
    path = run.settings.report.value
    if config.stash.setdefault(MATRIX, len(run.settings.specs) > 1 or bool(path)):
        _watch_outcomes(config, path)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """The doctor takes the place of a run, as pytest's own ``--version`` does."""
    if not config.getoption("asyncdb_doctor"):
        return None
    from pytest_asyncdb.reports import doctor

    config._do_configure()
    run = config.stash[RUN]
    found = doctor.examine(config, run)
    config.get_terminal_writer().line(doctor.render(found))
    if run.settings.report.value:
        path = config.invocation_params.dir / run.settings.report.value
        path.write_text(doctor.to_json(found), encoding="utf-8")
    return int(doctor.is_wrong(found))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist's controller prepares a worker: a channel to ask for servers."""
    from pytest_asyncdb._run.worker_channel import prepare_worker

    run = node.config.stash[RUN]
    prepare_worker(node, run.id, run.owned)


def pytest_report_header(config: pytest.Config) -> list[str]:
    from pytest_asyncdb.reports import header

    run = config.stash[RUN]
    return header.header(run) if run.owned is not None else []


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> None:
    """Our marker makes a test a database test, whatever fixtures it names.

    pytest reads the fixtures of a test when it makes the item, so the mark is added before;
    anyio does the same.
    """
    for node in collector.listchain():
        if wants_view(node.own_markers):
            node.add_marker(pytest.mark.usefixtures(VIEW))
    obj = getattr(obj, "__func__", obj)
    if isinstance(obj, type) or collector.istestfunction(obj, name):
        marks = getattr(obj, "pytestmark", ())
        if wants_view(marks if isinstance(marks, (list, tuple)) else [marks]):
            pytest.mark.usefixtures(VIEW)(obj)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Open the database before the first of the user's own fixtures that live as long.

    An application that a fixture starts then finds its engines redirected.
    """
    names: list[str] = getattr(item, "fixturenames", [])
    named = item.config.stash[RUN].named_engines
    if isinstance(item, pytest.Function) and (VIEW in names or (BACKEND in names and named)):
        item.fixturenames = with_view_first(item, [name for name in names if name != VIEW])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that reaches a fixture of ours once per backend."""
    if BACKEND not in metafunc.fixturenames or _parametrised_by_user(metafunc):
        return
    run = metafunc.config.stash[RUN]
    marking = _marking(metafunc.definition, run)
    specs = [spec for spec in run.settings.specs if marking.allows(spec, run.registry)]
    if specs:
        ids = [spec.id for spec in specs]
        metafunc.parametrize(BACKEND, specs, ids=ids, indirect=True, scope="session")
    else:
        reason = marking.why_not(run.settings.specs)
        skipped = pytest.param(None, marks=pytest.mark.skip(reason=reason), id="no-backend")
        metafunc.parametrize(BACKEND, [skipped], indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take away the backends that the marker of a parameter does not allow."""
    run = config.stash[RUN]
    left_out = [item for item in items if not _is_allowed(item, run)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start what the collected tests need, while the first of them run."""
    run = session.config.stash[RUN]
    if run.owned is None or session.config.option.collectonly:
        return
    needed = {
        item.callspec.params[BACKEND]
        for item in session.items
        if isinstance(item, pytest.Function)
        and BACKEND in getattr(getattr(item, "callspec", None), "params", ())
    }
    run.owned.start(spec for spec in run.settings.specs if spec in needed)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Remember which test comes next, for what can be prepared meanwhile."""
    state_of(item).next = nextitem
    item.config.stash[RUN].watchdog.progress()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Until the test's database is open, the application's engines must not connect.

    Where SQLAlchemy is not imported yet there is no engine, and it is not imported for that.
    """
    run = item.config.stash[RUN]
    if run.named_engines and "sqlalchemy.ext.asyncio" in sys.modules:
        run.guard(item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember what a test failed with: a breach that it raised is told once. Note engines
    that nobody named."""
    test = state_of(item)
    if call.when == "call" and call.excinfo is not None:
        test.failure = call.excinfo.value
    compared = item.config.stash.get(COMPARED, None)
    item.config.stash[COMPARED] = None
    spec = getattr(getattr(item, "callspec", None), "params", {}).get(BACKEND)
    result = yield
    if spec is not None and (call.when == "teardown" or result.failed):
        result.user_properties.append(_property(str(spec)))  # for junit's file, and our summary
    if call.excinfo is not None and result.failed:
        _explain(item, call, spec, result)
    if spec is not None and item.config.stash[MATRIX]:
        from pytest_asyncdb.reports import outcome

        error = call.excinfo.value if call.excinfo is not None and result.failed else None
        journal = test.journal[0] if test.journal is not None else None
        result.__dict__["asyncdb"] = outcome.state_of(item.nodeid, spec, error, compared, journal)
    if result.failed and test.view is not None and item.config.stash[RUN].settings.keep:
        test.view.keeping = True
    if test.kept is not None:
        result.__dict__["asyncdb_kept"] = [*test.kept]  # xdist's workers send it
    if test.strays:
        from pytest_asyncdb.reports import header

        header.note_strays(result, test.strays, item.config.stash[RUN])
    if call.when == "teardown":
        run = item.config.stash[RUN]
        if (times := run.times.take()) is None:
            pass
        elif run.owned is not None:
            run.noted.add(times, item.nodeid)
        else:
            result.__dict__["asyncdb_times"] = times  # is sent to xdist's controller
        forget_test(item)
    return result


@functools.cache
def _property(word: str) -> tuple[str, str]:
    """What a report tells of a test's backend: one object, for pytest keeps all reports."""
    return BACKEND, word


def _explain(
    item: pytest.Item, call: pytest.CallInfo[None], spec: object, report: pytest.TestReport
) -> None:
    """Add to a failed test's *report* what may tell why it failed."""
    from pytest_asyncdb.reports import header, sections

    assert call.excinfo is not None
    error = call.excinfo.value
    lost = call.when != "setup" and header.note_lost(report, error, spec, item.config.stash[RUN])
    test = state_of(item)
    test.lost = test.lost or lost
    found = sections.of_failure(error, test.journal)
    report.sections += [one for one in found if not (lost and one[0] == sections.HINT)]
    if call.when != "teardown" and test.view is not None and not lost:
        from pytest_asyncdb.reports import changed_rows

        report.sections += changed_rows.of_failure(test.view, item.config.stash[RUN])


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> None:
    """A comparison has failed: remember how, where several backends are compared."""
    if config.stash[MATRIX]:
        from pytest_asyncdb.reports import outcome

        config.stash[COMPARED] = outcome.compared(op, left, right)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    from pytest_asyncdb.reports import header

    run = config.stash[RUN]
    reports = [r for found in terminalreporter.stats.values() for r in found]
    lines = header.notes(run, reports)
    if len(run.settings.specs) > 1 and terminalreporter.stats.keys() & {"failed", "error"}:
        from pytest_asyncdb.reports import summary

        lines += summary.portability(run, reports)
    lines += header.times(run)
    for line in lines:
        terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is not None:
        run.close()
        del config.stash[RUN]


def _watch_outcomes(config: pytest.Config, path: str) -> None:
    """Collect the outcomes of database tests; xdist's workers send theirs to the controller."""
    if hasattr(config, "workerinput") or config.option.asyncdb_doctor:
        return
    from pytest_asyncdb.reports.matrix import Matrix

    specs = config.stash[RUN].settings.specs
    where = config.invocation_params.dir / path if path else None
    config.pluginmanager.register(Matrix([str(spec) for spec in specs], where), "asyncdb-matrix")


def _parametrised_by_user(metafunc: pytest.Metafunc) -> bool:
    """Does a ``parametrize`` of the user choose the backend?"""
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if BACKEND in (names.split(",") if isinstance(names, str) else names):
            return True
    return False


def _marking(node: pytest.Item, run: Run) -> MarkerOptions:
    from pytest_asyncdb._config.markers import read_markers

    try:
        return read_markers(node.iter_markers("asyncdb"), _place(node), run.registry)
    except errors.AsyncdbError as error:
        raise pytest.Collector.CollectError(str(error)) from None


def _place(node: pytest.Item) -> str:
    path, line, name = node.location
    return f"{path}:{(line or 0) + 1} ({name})"


def _is_allowed(item: pytest.Item, run: Run) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None or not any(mark.name == "asyncdb" for mark in callspec.marks):
        return True
    spec = callspec.params.get(BACKEND)
    return spec is None or isinstance(spec, str) or _marking(item, run).allows(spec, run.registry)


def _end_on_sigterm(config: pytest.Config) -> None:
    """Let SIGTERM end the run as Ctrl-C does, so that nothing of ours stays behind.

    Only where nobody else has a say about that signal.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)

    def restore() -> None:
        with contextlib.suppress(ValueError):
            if signal.getsignal(signal.SIGTERM) is interrupt:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    config.add_cleanup(restore)
