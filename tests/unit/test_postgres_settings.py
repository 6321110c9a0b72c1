"""Which settings a statement changes until the end of its transaction."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_asyncdb.backends.postgres_settings import local_settings


@pytest.mark.parametrize(
    ("statement", "parameters", "names"),
    [
        ("SET LOCAL work_mem = '5MB'", None, ["work_mem"]),
        ("  set  local app.tenant TO 'acme'", None, ["app.tenant"]),
        ('SET LOCAL "app.tenant" = 1', None, ["app.tenant"]),
        ("SET LOCAL TIME  ZONE 'UTC'", None, ["timezone"]),
        ("SET LOCAL SESSION AUTHORIZATION ada", None, ["session_authorization"]),
        ("SET LOCAL ROLE ada", None, ["role"]),
        ("SET LOCAL SCHEMA 'other'", None, ["search_path"]),
        ("SET work_mem = '5MB'", None, []),
        ("SET localtime = 1", None, []),
        ("SELECT set_config('app.tenant', 'a, b)', true)", None, ["app.tenant"]),
        ("SELECT set_config('app.tenant', 'acme', false)", None, []),
        ("SELECT set_config($1::VARCHAR, $2, $3)", ("a.b", "acme", True), ["a.b"]),
        ("SELECT set_config($1, $2, $3::BOOLEAN)", ("a.b", "acme", False), []),
        ("SELECT set_config(%(n)s::VARCHAR, %(v)s, true)", {"n": "a.b", "v": "x"}, ["a.b"]),
        (
            "SELECT set_config('a.b', coalesce('x', (SELECT 'y')), true), set_config('c', '', 't')",
            None,
            ["a.b", "c"],
        ),
        ("SELECT set_config(name, 'x', true) FROM names", None, []),
        ("SELECT set_config($9, 'x', true)", ("a",), []),
        ("SELECT 'set_config', true", None, []),
    ],
)
def test_the_settings_of_a_transaction_are_found(
    statement: str, parameters: Any, names: list[str]
) -> None:
    assert local_settings(statement, parameters) == names
