"""The limits of docs/isolation.md. A scenario names those that it shows; those that no scenario can
show name the test that does. tests/truth/test_limits.py compares this list with the page."""

from __future__ import annotations

import dataclasses

from stage import SERVERS, STRATEGIES, Limit

OVERLAP = Limit("Transactions that overlap")
LOCKS = Limit("Locks", words=SERVERS)
UNCOMMITTED = Limit("Uncommitted work of an outer session")
AROUND = Limit("A rollback around a commit")
LEVELS = Limit("Isolation levels")
DDL = Limit("DDL on MySQL and MariaDB", words=("mysql", "mariadb"))
TEXT = Limit("Transaction statements as text")
IDS = Limit("Ids go on counting", words=SERVERS)
TIME = Limit("Time", words=("postgres",))
SETTINGS = Limit("Settings made inside a function", words=("postgres",))
DEFERRED = Limit("Deferred constraints", words=("postgres",))
READ_ONLY = Limit("A read-only transaction", words=("postgres",))
SAVEPOINTS = Limit("Savepoints and DDL on SQLite", STRATEGIES, ("sqlite",))
AUTOCOMMIT = Limit("AUTOCOMMIT", words=("postgres",))
SESSION = Limit("Session state", words=("postgres",))
ON_COMMIT = Limit("Cursors of SQL and `ON COMMIT DELETE ROWS`", words=("postgres",))
INTERRUPTED = Limit("A cancelled statement that writes", words=("sqlite",))
OUTSIDE = Limit("Statements that no transaction allows", words=("sqlite",))

#: The limits that no scenario shows, and the test that does.
SHOWN_BY = {
    "Tables without transactions": (
        "contract/test_outside_transactions.py::test_rows_of_tables_without_transactions_stay"
    ),
    "Statements that no transaction allows": (
        "contract/test_outside_transactions.py"
        "::test_a_statement_that_no_transaction_allows_fails_with_the_remedy"
    ),
    "Listeners of `connect`": (
        "contract/test_connect_listeners.py::test_each_engine_has_its_own_listeners"
    ),
    "Two-phase transactions": "contract/test_guard.py::test_two_phase_transactions_are_refused",
    "The driver's own connection": (
        "contract/test_guard.py::test_the_drivers_own_connection_cannot_end_the_test"
    ),
    "Other processes": (
        "contract/test_strategies.py::test_another_process_works_in_the_tests_database"
    ),
    "A deadlock on MySQL and MariaDB": (
        "contract/test_lost.py::test_a_deadlock_that_undid_a_commit_is_reported"
    ),
    "A lost connection": (
        "contract/test_lost.py::test_nothing_more_is_sent_after_a_lost_connection"
    ),
    "One writer on SQLite": "contract/test_strategies.py::test_on_sqlite_others_wait_for_a_writer",
}

#: The same, for limits of all strategies.
SHOWN_BY_ALL = {
    "Session state that only a new connection forgets": (
        "contract/test_session_state.py::test_only_a_new_connection_forgets"
    ),
}


def on(limit: Limit, *words: str) -> Limit:
    """*limit*, which shows on these backends or drivers only."""
    return dataclasses.replace(limit, words=words)
