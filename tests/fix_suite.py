"""The everyday suite and the complete one.

``pytest -n auto`` runs the everyday suite, which is fast enough to run before every commit.
``ASYNCDB_TEST_COMPLETE=1 pytest -n auto`` runs every test there is.

Two markers say what the everyday suite leaves out:

``complete``
    The test, or the value of a parameter, runs in the complete suite only: accidents at random
    moments, long waits, one more container. Something like it runs every day.
``everyday(*words)``
    The words of ``--asyncdb`` on which the test runs every day. The default is
    :data:`EACH_BACKEND`: one driver for each backend. ``everyday(*EACH_DRIVER)`` marks what depends on
    the driver. The marker of a test comes before the marker of its file. A test that knows
    none of the words runs on all of its own.
"""

from __future__ import annotations

import os

import pytest

#: Whether everything runs.
COMPLETE = os.environ.get("ASYNCDB_TEST_COMPLETE", "") not in ("", "0")

#: The words in ``--asyncdb`` on which a contract that depends on the driver runs every day.
EACH_DRIVER = (
    "sqlite",
    "postgres+asyncpg",
    "postgres+psycopg",
    "mysql+asyncmy",
    "mysql+aiomysql",
    "mariadb+asyncmy",
)
#: The words on which any other contract runs every day.
EACH_BACKEND = ("sqlite", "postgres+asyncpg", "mysql+aiomysql", "mariadb+asyncmy")

#: How many examples Hypothesis makes for each word.
EXAMPLES = int(os.environ.get("ASYNCDB_TEST_EXAMPLES", "200" if COMPLETE else "15"))


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "complete: runs in the complete suite only",
        "everyday(*words): the words of --asyncdb on which the everyday suite runs the test",
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
    """Leave out what only the complete suite runs."""
    if COMPLETE:
        return
    left_out = [item for item in items if item.get_closest_marker("complete")]
    rest = [item for item in items if not item.get_closest_marker("complete")]
    functions: dict[str, list[pytest.Item]] = {}
    for item in rest:
        functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for group in functions.values():
        left_out += _on_other_words(group)
    if left_out:
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=left_out)


def _on_other_words(items: list[pytest.Item]) -> list[pytest.Item]:
    """The items of one function whose word the everyday suite leaves out."""
    marker = items[0].get_closest_marker("everyday")
    chosen = marker.args if marker is not None else EACH_BACKEND
    words = {item: _word(item) for item in items}
    if not any(word in chosen for word in words.values()):
        return []
    return [item for item, word in words.items() if word is not None and word not in chosen]


def _word(item: pytest.Item) -> str | None:
    """The word among the values of the item's parameters."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return next((v for v in values if isinstance(v, str) and v in EACH_DRIVER), None)
