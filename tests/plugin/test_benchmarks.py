"""The benchmark runs from end to end; how fast anything is, is not looked at here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = """
# Speed

<!-- benchmark: begin, written by --docs -->
what was measured before
<!-- benchmark: end -->

The end.
"""


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "benchmarks", *arguments)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ASYNCDB_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_smallest_case_is_measured_and_written_down(tmp_path: Path) -> None:
    """A case on SQLite gives a line of the table, of the JSON and of the page."""
    page, file = tmp_path / "speed.md", tmp_path / "speed.json"
    page.write_text(PAGE, encoding="utf-8")
    options = ["--quick", "--tests=3", "--rounds=1", "--cases=rollback"]
    done = benchmark(*options, f"--json={file}", f"--docs={page}")
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text("utf-8"))
    (result,) = found["results"]
    assert (result["key"], result["word"], result["target"]) == ("rollback", "sqlite", 1.0)
    assert result["verdict"] in ("ok", "missed")
    medians = {name: taken["median"] for name, taken in result["variants"].items()}
    assert [taken["number"] for taken in result["variants"].values()] == [3, 3]
    ratio = medians["rollback"] / medians["hand-written"]
    assert result["reached"]["median"] == pytest.approx(ratio)
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 3
    text = page.read_text("utf-8")
    assert "\n".join(table) in text
    assert "what was measured before" not in text
    assert text.startswith(PAGE.partition("what was")[0])
    assert text.endswith(PAGE.partition("before\n")[2])


@pytest.mark.complete
def test_statements_are_compared_with_a_plain_engine(tmp_path: Path) -> None:
    """A line of the table for each strategy, and a result for each kind of statement."""
    file = tmp_path / "speed.json"
    done = benchmark("--quick", "--cases=statement", f"--json={file}")
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text("utf-8"))["results"]
    kinds = ("select", "insert", "commit", "stream")
    assert [result["what"] for result in results] == [
        f"{kind}, {strategy} : plain engine"
        for strategy in ("rollback", "reset", "copy")
        for kind in kinds
    ]
    assert {result["verdict"] for result in results} <= {"ok", "missed"}
    header, _, *lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in header.split("|")][3:-1] == list(kinds)
    assert len(lines) == 3


def test_what_the_reports_need_can_be_switched_off(tmp_path: Path) -> None:
    """The plugin for that fails a run in which a statement is noted all the same."""
    file = tmp_path / "speed.json"
    options = ["--quick", "--tests=3", "--rounds=1", "--cases=seeing"]
    done = benchmark(*options, f"--json={file}")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(file.read_text("utf-8"))["results"]
    assert result["verdict"] in ("ok", "missed")
    numbers = {name: taken["number"] for name, taken in result["variants"].items()}
    assert numbers == {"noting": 3 * 4, "blind": 3 * 4}


@pytest.mark.complete
def test_what_noting_costs_is_seen(tmp_path: Path) -> None:
    """The control: where to note a statement takes 10 ms, the tests that note are the slow ones."""
    slow = (
        "import time\n"
        "from pytest_asyncdb._record.statement_log import StatementLog\n"
        "def add(self, *args, add=StatementLog.add):\n"
        "    until = time.process_time() + 0.01\n"
        "    while time.process_time() < until:\n"
        "        pass\n"
        "    add(self, *args)\n"
        "StatementLog.add = add\n"
    )
    code = (
        "import dataclasses, sys; from benchmarks import __main__ as main, cases;"
        "case = next(case for case in cases.CASES if case.key == 'seeing');"
        f"source = dataclasses.replace(case.variants[0].source, conftest={slow!r});"
        "variants = tuple(dataclasses.replace(one, source=source) for one in case.variants);"
        "main.CASES = (dataclasses.replace(case, variants=variants),);"
        "sys.exit(main.main(['--quick', '--cases=seeing', *sys.argv[1:]]))"
    )
    file = tmp_path / "speed.json"
    done = run("-c", code, "--tests=3", "--rounds=1", f"--json={file}")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(file.read_text("utf-8"))["results"]
    assert result["reached"]["median"] > 2
    assert result["verdict"] == "missed"


@pytest.mark.complete
def test_the_suite_runs_with_each_contender(tmp_path: Path) -> None:
    """A part of the suite gives lines for both clocks, in one process and with two workers."""
    file = tmp_path / "speed.json"
    options = ["--quick", "--rounds=1", "--suite-each=60", "--cases=suite"]
    done = benchmark(*options, f"--json={file}")
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text("utf-8"))["results"]
    by_hand = [result for result in results if "by hand" in result["what"]]
    assert [(result["what"].partition(" : ")[0], result["target"]) for result in by_hand] == [
        ("whole suite, processor time", 1.0),
        ("whole suite, wall time", None),
        ("whole suite with -n 2, processor time", 1.0),
        ("whole suite with -n 2, wall time", None),
    ]
    for result in by_hand:
        ours, theirs = (taken["median"] for taken in result["variants"].values())
        assert result["reached"]["median"] == pytest.approx(ours / theirs)
    (sqla, *_) = [result for result in results if "pytest-sqla" in result["what"]]
    assert sqla["verdict"] in ("ok", "missed") or sqla["problem"] == "there is no pytest-sqla"


@pytest.mark.complete
def test_a_contender_that_leaves_rows_fails_the_suite(tmp_path: Path) -> None:
    """The control: a fixture by hand that commits what it should roll back."""
    code = (
        "import shutil, sys; from pathlib import Path;"
        "from benchmarks import __main__ as main, application;"
        f"suite = Path(shutil.copytree(application.SUITE, {str(tmp_path / 'suite')!r}));"
        "file = suite / 'by_hand.py'; text = file.read_text('utf-8');"
        "leaking = text.replace('await transaction.rollback()', 'await transaction.commit()');"
        "assert leaking != text; file.write_text(leaking, 'utf-8');"
        "application.SUITE, application._WORKERS = suite, (0,);"
        "application.CONTENDERS = application.CONTENDERS[:1];"
        "sys.exit(main.main(sys.argv[1:]))"
    )
    done = run("-c", code, "--quick", "--rounds=1", "--suite-each=60", "--cases=suite")
    assert done.returncode == 1
    assert "| failed |" in done.stdout
    assert "UNIQUE constraint failed: country.code" in done.stderr


@pytest.mark.complete
@pytest.mark.parametrize("grows", [False, True])
def test_what_grows_with_the_tests_is_seen(grows: bool) -> None:
    """The control: fixtures of which each calls what all before it have left."""
    growing = (
        "import pytest\n"
        "left = []\n"
        "@pytest.fixture(autouse=True)\n"
        "def growing():\n"
        "    [call() for call in left]\n"
        "    left.extend([lambda: None] * 10)\n"
    )
    code = (
        "import dataclasses, sys; from benchmarks import flat;"
        f"flat.ASYNCDB = dataclasses.replace(flat.ASYNCDB, conftest={growing if grows else ''!r});"
        "sys.exit(flat.main(['--words=sqlite', '--size=30']))"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    calls = float(done.stdout.splitlines()[-1].split("|")[4].split()[0])
    # On a busy machine our loop turns once more or less while it waits for SQLite's thread.
    assert calls > 1.1 if grows else 0.95 < calls < 1.05


@pytest.mark.complete
def test_a_run_that_does_not_pass_is_a_failure(tmp_path: Path) -> None:
    """A broken variant is not measured: the line says so, and the command fails."""
    code = (
        "import dataclasses, sys; from benchmarks import __main__ as main, cases;"
        "case = next(case for case in cases.CASES if case.key == 'rollback');"
        "broken = dataclasses.replace(case.variants[0].source, fixture='no_such_fixture');"
        "variants = (dataclasses.replace(case.variants[0], source=broken),);"
        "main.CASES = (dataclasses.replace(case, variants=variants),);"
        "sys.exit(main.main(['--quick', '--cases=rollback']))"
    )
    done = run("-c", code)
    assert done.returncode == 1
    assert "| failed |" in done.stdout
    assert "fixture 'no_such_fixture' not found" in done.stderr


def test_a_mistyped_case_ends_the_command() -> None:
    """The keys that there are, are in the text."""
    done = benchmark("--cases=rolback")
    assert done.returncode == 2
    assert "unknown cases: rolback; there are: rollback, loops, " in done.stderr
