"""Accounts that may do little: no right to create databases, and one database of their own.

The accounts are real ones, made by the observer on each server; so are the refusals.
"""

from __future__ import annotations

import contextlib
import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import closing

import pytest
from fix_observer import MySQLObserver, Observer, PostgresObserver
from fix_project import QUIET, Project
from fix_servers import WORDS, Servers, Target
from sqlalchemy.engine import URL

from pytest_asyncdb._run import liveness

PASSWORD = "little-right"


class Account:
    """An account with no right but to one database, which it may fill as it likes."""

    def __init__(self, target: Target, database: str) -> None:
        assert target.server is not None
        self.target = target
        self.database = database
        self.name = f"little_{os.getpid()}"
        self.server: URL = target.server.set(username=self.name, password=PASSWORD)

    def url(self, **query: str) -> str:
        given = self.server.set(database=self.database)
        return given.update_query_dict(query).render_as_string(hide_password=False)

    @property
    def observer(self) -> Observer:
        return self.target.observer

    @contextlib.contextmanager
    def made(self) -> Iterator[Account]:
        """The account and its database, for as long as the context is entered."""
        look = self.observer
        mysql = isinstance(look, MySQLObserver)
        account = f"'{self.name}'@'%'" if mysql else self.name
        identified = "IDENTIFIED BY" if mysql else "PASSWORD"
        look.query(f"CREATE USER {account} {identified} '{PASSWORD}'")
        try:
            if mysql:
                with look.throw_away(self.database):
                    look.query(f"GRANT ALL ON `{self.database}`.* TO {account}")
                    yield self
            else:
                with look.throw_away(self.database):
                    look.query(f"GRANT ALL ON SCHEMA public TO {account}", self.database)
                    yield self
        finally:
            look.query(f"DROP USER {account}")

    @contextlib.contextmanager
    def connection(self) -> Iterator[object]:
        family = MySQLObserver if isinstance(self.observer, MySQLObserver) else PostgresObserver
        with closing(family(self.server).connect(self.database)) as connection:
            yield connection


@pytest.fixture(params=[w for w in WORDS if w != "sqlite"], ids=lambda w: w.replace("+", "-"))
def target(request: pytest.FixtureRequest, servers: Servers) -> Target:
    return servers.target(request.param)


@pytest.fixture
def account(target: Target) -> Iterator[Account]:
    with Account(target, f"given_{os.getpid()}").made() as made:
        yield made


def run(project: Project, account: Account, *arguments: str, url: str | None = None):  # type: ignore[no-untyped-def]
    """An inner run as the account, in the one database."""
    given = url or account.url(asyncdb_database="only")
    return project.pytester.runpytest_inprocess(
        *QUIET, f"--asyncdb={account.target.word}", f"--asyncdb-url={given}", *arguments
    )


def errors_in(result: pytest.RunResult) -> str:
    """The text of the first error, as a whole."""
    lines = str(result.stdout).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("____")) + 1
    end = next(
        n for n in range(start, len(lines)) if re.match("____|====|---- Cap|---------", lines[n])
    )
    return "\n".join(lines[start:end]).strip()


ONE = "async def test_it(asyncdb_session): assert await names(asyncdb_session) == []"


def test_without_the_right_to_create_databases_the_cure_is_told(
    project: Project, account: Account
) -> None:
    project.tests(ONE)
    result = run(project, account, url=account.url())
    result.assert_outcomes(errors=1)
    label, said, grant = {
        "postgres": (
            "PostgreSQL",
            "permission denied to create database",
            f'ALTER ROLE "{account.name}" CREATEDB',
        ),
        "mysql": ("MySQL", "", rf"GRANT ALL ON `asyncdb\_%`.* TO '{account.name}'"),
        "mariadb": ("MariaDB", "", rf"GRANT ALL ON `asyncdb\_%`.* TO '{account.name}'"),
    }[account.target.backend]
    text = errors_in(result)
    text = re.sub(r"the driver said: \w+: (.*)", r"the driver said: \1", text)
    if not said:
        text = re.sub(r"the driver said: .*Access denied for user.*", "the driver said: ", text)
    text = re.sub(r"<class '.*?'>: ", "", text)
    assert (
        text
        == textwrap.dedent(
            f"""
        the account '{account.name}' may not create databases (--asyncdb-url)

        the driver said: {said}

        To fix this, do one of:
          - let an administrator of the {label} server run: {grant}
          - use only the database in the URL, one that is empty: add asyncdb_database=only to the URL's parameters
          - or leave --asyncdb-url out and let a server be started
        """
        ).strip()
    )


def test_the_told_right_suffices(project: Project, account: Account) -> None:
    """Exactly the statement of the error, as an administrator runs it."""
    project.tests(ONE)
    text = errors_in(run(project, account, url=account.url()))
    (grant,) = re.findall(r"server run: (.*)", text)
    account.observer.query(grant)
    result = run(project, account, "--asyncdb-isolation=reset", url=account.url())
    result.assert_outcomes(passed=1)
    result = run(project, account, "--asyncdb-isolation=copy", url=account.url())
    result.assert_outcomes(passed=1)


MANY = """
    @pytest.mark.parametrize("n", range(3))
    async def test_commits(n, asyncdb_session):
        assert await names(asyncdb_session) == []
        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()

    @pytest.mark.parametrize("n", range(2))
    @pytest.mark.asyncdb(isolation="reset")
    async def test_really_commits(n, asyncdb_session):
        assert await names(asyncdb_session) == []
        asyncdb_session.add(User(name="ada"))
        await asyncdb_session.commit()
        assert await asyncdb_session.scalar(select(User.id)) == 1

    @pytest.mark.parametrize("n", range(2))
    @pytest.mark.asyncdb(isolation="reset")
    async def test_changes_the_schema(n, asyncdb_session):
        await asyncdb_session.execute(text("CREATE TABLE more (id int)"))
        await asyncdb_session.execute(text("CREATE VIEW seen AS SELECT * FROM more"))
        await asyncdb_session.commit()

    @pytest.mark.asyncdb(schema=False)
    async def test_without_a_schema(asyncdb_connection):
        with pytest.raises(DBAPIError):
            await asyncdb_connection.execute(text("SELECT * FROM users"))

    @pytest.mark.parametrize("n", range(2))
    async def test_again(n, asyncdb_session):
        assert await names(asyncdb_session) == []
        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()
"""


def test_one_database_serves_a_whole_run(project: Project, account: Account) -> None:
    """Strategies and schemas take turns in it; at the end it is as empty as it was."""
    project.tests(MANY)
    result = run(project, account)
    result.assert_outcomes(passed=10)
    assert account.observer.dump(account.database) == {}


def test_seeds_are_there_for_each_test(project: Project, account: Account) -> None:
    """Also after a test that has changed their rows, which are nowhere else."""
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import User

        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                session.add(User(name="seeded"))
            return seed
        """,
    )
    project.tests(
        """
        @pytest.mark.parametrize("strategy", [
            pytest.param(name, marks=pytest.mark.asyncdb(isolation=name))
            for name in ("rollback", "reset", "reset", "rollback", "reset")
        ])
        async def test_it(strategy, asyncdb_session):
            assert await names(asyncdb_session) == ["seeded"]
            user = await asyncdb_session.scalar(select(User))
            assert user.id == 1
            user.name = "changed"
            await add(asyncdb_session, "ada")
            await asyncdb_session.commit()
        """
    )
    run(project, account).assert_outcomes(passed=5)
    assert account.observer.dump(account.database) == {}


@pytest.mark.parametrize(
    ("arguments", "what"),
    [(["--asyncdb-isolation=copy"], "isolation='copy'"), (["-n", "2"], "a run with 2 workers")],
    ids=["copy", "xdist"],
)
def test_what_needs_several_databases_is_refused(
    project: Project, account: Account, arguments: list[str], what: str
) -> None:
    project.tests(ONE)
    url = account.url(asyncdb_database="only")
    result = project.pytester.runpytest_subprocess(
        *QUIET, f"--asyncdb={account.target.word}", f"--asyncdb-url={url}", *arguments
    )
    result.assert_outcomes(errors=1)
    text = re.sub(r"^\[gw\d\] .*\n", "", errors_in(result))
    assert (
        text
        == textwrap.dedent(
            f"""
        {what} needs several databases (--asyncdb-url)

        The URL says asyncdb_database=only.

        To fix this, do one of:
          - leave it out, or run without xdist's workers
          - or use an account that may create databases, without asyncdb_database=only
        """
        ).strip()
    )
    assert account.observer.dump(account.database) == {}


def test_one_worker_of_xdist_may_use_it(project: Project, account: Account) -> None:
    project.tests(ONE)
    url = account.url(asyncdb_database="only")
    result = project.pytester.runpytest_subprocess(
        *QUIET, f"--asyncdb={account.target.word}", f"--asyncdb-url={url}", "-n", "1"
    )
    result.assert_outcomes(passed=1)
    assert account.observer.dump(account.database) == {}


def test_a_database_with_something_in_it_is_refused(project: Project, account: Account) -> None:
    """Nothing of it is touched."""
    project.tests(ONE)
    for number in range(7):
        account.observer.query(f"CREATE TABLE theirs{number} (id int)", account.database)
    account.observer.query("INSERT INTO theirs0 VALUES (42)", account.database)
    result = run(project, account)
    result.assert_outcomes(errors=1)
    where = "public." if account.target.backend == "postgres" else ""
    shown = "\n".join(f"          - table {where}theirs{n}" for n in range(5))
    assert (
        errors_in(result)
        == textwrap.dedent(
            f"""
        the database '{account.database}' is not empty (--asyncdb-url)

        It holds, and nothing of it was touched:
{shown}
          - and 2 more

        To fix this, do one of:
          - drop what is in it, or give another one in the URL
          - or give it a name that begins with asyncdb_: what such a database holds is ours to drop
        """
        ).strip()
    )
    found = account.observer.dump(account.database)
    assert len(found) == 7
    assert found["theirs0"] == [(42,)]


@pytest.mark.parametrize("word", ["postgres+asyncpg", "mysql+asyncmy", "mariadb+aiomysql"])
def test_a_database_of_our_name_is_emptied(project: Project, servers: Servers, word: str) -> None:
    """What a run that was killed has left there does not stop the next one."""
    project.tests(ONE)
    with Account(servers.target(word), f"asyncdb_given_{os.getpid()}").made() as account:
        with account.connection() as connection:
            cursor = connection.cursor()  # type: ignore[attr-defined]
            cursor.execute("CREATE TABLE users (nonsense int)")
        run(project, account).assert_outcomes(passed=1)
        assert account.observer.dump(account.database) == {}


def test_two_runs_do_not_share_it(project: Project, account: Account) -> None:
    """The second is refused, for as long as the first lives."""
    project.tests(
        """
        import subprocess, sys

        async def test_outer(asyncdb_session, request):
            await add(asyncdb_session, "ada")
            arguments = [word for word in request.config.invocation_params.args]
            inner = subprocess.run(
                [sys.executable, "-m", "pytest", *arguments, "-k", "inner"],
                capture_output=True, text=True, timeout=60,
            )
            print(inner.stdout)
            assert inner.returncode == 1
            assert await names(asyncdb_session) == ["ada"]

        async def test_inner(asyncdb_session):
            assert await names(asyncdb_session) == []
        """
    )
    result = run(project, account, "-rP")
    result.assert_outcomes(passed=2)
    text = str(result.stdout)
    assert (
        textwrap.dedent(
            f"""
            another run uses the database '{account.database}' (--asyncdb-url)

            The URL says asyncdb_database=only, so the two cannot be kept apart.

            To fix this: wait for the other run to end, or give each run a database of its own
            """
        ).strip()
        in text
    )


def test_a_wait_for_a_lock_is_seen(
    project: Project, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the account may not ask the server, the drivers know the test's own connections."""
    monkeypatch.setattr(liveness, "_STUCK", 1.0)
    postgres = account.target.backend == "postgres"
    timeout = "" if postgres else ", lock_timeout=2"
    project.tests(
        f"""
        async def test_it(asyncdb):
            async with asyncdb.connections(2{timeout}) as (one, other):
                await one.execute(text("{"SET lock_timeout = 0" if postgres else "SELECT 1"}"))
                await other.execute(text("{"SET lock_timeout = 0" if postgres else "SELECT 1"}"))
                await add(one, "ada")
                await add(other, "ada")
        """
    )
    result = run(project, account, "--asyncdb-isolation=reset")
    result.assert_outcomes(failed=1)
    seen = "It is held by: session" if postgres else "In a transaction then: session"
    assert seen in str(result.stdout)
    assert ("- asyncdb: locks -" in str(result.stdout)) is not postgres
