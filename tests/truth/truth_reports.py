"""What each scenario's test was told besides its answer: a breach fails it at its end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        test, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        text = str(report.longrepr).strip().partition("\n")[0]
        line = [test.removeprefix("test_"), parameters.rstrip("]").rpartition("-")[2], text]
        with Path(os.environ["TRUTH_TOLD"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
