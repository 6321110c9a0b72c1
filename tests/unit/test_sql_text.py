"""What the text of a statement says about the outer transaction."""

from __future__ import annotations

import pytest

from pytest_asyncdb._record.sql_text import (
    ends_transaction,
    may_set,
    only_queries,
    only_reads,
    savepoint,
)


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "  commit work;",
        "/* done */ COMMIT",
        "-- done\nCOMMIT",
        "ROLLBACK",
        "rollback work",
        "BEGIN IMMEDIATE",
        "START TRANSACTION",
        "END",
        "ABORT",
        "PREPARE TRANSACTION 'x'",
        "SET autocommit = 1",
        "SET @@autocommit = 1",
        "SET SESSION autocommit=0",
        "set @@session.autocommit := 1",
        "SET sql_mode = DEFAULT, autocommit = 1",
    ],
)
def test_what_ends_a_transaction_is_seen_on_every_backend(statement: str) -> None:
    assert ends_transaction(statement, implicit_commits=False)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'COMMIT'",
        "INSERT INTO t VALUES ('a; commit; b')",
        "CREATE TRIGGER t AFTER INSERT ON t BEGIN DELETE FROM s; END",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC; SELECT 1; END",
        "DO $$ BEGIN PERFORM 1; END; $$",
        "BEGIN NOT ATOMIC SELECT 1; END",
        "ROLLBACK TO SAVEPOINT s",
        "ROLLBACK TO s",
        "ROLLBACK WORK TO SAVEPOINT s",
        "RELEASE SAVEPOINT s",
        "SAVEPOINT s",
        "UPDATE commits SET ending = 1",
        "CREATE TABLE t (id int)",
        "SET TIME ZONE 'UTC'",
        "SET @autocommit = 1",
        "SET @was = 'autocommit = 1'",
    ],
)
def test_what_leaves_a_transaction_alone_is_let_through(statement: str) -> None:
    assert ends_transaction(statement, implicit_commits=False) is None


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE t (id int)", "alter table t add x int", "TRUNCATE t", "LOCK TABLES t WRITE"],
)
def test_ddl_ends_it_where_the_server_commits_on_it(statement: str) -> None:
    assert ends_transaction(statement, implicit_commits=True) == "it commits by itself"
    assert ends_transaction(statement, implicit_commits=False) is None


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMPORARY TABLE t (id int)",
        "CREATE OR REPLACE TEMPORARY TABLE t (id int)",
        "DROP TEMPORARY TABLE t",
        "INSERT INTO t",
    ],
)
def test_temporary_tables_commit_nothing(statement: str) -> None:
    assert ends_transaction(statement, implicit_commits=True) is None


def test_a_statement_reads_only_where_that_is_sure() -> None:
    assert only_reads("SELECT 1")
    assert only_reads("/* x */ show tables")
    assert not only_reads("WITH x AS (INSERT INTO t VALUES (1) RETURNING id) SELECT * FROM x")
    assert not only_reads("CALL fill()")


def test_settings_have_a_word() -> None:
    assert may_set("/* x */ Set LOCAL a = 1")
    assert may_set("SELECT set_config('a', 'b', true)")
    assert not may_set("SELECT 1")


def test_a_query_begins_no_change() -> None:
    assert only_queries("WITH x AS (SELECT 1) SELECT * FROM x")
    assert only_reads("WITH x AS (SELECT 1) SELECT * FROM x")
    assert only_reads("SAVEPOINT a")
    assert not only_queries("SAVEPOINT a")
    assert not only_queries("WITH x AS (DELETE FROM t RETURNING id) SELECT * FROM x")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("SAVEPOINT a", ("savepoint", "a")),
        ("release savepoint sa_savepoint_1;", ("release", "sa_savepoint_1")),
        ("RELEASE a", ("release", "a")),
        ("ROLLBACK WORK TO SAVEPOINT a", ("rollback", "a")),
        ("ROLLBACK", None),
        ("SELECT 'to'", None),
    ],
)
def test_savepoints_are_recognised(statement: str, found: tuple[str, str] | None) -> None:
    assert savepoint(statement) == found
