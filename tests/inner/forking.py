"""A plugin for inner runs: runs every test whose name has "forked" in it in a child process.

As pytest-forked does, which fails with pytest 9.2. The child ends without the end of a run.
"""

from __future__ import annotations

import json
import os
import warnings

import pytest
from _pytest.runner import runtestprotocol


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    if "forked" not in item.name:
        return None
    hook, config = item.ihook, item.config
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reading, writing = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # Python 3.12: there are other threads
        child = os.fork()
    if not child:
        reports = runtestprotocol(item, log=False)
        data = [config.hook.pytest_report_to_serializable(config=config, report=r) for r in reports]
        with os.fdopen(writing, "w") as file:
            json.dump(data, file, default=str)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        for data in json.load(file):
            report = config.hook.pytest_report_from_serializable(config=config, data=data)
            hook.pytest_runtest_logreport(report=report)
    os.waitpid(child, 0)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
