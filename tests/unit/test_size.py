"""The package stays small enough to be taken over."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pytest_asyncdb"

#: Lines of code of the whole package, and how far it may be above before the number is discussed.
#: 10,000 when the package was moved into folders. 700 more make a test tell the truth: tasks that are
#: left (130), listeners of connect (180), other engines (140), a backend and skip for each test (110),
#: settings, streams and ends of a transaction as on a connection of its own (140). 750 more leave
#: nothing and lose nothing: clean sessions (180), what PostgreSQL's reset and changes() see (170),
#: settings, rights and history in copies (110), two-phase transactions (60), mapped schemas and texts
#: of several statements in seeds (80), tasks that wait in the order of a real connection (120),
#: the session of a restorer that was cut off (30).
#: 900 more are what applications need: each format of ini files, objects inside of others (100),
#: images, settings and extensions of servers (250), SQL files as seeds (50), what seeds
#: return and values that are made at import (150),
#: sync code on the test's database (220), several databases (180), poolers (130).
#: 280 more make the report of a failure fit on a screen, and give its cause. 70 more run the
#: private loop step by step, which halves the plugin's calls of functions around a statement.
#: 30 more are for what Windows lacks: a loop that drivers accept, one timer, advice; 20 for what
#: the HTML page shows about a run, and for a SQLite that must not be asked while it runs.
#: 380 more are for authors of backends: the contract that they run (270), savepoints in the
#: dialect's spelling, backends without recipes, the hook after_create (110).
#: 70 more give a named database another backend than the test's, migrations and seeds.
#: 100 more say after Ctrl-C where the run stood (80), and give set-up errors and an unset loop scope
#: texts of their own.
#: 12 more keep a redirected engine without a listener, which costs 25 calls for each statement.
#: 28 more name a module or a model that is missing. 160 more came with small corrections.
#: 70 more do what the end of a transaction does: temporary tables, deferred triggers, SQLite's recipe,
#: the driver's own connection; and show an application its pool.
#: 230 fewer since repetitions were taken away: types and arguments that many functions named
#: (110), conditions around imports (50), values that each recipe of a backend repeated (20), small
#: classes and helpers (50).
#: 50 more put SQLite's database in a file where a test has several connections, so that readers do
#: not wait for a writer. 65 more keep the data folders of containers for later runs.
#: 45 more let a run without database tests import half as much.
#: 160 fewer since helpers of one use and layers that only forwarded (60), repetitions (35),
#: conditions around imports (20), what the standard library or a base class does (15), arguments
#: that follow from others (15) and checks that could not fail (15) were taken away.
#: 310 fewer since modules that need SQLAlchemy anyway import it at their top (50), modules that
#: take many names of another one import that (70), errors that are made in one place stand there
#: (40), classes of one heir, small modules and classes that only assigned are gone (50), the
#: tracebacks have one filter (15), and recipes, times and arguments repeat less (85). 15 more say at
#: the end of a run where a strategy took long, and what to do.
#: 70 fewer since a session that holds a lock of a dead run keeps it, and one function starts threads.
#: 40 more give each option's help in whole sentences, and warn of misspelt environment variables.
MOST = 13_080
MARGIN = 300
#: Lines of one file, with comments; ``abc.py`` is what authors of extensions read from end to end.
LONGEST = 400
LONGER = {"abc.py"}


def lines_of_code(source: str) -> int:
    """The lines of a module that are neither empty nor comment nor docstring."""
    lines = source.splitlines()
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docstrings |= set(range(body[0].lineno, (body[0].end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in docstrings
        for number, line in enumerate(lines, 1)
    )


def sources() -> dict[str, str]:
    """The source of every module, by its path within the package."""
    return {
        str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def test_the_package_stays_below_its_number_of_lines() -> None:
    """So many lines of code, and a margin; more needs a reason where the number stands."""
    counted = {name: lines_of_code(source) for name, source in sources().items()}
    total = sum(counted.values())
    largest = sorted(counted, key=lambda name: -counted[name])[:10]
    assert total <= MOST + MARGIN, f"{total} lines; the largest files: {', '.join(largest)}"


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    """400 lines with comments; ``abc`` alone may be longer."""
    lengths = {name: len(source.splitlines()) for name, source in sources().items()}
    too_long = {n: length for n, length in lengths.items() if length > LONGEST and n not in LONGER}
    assert too_long == {}


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ('"""A docstring."""\n\nimport os  # code\n# a comment\n', 1),
        ('def f():\n    """Two\n    lines."""\n\n    return """no\n    docstring"""\n', 3),
    ],
)
def test_only_code_is_counted(source: str, number: int) -> None:
    """The control: blank lines, comments and docstrings are not counted, other texts are."""
    assert lines_of_code(source) == number
