"""The private names of pytest that the plugin needs, all of them.

tests/unit/test_private_names.py fails if one is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def configure(config: pytest.Config) -> None:
    """Call every ``pytest_configure``, as ``pytest --help`` does in place of a run.

    Without ``_do_configure`` the doctor does not see what plugins and conftests configure.
    """
    config._do_configure()


def has_function_scope(item: pytest.Function, fixture: str) -> bool:
    """Is *fixture* set up for each test? True if it is not known.

    Without ``_fixtureinfo`` the test's database cannot be opened between the fixtures of wider
    scopes and the user's own: an application that a fixture starts would not be redirected.
    """
    definitions = item._fixtureinfo.name2fixturedefs.get(fixture)
    return definitions is None or definitions[-1].scope == "function"
