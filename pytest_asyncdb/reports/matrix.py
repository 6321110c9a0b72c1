"""Where several backends ran: every test's outcomes, and which of them differ, and why."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_asyncdb.reports.causes import CAUSES, cause

#: So many tests of one cause are shown.
_SHOWN = 10
_WIDTH = 80
#: By what pytest calls the outcome: the ones that tests are told apart by.
_BAD = ("failed", "error")


class Matrix:
    """Collects in the controller, writes at the end. A plugin of pytest.

    Args:
        backends: Those of the run, as they were written.
        path: Where to write the report, or None.
    """

    def __init__(self, backends: Sequence[str], path: Path | None) -> None:
        self.backends = list(backends)
        self.path = path
        #: Test → backend → outcome.
        self.tests: dict[str, dict[str, dict[str, Any]]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        about = getattr(report, "asyncdb", None)
        if about is None:
            return
        found = self.tests.setdefault(about["test"], {})
        backend = about["backend"]
        if report.when == "setup" or backend not in found:  # the first, or run again
            found[backend] = {"outcome": "passed", "seconds": {}, "error": None}
        cell = found[backend]
        cell["seconds"][report.when] = round(report.duration, 6)
        if report.failed and cell["outcome"] != "failed":
            cell["outcome"] = "failed" if report.when == "call" else "error"
        elif hasattr(report, "wasxfail") and report.when == "call":
            cell["outcome"] = "xfailed" if report.skipped else "xpassed"
        elif report.skipped:
            cell["outcome"] = "skipped"
        if report.failed and cell["error"] is None and "error" in about:
            cell["error"] = {
                "when": report.when,
                "cause": cause(about["error"], backend.partition("@")[0].partition("+")[0]),
                **about["error"],
            }

    def pytest_sessionfinish(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.suffix == ".html":
            from pytest_asyncdb.reports.html import page

            text = page(self.content())
        else:
            text = json.dumps(self.content(), indent=1, ensure_ascii=False) + "\n"
        self.path.write_text(text, encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for line in self.lines():
            terminalreporter.write_line(line)

    @property
    def left_out(self) -> list[str]:
        """Backends on which no test was set up: they say nothing about a test."""
        reached = {
            backend
            for found in self.tests.values()
            for backend, cell in found.items()
            if "call" in cell["seconds"]
        }
        ran = {backend for found in self.tests.values() for backend in found}
        return [backend for backend in self.backends if backend in ran - reached]

    def differences(self) -> dict[str, list[str]]:
        """By cause the tests that passed on one backend and failed on another."""
        left_out = set(self.left_out)
        found: dict[str, list[str]] = {name: [] for name in CAUSES}
        for test, cells in self.tests.items():
            seen = [cell for backend, cell in cells.items() if backend not in left_out]
            bad = [cell for cell in seen if cell["outcome"] in _BAD]
            if bad and any(cell["outcome"] == "passed" for cell in seen):
                causes = [(cell["error"] or {"cause": "other"})["cause"] for cell in bad]
                found[min(causes, key=lambda name: (name == "other", causes.index(name)))] += [test]
        return {name: tests for name, tests in found.items() if tests}

    def content(self) -> dict[str, Any]:
        """The report, in the form of docs/howto/matrix.md."""
        differences = self.differences()
        causes = {test: name for name, tests in differences.items() for test in tests}
        return {
            "asyncdb_report": 1,
            "backends": self.backends,
            "left_out": self.left_out,
            "differences": differences,
            "tests": [
                {"test": test, "cause": causes.get(test), "on": cells}
                for test, cells in sorted(self.tests.items())
            ],
        }

    def lines(self) -> list[str]:
        """The section of the terminal's summary; none where no test differs."""
        differences = self.differences()
        number = sum(map(len, differences.values()))
        if not number:
            return []
        verb = "test differs" if number == 1 else "tests differ"
        lines = [f"asyncdb: {number} {verb} between backends"]
        for name, tests in differences.items():
            lines.append(f"  {name} ({len(tests)})")
            for test in tests[:_SHOWN]:
                lines += self._test(test)
            if len(tests) > _SHOWN:
                lines.append(f"    and {len(tests) - _SHOWN} more: --asyncdb-report=x.html")
        if self.left_out:
            lines += _wrap(f"not compared, no test was set up: {', '.join(self.left_out)}", 2)
        return lines

    def _test(self, test: str) -> list[str]:
        cells = self.tests[test]
        bad = [backend for backend, cell in cells.items() if cell["outcome"] in _BAD]
        good = [backend for backend, cell in cells.items() if cell["outcome"] == "passed"]
        lines = [*_wrap(test, 4), *_wrap(f"passed on {', '.join(good)}", 6)]
        for backend in bad:
            error = cells[backend]["error"]
            if error is None:
                lines += _wrap(f"failed on {backend}", 6)
            else:
                lines += _wrap(f"failed on {backend}: {said(error)}", 6)
                if error["statement"]:
                    lines += _wrap(error["statement"], 8)
        return lines


def said(error: dict[str, Any]) -> str:
    """The values that differ, or what the database said."""
    if values := error["values"]:
        return f"{values['left']} {values['operator']} {values['right']}"
    if error["type"] == "AssertionError":
        return str(error["message"])
    return f"{error['type'].rpartition('.')[2]}: {error['message']}"


def _wrap(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        textwrap.shorten(text, 400, placeholder=" …") or text,
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_on_hyphens=False,
    )
