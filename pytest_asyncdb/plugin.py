"""pytest's hooks; what they do is elsewhere.

Importing this module must stay cheap: it happens in every pytest run.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._stash import FAILURE, RUN

if TYPE_CHECKING:
    from pytest_asyncdb._markers import Marking
    from pytest_asyncdb._run import Run

pytest_plugins = ("pytest_asyncdb.fixtures",)

#: The fixture that makes a test a database test: every other one depends on it.
BACKEND = "asyncdb_backend"


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_asyncdb import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    from pytest_asyncdb._config import add_options

    add_options(parser)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    from pytest_asyncdb._registry import Registry
    from pytest_asyncdb._run import Run

    config.addinivalue_line(
        "markers",
        "asyncdb(*backends, exclude=(), isolation=None, requires=(), schema=True, reason=''): "
        "the backends that a database test is for, and how it is isolated (pytest-asyncdb)",
    )
    registry = Registry()
    config.hook.pytest_asyncdb_register(registry=registry)
    try:
        run = config.stash[RUN] = Run(config, registry)
    except errors.AsyncdbError as error:
        raise pytest.UsageError(str(error)) from None
    if run.owned is not None:
        _end_on_sigterm(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist's controller prepares a worker: a channel to ask for servers."""
    from pytest_asyncdb import _workers

    run = node.config.stash[RUN]
    channel = node.gateway.newchannel()
    node.workerinput[_workers.CHANNEL] = channel
    node.workerinput["asyncdb_run"] = run.id
    _workers.serve_channel(channel, run.owned)


def pytest_report_header(config: pytest.Config) -> list[str]:
    from pytest_asyncdb import _report

    run = config.stash[RUN]
    return _report.header(run) if run.owned is not None else []


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember what a test failed with: a breach that it raised is told once."""
    if call.when == "call" and call.excinfo is not None:
        item.stash[FAILURE] = call.excinfo.value
    result = yield
    if call.when == "teardown" and FAILURE in item.stash:
        del item.stash[FAILURE]
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    from pytest_asyncdb import _report

    run = config.stash[RUN]
    for line in _report.notes(run):
        terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is not None:
        run.close()
        del config.stash[RUN]


def _parametrised_by_user(metafunc: pytest.Metafunc) -> bool:
    """Does a ``parametrize`` of the user choose the backend?"""
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if BACKEND in (names.split(",") if isinstance(names, str) else names):
            return True
    return False


def _marking(node: pytest.Item, run: Run) -> Marking:
    from pytest_asyncdb._markers import read_markers

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
