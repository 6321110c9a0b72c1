"""The judge: scenarios on a plain engine of SQLAlchemy and on the plugin's, on the same server.

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

HERE = Path(__file__).parent
PARTS = (
    "stage.py",
    "limits.py",
    "truth_reports.py",
    *(path.name for path in sorted(HERE.glob("scenarios_*.py"))),
)


@pytest.mark.everyday("sqlite", "postgres+asyncpg")
def test_scenarios_end_as_on_a_plain_engine(
    project: Project, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in PARTS:
        shutil.copy(HERE / part, project.path / part)
    shutil.copy(HERE / "inner_truth.py", project.path / "test_inner.py")
    project.ini(asyncdb_metadata="stage:Base", filterwarnings="ignore")
    found, told = project.path / "found.jsonl", project.path / "told.jsonl"
    with naive_database(project, target) as url:
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
    assert len(answers) > 200
    differences: dict[str, Any] = {}
    for answer in answers:
        key = answer["strategy"], answer["scenario"]
        same = answer["plain"] == answer["here"] and key not in problems
        if same != (answer["limit"] is None):
            differences[" ".join(key)] = {**answer, "told": problems.get(key, [])}
    print("\n" + json.dumps(differences, indent=1))
    assert sorted(differences) == []


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
