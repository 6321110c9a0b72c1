"""Shows a failure once on the terminal, if one test has it on several backends, or tests share a
set-up.

The reports are changed when pytest is about to print them. JUnit's file has got the complete ones
before.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import pytest

from pytest_asyncdb._record.text import shorten, wrap
from pytest_asyncdb._run.collection import BACKEND
from pytest_asyncdb.reports.outcome import summary

#: Number of characters of an error that is named again.
_LONG = 150


class Repeated:
    """Replaces ``report.longrepr``."""

    def __init__(self, longrepr: Any, lines: list[str]) -> None:
        self.reprcrash = getattr(longrepr, "reprcrash", None)  # pytest's lines for each failure
        if self.reprcrash is not None:  # on CI and with -vv pytest prints all of the message
            self.reprcrash.message = self.reprcrash.message.partition("\n")[0]
        self.lines = lines

    def toterminal(self, writer: Any) -> None:
        for line in self.lines:
            writer.line(line)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def show_once(reports: Iterable[pytest.TestReport], brief: bool) -> None:
    """Name a failure that was shown before instead of showing it again.

    Args:
        reports: The reports of failed tests, in the order in which pytest prints them.
        brief: True if pytest prints one line for each failure.
    """
    shown: dict[Hashable, pytest.TestReport] = {}
    #: The key is the ``id()`` of the first report, because a report has no hash.
    also_on: dict[int, tuple[pytest.TestReport, list[str]]] = {}
    for report in reports:
        backend = dict(getattr(report, "user_properties", ())).get(BACKEND)  # a collector has none
        if backend is None:
            continue
        if brief:  # the sections are for --asyncdb-report
            report.sections = [one for one in report.sections if not one[0].startswith("asyncdb: ")]
        outcome = getattr(report, "asyncdb", {})
        of_test, of_setup = _of_test(report, outcome), (report.when, str(report.longrepr))
        first = shown.get(of_setup) or shown.get(of_test)
        if first is None:
            shown[of_setup] = report
            if of_test is not None:
                shown[of_test] = report
            if brief and outcome.get("error", {}).get("type", "").startswith("sqlalchemy."):
                # pytest's line has the message. The statement and a link would follow.
                report.longrepr = Repeated(report.longrepr, [])  # type: ignore[assignment]
            continue
        if "error" in outcome and outcome["test"] == getattr(first, "asyncdb", outcome)["test"]:
            also_on.setdefault(id(first), (first, []))[1].append(str(backend))
            preposition, where = "on", str(dict(first.user_properties)[BACKEND])
            error = summary(outcome["error"])
        else:
            preposition, where = "in", first.nodeid
            crash = getattr(first.longrepr, "reprcrash", None)
            error = crash.message if crash else str(first.longrepr).strip()
            error = error.removeprefix("Failed: ").partition("\n")[0]
        text = f"the same as {preposition} {where}: {shorten(error, _LONG)}"
        lines = [] if brief else wrap(text)
        report.longrepr = Repeated(report.longrepr, lines)  # type: ignore[assignment]
        report.sections = [one for one in report.sections if not one[0].startswith("asyncdb")]
    for first, backends in () if brief else also_on.values():
        text = f"also on {', '.join(backends)}: the same error"
        title, above = first.sections.pop() if first.sections else ("asyncdb", "")
        first.sections.append((title, f"{above}\n{text}".lstrip("\n")))


def _of_test(report: pytest.TestReport, outcome: dict[str, Any]) -> Hashable:
    """Return what the failures of one test have in common if it fails in the same way; None:
    unknown.

    Errors of servers are the same if their kind is, because each DBMS has its own words.
    """
    error, crash = outcome.get("error"), getattr(report.longrepr, "reprcrash", None)
    if error is None or crash is None:
        return None
    what = error["cause"] if error["code"] else error["message"]
    return outcome["test"], report.when, crash.path, crash.lineno, error["type"], what
