"""What is kept of a test's statements, whatever their number."""

from __future__ import annotations

import pytest

from pytest_asyncdb._record import statement_log
from pytest_asyncdb._record.statement_log import Statement, StatementLog
from pytest_asyncdb.reports import item_report


def filled(*texts: str, checkout: int | None = 1) -> StatementLog:
    """COMMIT and ROLLBACK are ends of transactions."""
    log = StatementLog()
    for text in texts:
        if text in ("COMMIT", "ROLLBACK"):
            log.ended(text, checkout or 0)
        else:
            log.add(Statement(text, None, 0.5, checkout=checkout), None)
    return log


def depths(log: StatementLog) -> list[tuple[int, str]]:
    return [
        (step.depth, step.entry if isinstance(step.entry, str) else step.entry.sql)
        for step in log.steps()
    ]


@pytest.mark.parametrize(
    ("ended", "depth"),
    [
        ("RELEASE SAVEPOINT a", 1),
        ("release a", 1),
        ("ROLLBACK TO SAVEPOINT a", 2),  # it can be rolled back to again
        ("rollback work to a", 2),
        ("RELEASE b", 2),
        ("RELEASE nothing", 3),
    ],
)
def test_savepoints_by_hand_are_followed(ended: str, depth: int) -> None:
    log = filled("SAVEPOINT a", "savepoint b;", "SELECT 1", ended, "SELECT 2")
    found = depths(log)
    assert found[:4] == [(0, "BEGIN"), (1, "SAVEPOINT a"), (2, "savepoint b;"), (3, "SELECT 1")]
    assert found[-1] == (depth, "SELECT 2")


def test_what_is_in_no_transaction_has_no_depth() -> None:
    assert depths(filled("SELECT 1", "COMMIT", checkout=None)) == [(0, "SELECT 1")]


def test_an_end_in_which_nothing_ran_is_no_step() -> None:
    found = depths(filled("ROLLBACK", "SELECT 1", "COMMIT", "ROLLBACK", "COMMIT"))
    assert found == [(0, "BEGIN"), (1, "SELECT 1"), (0, "COMMIT")]


def test_the_number_of_statements_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number and their total time stay exact."""
    monkeypatch.setattr(statement_log, "_MOST", 10)
    log = filled(*(f"SELECT {number}" for number in range(100)), "SELECT 0", "SELECT 0")
    assert log.number == 102
    assert log.seconds == 51.0
    assert len(log.statements) == 10


def test_a_range_of_statements_is_what_is_kept_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement_log, "_MOST", 3)
    log = filled(*(f"SELECT {number}" for number in range(1, 11)))
    texts = [[s.sql for s in log.between(*numbers)] for numbers in ((0, 10), (8, 9), (2, 5))]
    assert texts == [["SELECT 8", "SELECT 9", "SELECT 10"], ["SELECT 9"], []]


@pytest.mark.parametrize("everything", [False, True])
def test_a_text_that_is_cut_shows_no_secret(everything: bool) -> None:
    """The word that names it may follow the cut, and so may the end of the literal."""
    secret = "hunter2" * 100
    log = filled(f"SELECT '{secret}' AS password")
    lines, _ = item_report.statements(log, "sqlite, rollback", everything)
    text = "\n".join(lines)
    assert "hunter2" not in text
    assert "SELECT '***'" in text
