"""A plugin for inner runs in another process: says the run id, which is in the names of all
databases that the run makes. ``fix_observer.left_behind`` reads it.
"""

from __future__ import annotations

import pytest

from pytest_asyncdb._run.stash import RUN


def pytest_report_header(config: pytest.Config) -> str:
    return f"run id: {config.stash[RUN].id}"
