"""Collects the outcomes of every test on each backend, and finds the tests that differ."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_asyncdb._record.text import counted, shorten, wrap
from pytest_asyncdb._run.run import Run
from pytest_asyncdb.reports.causes import CAUSES, SETUP
from pytest_asyncdb.reports.header import servers, versions
from pytest_asyncdb.reports.outcome import details, summary, without_passwords

#: Number of tests that the terminal shows for each cause.
_SHOWN = 10
_BAD = ("failed", "error")


class Matrix:
    """A pytest plugin of the controller. It collects outcomes and writes the report at the end.

    Args:
        path: The file of the report, or None.
    """

    def __init__(self, run: Run, path: Path | None) -> None:
        self.run = run
        #: The backends of the run, as the user wrote them.
        self.backends = [str(spec) for spec in run.settings.specs]
        self.path = path
        self._started = datetime.now().astimezone()
        self._clock = time.perf_counter()
        #: Test → backend → outcome.
        self.tests: dict[str, dict[str, dict[str, Any]]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if (about := getattr(report, "asyncdb", None)) is None:
            return
        found = self.tests.setdefault(about["test"], {})
        backend = about["backend"]
        if report.when == "setup" or backend not in found:  # the first run, or a rerun
            found[backend] = {"outcome": "passed", "seconds": {}, "reason": None, "error": None}
        cell = found[backend]
        cell["seconds"][report.when] = round(report.duration, 6)
        if report.failed and cell["outcome"] != "failed":
            cell["outcome"] = "failed" if report.when == "call" else "error"
        elif hasattr(report, "wasxfail") and report.when == "call":
            cell["outcome"] = "xfailed" if report.skipped else "xpassed"
        elif report.skipped:
            cell["outcome"] = "skipped"
        if report.failed and cell["error"] is None and "error" in about:
            more = details(report, about["error"]["masked"]) if self.path is not None else {}
            cell["error"] = {"when": report.when, **about["error"], **more}
        elif report.outcome != "passed" or hasattr(report, "wasxfail"):
            cell["reason"] = cell["reason"] or _reason(report)

    def pytest_sessionfinish(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.suffix == ".html":
            from pytest_asyncdb.reports.html import page

            text = page(self.content())
        else:
            text = json.dumps(self.content(), indent=1, ensure_ascii=False) + "\n"
        # UTF-8 has no half of a surrogate pair. It becomes JSON's escape.
        self.path.write_text(text, encoding="utf-8", errors="backslashreplace")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if lines := self.lines():
            terminalreporter.section(f"asyncdb: {self._differ()}", yellow=True)
        for line in lines:
            terminalreporter.write_line(line)

    def last_line(self) -> str:
        """Return the most important line, below pytest's short summary; empty: no test differs, no
        report."""
        differ = self._differ()
        path = f": {self.path}" if self.path is not None else ""
        return f"asyncdb: {differ or 'report'}{path}" if differ or path else ""

    def _differ(self) -> str:
        """Return how many tests differ; empty: none."""
        number = sum(map(len, self.differences().values()))
        verb = "differs" if number == 1 else "differ"
        return f"{counted(number, 'test')} {verb} between backends" if number else ""

    @property
    def left_out(self) -> list[str]:
        """Backends on which every test failed in its set-up. They show nothing about a test."""
        cells = [item for found in self.tests.values() for item in found.items()]
        ran = {backend for backend, _ in cells}
        called = {backend for backend, cell in cells if "call" in cell["seconds"]}
        return [backend for backend in self.backends if backend in ran - called]

    def differences(self) -> dict[str, list[str]]:
        """Return the tests that passed on one backend and failed on another, by cause."""
        left_out = set(self.left_out)
        found: dict[str, list[str]] = {name: [] for name in CAUSES}
        for test, cells in self.tests.items():
            seen = [cell for backend, cell in cells.items() if backend not in left_out]
            bad = [cell for cell in seen if _is_bad(cell)]
            if bad and any(cell["outcome"] == "passed" for cell in seen):
                causes = [cell["error"]["cause"] for cell in bad if cell["error"]]
                found[next((name for name in causes if name != "other"), "other")].append(test)
        return {name: tests for name, tests in found.items() if tests}

    def content(self) -> dict[str, Any]:
        """Return the report; docs/howto/matrix.md describes it."""
        differences = self.differences()
        causes = {test: name for name, tests in differences.items() for test in tests}
        return {
            "asyncdb_report": 4,
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._clock, 3),
            "versions": versions(self.run),
            "backends": self.backends,
            "servers": servers(self.run),
            "left_out": self.left_out,
            "differences": differences,
            "tests": [
                {"test": test, "cause": causes.get(test), "on": cells}
                for test, cells in sorted(self.tests.items(), key=lambda item: _natural(item[0]))
            ],
        }

    def lines(self) -> list[str]:
        """Return the section of the terminal's summary; empty if no test differs."""
        differences = self.differences()
        lines = []
        for name, tests in differences.items():
            lines.append(f"{name} ({len(tests)})")
            for test in tests[:_SHOWN]:
                lines += self._test(test)
            if len(tests) > _SHOWN:
                lines.append(f"  and {len(tests) - _SHOWN} more: --asyncdb-report=FILE.html")
        if lines and self.left_out:
            lines += _wrap(f"not compared, no test was set up: {', '.join(self.left_out)}", 0)
        return lines

    def _test(self, test: str) -> list[str]:
        """Return where a test passed, and the error of each backend where it failed, side by
        side."""
        cells = self.tests[test]
        good = [backend for backend, cell in cells.items() if cell["outcome"] == "passed"]
        lines = [*_wrap(test, 2), *_wrap(f"passed on {', '.join(good)}", 4)]
        for backend, cell in cells.items():
            if not _is_bad(cell):
                continue
            error = cell["error"]
            lines += _wrap(f"failed on {backend}" + (f": {summary(error)}" if error else ""), 4)
            if error and error["statement"]:
                lines += _wrap(error["statement"], 6)
        return lines


def _natural(test: str) -> tuple[str, str]:
    """Return a key that sorts ``test[2]`` before ``test[10]``."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), test), test


def _reason(report: Any) -> str:
    """Return why a test was skipped or expected to fail, also if it passed nevertheless."""
    why = getattr(report, "wasxfail", report.longrepr)
    return without_passwords(str(why[2] if isinstance(why, tuple) else why))


def _is_bad(cell: dict[str, Any]) -> bool:
    """Return whether the test has failed, and not the plugin's set-up for it."""
    return cell["outcome"] in _BAD and (cell["error"] or {}).get("cause") != SETUP


def _wrap(text: str, indent: int) -> list[str]:
    return wrap(shorten(text, 400), " " * indent, " " * (indent + 2))
