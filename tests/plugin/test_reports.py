"""How much a run with failures prints: each failure once, and in few lines."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from fix_project import WITHOUT, Project
from fix_servers import Servers

MODELS = """
from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    email: Mapped[str] = mapped_column(String(100), unique=True)
    created: Mapped[datetime | None]
    orders: Mapped[list["Order"]] = relationship(back_populates="user")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    amount: Mapped[int]
    note: Mapped[str | None] = mapped_column(String(20))
    user: Mapped[User] = relationship(back_populates="orders")
"""
SERVICES = """
from datetime import datetime

from sqlalchemy import func, select, text

from app.models import Order, User


async def register(session, name, email):
    user = User(name=name, email=email, created=datetime(2026, 1, 2, 3, 4, 5))
    session.add(user)
    await session.flush()
    return user


async def order(session, user_id, amount, note=None):
    found = Order(user_id=user_id, amount=amount, note=note)
    session.add(found)
    await session.commit()
    return found


async def total(session, user_id):
    return await session.scalar(
        select(func.coalesce(func.sum(Order.amount), 0)).where(Order.user_id == user_id)
    )


async def search(session, word):
    rows = await session.scalars(select(User.name).where(User.name.like(f"%{word}%")))
    return sorted(rows)


async def report(session):
    return (await session.execute(text("SELECT * FROM monthly_report"))).all()
"""
TESTS = """
import pytest
from sqlalchemy import text

from app import services
from app.models import Order, User


@pytest.mark.parametrize("n", range(PASSING))
async def test_register(asyncdb_session, n):
    user = await services.register(asyncdb_session, f"user {n}", f"{n}@example.org")
    await services.order(asyncdb_session, user.id, n)
    assert await services.total(asyncdb_session, user.id) == n


async def test_total(asyncdb_session):
    user = await services.register(asyncdb_session, "Ada", "ada@example.org")
    for amount in range(30):
        await services.order(asyncdb_session, user.id, amount)
    assert await services.total(asyncdb_session, user.id) == 30


async def test_two_users_with_one_address(asyncdb_session):
    await services.register(asyncdb_session, "Ada", "ada@example.org")
    await services.register(asyncdb_session, "Eve", "ada@example.org")


async def test_order_of_no_user(asyncdb_session):
    await services.order(asyncdb_session, 4711, 1)


async def test_report(asyncdb_session):
    assert await services.report(asyncdb_session) == []


async def test_search(asyncdb_session):
    await services.register(asyncdb_session, "Ada", "ada@example.org")
    assert await services.search(asyncdb_session, "Ada") == ["Eve"]


async def test_lazy(asyncdb_session):
    user = await services.register(asyncdb_session, "Ada", "ada@example.org")
    await services.order(asyncdb_session, user.id, 1)
    asyncdb_session.expire_all()
    assert user.orders == []


async def test_long_note(asyncdb_session):
    user = await services.register(asyncdb_session, "Ada", "ada@example.org")
    found = await services.order(asyncdb_session, user.id, 1, "more than twenty characters")
    assert found.note is None


async def test_missing_amount(asyncdb_session):
    asyncdb_session.add(Order(user_id=1))
    await asyncdb_session.flush()


async def test_missing_column(asyncdb_session):
    await asyncdb_session.execute(text("SELECT nothing FROM users"))


async def test_update(asyncdb_session):
    user = await services.register(asyncdb_session, "Ada", "ada@example.org")
    await asyncdb_session.commit()
    user.name = "Eve"
    await asyncdb_session.flush()
    assert user.name == "Ada"
"""
BACKENDS = ("sqlite", "postgres+asyncpg", "mysql+asyncmy", "mariadb+aiomysql")


@pytest.fixture
def shop(project: Project) -> Project:
    project.write("app/models.py", MODELS)
    project.write("app/services.py", SERVICES)
    return project


def failures(lines: list[str]) -> dict[str, list[str]]:
    """The lines of each failure, by the test's name."""
    found: dict[str, list[str]] = {}
    for line in lines[lines.index(next(one for one in lines if "= FAILURES =" in one)) + 1 :]:
        if title := re.fullmatch(r"_+ (\S+) _+", line):
            found[title[1]] = []
        elif line.startswith("==="):
            break
        else:
            found[[*found][-1]].append(line)
    return found


def test_a_failure_that_is_the_same_on_two_backends_is_shown_once(
    shop: Project, servers: Servers
) -> None:
    """With a line for the other one; a failure that differs is shown on each. JUnit's file has all."""
    shop.write("test_it.py", TESTS.replace("PASSING", "1"))
    words = servers.arguments("sqlite", "postgres+asyncpg")
    select = ("-k", "two_users or order_of or long_note or search")
    result = shop.pytester.runpytest_inprocess(*WITHOUT, *words, *select, "--junitxml=x.xml")
    found = failures(result.outlines)
    assert len(found) == 8
    first = "test_two_users_with_one_address"
    assert found[f"{first}[sqlite]"][-1] == "also on postgres+asyncpg: the same error"
    assert found[f"{first}[postgres-asyncpg]"] == [
        "the same as on sqlite: IntegrityError:",
        "(sqlalchemy.dialects.postgresql.asyncpg.UniqueViolationError) duplicate key",
        'value violates unique constraint "users_email_key"',
    ]
    assert found["test_search[postgres-asyncpg]"] == [
        "the same as on sqlite: assert ['Ada'] == ['Eve']"
    ]
    for word, error in (("sqlite", "AssertionError"), ("postgres-asyncpg", "DBAPIError")):
        lines = found[f"test_long_note[{word}]"]  # SQLite takes any length
        assert f"{error}" in "\n".join(lines)
        assert "- asyncdb: SQL -" in "\n".join(lines)
    cases = ElementTree.parse(shop.path / "x.xml").iter("testcase")
    texts = [failure.text or "" for case in cases for failure in case.iter("failure")]
    assert len(texts) == 8
    assert all("asyncdb_session" in text for text in texts)


def test_a_setup_error_of_several_tests_is_shown_once(project: Project, servers: Servers) -> None:
    project.tests(
        """
        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                raise LookupError("no rows today")
            return seed

        @pytest.mark.parametrize("n", range(3))
        async def test_it(asyncdb_session, n):
            pass
        """
    )
    again = "the same as in test_it.py::test_it[sqlite-0]: asyncdb_seed failed on SQLite"
    for words in (["--asyncdb=sqlite"], servers.arguments("sqlite", "postgres+asyncpg")):
        result = project.pytester.runpytest_inprocess(*WITHOUT, *words)
        result.assert_outcomes(errors=3 * len(words[0].split(",")))
        assert result.outlines.count("LookupError: no rows today") == len(words[0].split(","))
        assert result.outlines.count(again) == 2


def test_a_repeated_failure_names_the_error(project: Project) -> None:
    """Not the first line of the text above it, which is one of the fixture's source."""
    project.tests(
        """
        @pytest.fixture
        def broken():
            return {}["missing"]

        @pytest.mark.parametrize("n", range(3))
        async def test_it(broken, asyncdb_session, n):
            pass
        """
    )
    for style in ("long", "native"):
        result = project.pytester.runpytest_inprocess(*WITHOUT, f"--tb={style}")
        result.assert_outcomes(errors=3)
        again = "the same as in test_it.py::test_it[sqlite-0]: KeyError: 'missing'"
        assert result.outlines.count(again) == 2


def test_the_short_summary_has_its_text_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest prints whole messages there where it sees a CI, and with -vv."""
    monkeypatch.setenv("CI", "1")
    project.ini(asyncdb_metadata="app.nothing:Base")
    project.tests('@pytest.mark.parametrize("n", range(40))\ndef test_it(asyncdb_session, n): pass')
    result = project.pytester.runpytest_inprocess(*WITHOUT, "--color=no", "--asyncdb=sqlite", "-ra")
    result.assert_outcomes(errors=40)
    summary = result.outlines[[*map(_is_summary, result.outlines)].index(True) + 1 :]
    fixes = [line for line in summary if line.startswith("To fix this")]
    assert len(fixes) == 1
    headline = (
        "asyncdb_metadata='app.nothing:Base': there is no module 'app.nothing' "
        "(asyncdb_metadata in pytest.ini)"
    )
    assert f"ERROR test_it.py::test_it[sqlite-39] - Failed: {headline}" in summary


def _is_summary(line: str) -> bool:
    return "short test summary info" in line


@pytest.mark.complete
def test_forty_failures_on_four_backends_fit(shop: Project, servers: Servers) -> None:
    """A failed assertion has at most 15 lines of the plugin's, a database error 40 in all."""
    shop.write("test_it.py", TESTS.replace("PASSING", "185"))
    words = (*WITHOUT, "-q", *servers.arguments(*BACKENDS))
    result = shop.pytester.runpytest_inprocess(*words)
    result.assert_outcomes(failed=40, passed=740)
    assert len(result.outlines) <= 900
    for name, lines in failures(result.outlines).items():
        sections = [n for n, line in enumerate(lines) if "- asyncdb: SQL -" in line]
        assert len(lines) <= 40, name
        if sections and not any("asyncdb: hint" in line for line in lines):
            assert len(lines) - sections[0] <= 15, lines
    result = shop.pytester.runpytest_inprocess(*words, "--tb=line")
    assert len(result.outlines) <= 150
    assert "[SQL: " not in str(result.stdout)  # pytest's line has the message


SLOW = """
from pytest_asyncdb.servers.memory import MemoryProvider


class Slow(MemoryProvider):
    def obtain(self, found, spec, backend, driver, progress):
        progress("the server takes long")
        return super().obtain(found, spec, backend, driver, progress)


def pytest_asyncdb_register(registry):
    registry.add_provider("memory", f"{__name__}:Slow")
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_line_of_progress_is_no_output_of_a_test(project: Project, workers: tuple) -> None:
    """It stands on a line of its own, also when dots of tests are on the terminal's."""
    project.write("slow.py", SLOW)
    project.tests(
        """
        def test_first():
            pass

        async def test_it(asyncdb_session):
            assert False
        """
    )
    arguments = (*WITHOUT, "-p", "slow", "--asyncdb=sqlite", "--capture=fd", *workers)
    result = project.pytester.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=1, failed=1)
    assert "asyncdb: the server takes long" in result.errlines
    assert "takes long" not in str(result.stdout)
