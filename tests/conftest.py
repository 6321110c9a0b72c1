"""Plugins of the test suite; see the docstring of each ``fix_*.py``."""

from __future__ import annotations

pytest_plugins = (
    *("pytester", "fix_suite", "fix_servers", "fix_project", "fix_chaos", "fix_foreign"),
    "fix_pooler",
)

#: Whole projects with an ini file of their own; the tests beside them run them.
collect_ignore_glob = ["examples/*/*", "extension/others"]
