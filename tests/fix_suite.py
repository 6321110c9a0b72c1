"""The everyday suite and the complete one.

``pytest -n auto`` runs the everyday suite, which is fast enough to run before every commit.
``ASYNCDB_TEST_COMPLETE=1 pytest -n auto`` runs every test there is.

Two markers say what the everyday suite leaves out:

``complete``
    The test, or the value of a parameter, runs in the complete suite only: accidents at random
    moments, long waits, one more container. Something like it runs every day.
``everyday(*values)``
    Of a test with parameters: those with one of these values run every day; a tuple stands for
    those that have all of its values. ``everyday(*EACH_DRIVER)`` marks what depends on the driver,
    ``everyday("postgres-local")`` what one server stands for,
    ``everyday(("sqlite", "copy"), ("postgres+asyncpg", "reset"))`` what is the same in both
    strategies.
    Without the marker, tests that run on several words of ``--asyncdb`` run on
    :data:`EACH_BACKEND` every day, one driver for each backend. The marker of a test comes before
    that of its file, and one of whose values a test has none is as good as missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

#: Whether everything runs.
COMPLETE = os.environ.get("ASYNCDB_TEST_COMPLETE", "") not in ("", "0")

#: The words in ``--asyncdb`` on which every contract runs in the complete suite.
WORDS = (
    "sqlite",
    "postgres+asyncpg",
    "postgres+psycopg",
    "mysql+asyncmy",
    "mysql+aiomysql",
    "mariadb+asyncmy",
)
#: Those on which a contract that depends on the driver runs every day.
EACH_DRIVER = tuple(word for word in WORDS if word != "mysql+asyncmy")
#: Those on which any other contract runs every day.
EACH_BACKEND = ("sqlite", "postgres+asyncpg", "mysql+aiomysql", "mariadb+asyncmy")
#: Of tests in each strategy: each backend and each strategy, but not each with each.
EACH_ONCE = (
    "sqlite",
    ("postgres+asyncpg", "reset"),
    ("mysql+aiomysql", "copy"),
    ("mariadb+asyncmy", "rollback"),
)

#: How many examples Hypothesis makes for each word.
EXAMPLES = int(os.environ.get("ASYNCDB_TEST_EXAMPLES", "200" if COMPLETE else "15"))

#: A test of many examples in parts that different workers run; the first one runs every day.
PARTS = [0, *(pytest.param(number, marks=pytest.mark.complete) for number in range(1, 8))]

# Inner runs and servers are hundreds of processes, each of which would compile its modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "complete: runs in the complete suite only",
        "everyday(*values): the values of parameters that the everyday suite runs",
    ):
        config.addinivalue_line("markers", line)


def pytest_report_header() -> str:
    if COMPLETE:
        return "suite: complete"
    return "suite: everyday (ASYNCDB_TEST_COMPLETE=1 runs the complete one)"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for servers and other processes."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest tests, and leave out what only the complete suite runs."""
    # At the end one worker would run them alone.
    items.sort(key=lambda item: "test_truth.py" not in item.nodeid)
    if COMPLETE:
        return
    left_out = [item for item in items if item.get_closest_marker("complete")]
    rest = [item for item in items if not item.get_closest_marker("complete")]
    functions: dict[str, list[pytest.Item]] = {}
    for item in rest:
        functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for group in functions.values():
        left_out += _left_out(group)
    if left_out:
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=left_out)


def _left_out(items: list[pytest.Item]) -> list[pytest.Item]:
    """The items of one function that the everyday suite leaves out."""
    marker = items[0].get_closest_marker("everyday")
    if marker is not None and (kept := _with_one_of(marker.args, items)):
        return [item for item in items if item not in kept]
    kept = _with_one_of(_one_for_each_backend(items), items)
    return [item for item in _with_one_of(WORDS, items) if item not in kept]


def _one_for_each_backend(items: list[pytest.Item]) -> list[str]:
    """Of the words that the items have: that of :data:`EACH_BACKEND`, or else the first."""
    kept: dict[str, str] = {}
    for word in WORDS:
        backend = word.partition("+")[0]
        if _with_one_of([word], items) and (word in EACH_BACKEND or backend not in kept):
            kept[backend] = word
    return list(kept.values())


def _with_one_of(
    values: Sequence[str | tuple[str, ...]], items: list[pytest.Item]
) -> list[pytest.Item]:
    """The items whose parameters have one of the values, or all values of one of the tuples."""
    wanted = [{value} if isinstance(value, str) else {*value} for value in values]
    return [item for item in items if any(one <= _words(item) for one in wanted)]


def _words(item: pytest.Item) -> set[str]:
    """The parameters of an item that are strings."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {value for value in parameters if isinstance(value, str)}
