"""The judge: scenarios on a plain engine of SQLAlchemy and on the plugin's, on the same server; those for
sync code on a sync driver and on ``asyncdb_sync_engine``.

Same results, same exceptions, same rows afterwards; or a limit that the scenario names.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fix_project import Project, naive_database
from fix_servers import Target
from fix_suite import COMPLETE
from sqlalchemy.engine import make_url

HERE = Path(__file__).parent
PARTS = (
    "stage.py",
    "sync_stage.py",
    "limits.py",
    "truth_reports.py",
    *(path.name for path in sorted(HERE.glob("scenarios_*.py"))),
    "sync_scenarios.py",
)


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_scenarios_end_as_on_a_plain_engine(
    project: Project, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    with naive_database(project, target) as url:
        differences = _play(project, target, monkeypatch, "inner_truth.py", url, 200)
    assert sorted(differences) == []


#: A sync driver on each backend.
SYNC = {"sqlite": "sqlite", "postgres": "postgresql+psycopg"}


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_sync_code_ends_as_on_a_plain_sync_engine(
    project: Project, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    with naive_database(project, target) as url:
        written = make_url(url).set(drivername=SYNC.get(target.backend, "mysql+pymysql"))
        plain = written.render_as_string(hide_password=False)
        differences = _play(project, target, monkeypatch, "inner_sync_truth.py", plain, 60)
    assert sorted(differences) == []


def _play(
    project: Project,
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
    inner: str,
    url: str,
    least: int,
) -> dict[str, Any]:
    """The answers of an inner run that differ, and those that a limit does not explain.

    Args:
        inner: The file of its tests.
        url: Of the database for the plain engine.
        least: How many answers there must be.
    """
    for part in PARTS:
        shutil.copy(HERE / part, project.path / part)
    shutil.copy(HERE / inner, project.path / "test_inner.py")
    project.ini(asyncdb_metadata="stage:Base", filterwarnings="ignore")
    found, told = project.path / "found.jsonl", project.path / "told.jsonl"
    for name, value in {
        "BACKEND": target.backend,
        "DRIVER": target.driver,
        "URL": url,
        "FOUND": str(found),
        # "copy" has the connections of "reset".
        "STRATEGIES": "rollback,reset,copy" if COMPLETE else "rollback,reset",
        "TOLD": str(told),
    }.items():
        monkeypatch.setenv(f"TRUTH_{name}", value)
    run = project.pytester.runpytest_subprocess(
        *("-q", "-p", "no:cacheprovider", "-p", "truth_reports", "--tb=line"),
        *target.arguments,
    )
    assert run.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    problems: dict[tuple[str, str], list[str]] = {}
    for strategy, scenario, text in map(json.loads, _lines(told)):
        problems.setdefault((strategy, scenario), []).append(text)
    answers = [json.loads(line) for line in _lines(found)]
    assert len(answers) >= least
    differences: dict[str, Any] = {}
    for answer in answers:
        key = answer["strategy"], answer["scenario"]
        same = answer["plain"] == answer["here"] and key not in problems
        if same != (answer["limit"] is None):
            differences[" ".join(key)] = {**answer, "told": problems.get(key, [])}
    print("\n" + json.dumps(differences, indent=1))
    return differences


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
