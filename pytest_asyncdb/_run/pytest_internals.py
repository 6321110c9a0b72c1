"""All private names of pytest that the plugin uses.

tests/unit/test_private_names.py fails if one is gone.
"""

from __future__ import annotations

from typing import Any

import pytest


def configure(config: pytest.Config) -> None:
    """Call every ``pytest_configure``, as ``pytest --help`` does instead of a run.

    Without ``_do_configure`` the doctor does not see what plugins and conftests configure.
    """
    config._do_configure()


def running_fixture() -> str | None:
    """Return the user's fixture that is being set up, such as ``'tables' (scope session)``, or
    None.

    It is read from the frames of the hook ``pytest_fixture_setup``; pytest documents its arguments.
    Recording the fixtures in the hook instead would cost something for every fixture.
    """
    from pytest_asyncdb._record.call_sites import caller_frames

    for frame in caller_frames():
        is_hook = frame.f_code.co_name == "pytest_fixture_setup"
        found = frame.f_locals.get("fixturedef") if is_hook else None
        if found is not None and not found.func.__module__.startswith("pytest_asyncdb"):
            return f"{found.argname!r} (scope {found.scope})"
    return None


def has_function_scope(item: pytest.Function, fixture: str) -> bool:
    """Return whether *fixture* is set up for each test. True if that is not known.

    Without ``_fixtureinfo`` the test's database cannot be opened after the fixtures of wider scopes
    and before the user's own: an application that a fixture starts would not be redirected.
    """
    definitions = item._fixtureinfo.name2fixturedefs.get(fixture)
    return definitions is None or definitions[-1].scope == "function"


def scopes_of(item: Any) -> dict[str, Any]:
    """The scopes of a test's parameters, by which pytest groups tests.

    Without ``_arg2scope`` the tests of a run on one backend are not in the order of their files:
    those that use a database run before all others.
    """
    return item.callspec._arg2scope  # type: ignore[no-any-return]
