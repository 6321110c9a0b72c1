"""What differs between backends, reported by cause; the tests are those of an ordinary project."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fix_project import WITHOUT, Project
from fix_servers import Servers

MODELS = """
from datetime import datetime
from sqlalchemy import DateTime, ForeignKey, Numeric, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    nick: Mapped[str | None] = mapped_column(String(5))
    number: Mapped[int | None]
    price: Mapped[float | None] = mapped_column(Numeric(10, 2))
    seen: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    made: Mapped[datetime | None]


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    text: Mapped[str] = mapped_column(String(200))
"""

HEAD = """
from datetime import datetime, timezone
from decimal import Decimal

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from app.models import Post, User


async def sql(session, statement):
    connection = await session.connection()
    return await connection.exec_driver_sql(statement)


async def add(session, *rows):
    for row in rows:
        await session.execute(insert(User).values(row))
"""

#: Cause, words of the backends on which it fails, the body of a test.
CORPUS = {
    "nulls_first": (
        "values",
        "postgres",
        """
        await add(s, {"name": "b"}, {"name": "a", "nick": "x"})
        assert list(await s.scalars(select(User.nick).order_by(User.nick))) == [None, "x"]
        """,
    ),
    "nulls_first_of_one": (
        "values",
        "postgres",
        """
        await add(s, {"name": "b"}, {"name": "a", "nick": "x"})
        assert await s.scalar(select(User.nick).order_by(User.nick).limit(1)) is None
        """,
    ),
    "capitals_first": (
        "values",
        "mysql mariadb",
        """
        await add(s, {"name": "a"}, {"name": "B"})
        found = await s.scalars(select(User.name).order_by(User.name))
        assert sorted(found.all()) == list(await s.scalars(select(User.name).order_by(User.name)))
        """,
    ),
    "equal_but_for_case": (
        "values",
        "mysql mariadb",
        """
        await add(s, {"name": "ada"})
        assert list(await s.scalars(select(User.name).where(User.name == "ADA"))) == []
        """,
    ),
    "equal_but_for_accents": (
        "values",
        "mysql mariadb",
        """
        await add(s, {"name": "jose"})
        assert await s.scalar(select(User.name).where(User.name == "josé")) is None
        """,
    ),
    "unique_but_for_case": (
        "constraint",
        "mysql mariadb",
        """
        await add(s, {"name": "ada"}, {"name": "Ada"})
        """,
    ),
    "like": (
        "values",
        "sqlite mysql mariadb",
        """
        await add(s, {"name": "ada"})
        assert (await sql(s, "SELECT count(*) FROM users WHERE name LIKE 'A%%'")).scalar() == 0
        """,
    ),
    "too_long": (
        "type",
        "postgres mysql mariadb",
        """
        await add(s, {"name": "ada", "nick": "lovelace"})
        """,
    ),
    "too_large": (
        "type",
        "postgres mysql mariadb",
        """
        await add(s, {"name": "ada", "number": 2**40})
        """,
    ),
    "text_as_number": (
        "type",
        "postgres mysql mariadb",
        """
        await sql(s, "INSERT INTO users (name, number) VALUES ('ada', 'many')")
        """,
    ),
    "division": (
        "values",
        "mysql mariadb",
        """
        assert (await sql(s, "SELECT 7 / 2")).scalar() == 3
        """,
    ),
    "decimals": (
        "values",
        "sqlite",
        """
        await add(s, {"name": "a", "price": 1}, {"name": "b", "price": 2})
        assert isinstance((await sql(s, "SELECT sum(price) FROM users")).scalar(), Decimal)
        """,
    ),
    "truth": (
        "values",
        "sqlite mysql mariadb",
        """
        assert (await sql(s, "SELECT 1 = 1")).scalar() is True
        """,
    ),
    "fractions_of_a_second": (
        "values",
        "mysql mariadb",
        """
        made = datetime(2024, 1, 1, 12, 0, 0, 250000)
        await add(s, {"name": "ada", "made": made})
        assert await s.scalar(select(User.made)) == made
        """,
    ),
    "key_left_to_the_server": (
        "constraint",
        "postgres",
        """
        await sql(s, "INSERT INTO users (id, name) VALUES (NULL, 'ada')")
        """,
    ),
    "refused": (
        "other",
        "sqlite mysql mariadb",
        """
        with pytest.raises(IntegrityError):
            await sql(s, "INSERT INTO users (id, name) VALUES (NULL, 'ada')")
        """,
    ),
    "aware": (
        "values",
        "sqlite mysql mariadb",
        """
        seen = datetime(2024, 1, 1, tzinfo=timezone.utc)
        await add(s, {"name": "ada", "seen": seen})
        assert await s.scalar(select(User.seen)) == seen
        """,
    ),
    "aware_difference": (
        "other",
        "sqlite mysql mariadb",
        """
        seen = datetime(2024, 1, 1, tzinfo=timezone.utc)
        await add(s, {"name": "ada", "seen": seen})
        assert (seen - await s.scalar(select(User.seen))).days == 0
        """,
    ),
    "naive": (
        "type",
        "postgres",
        """
        await add(s, {"name": "ada", "made": datetime(2024, 1, 1, tzinfo=timezone.utc)})
        """,
    ),
    "concatenation": (
        "values",
        "mysql mariadb",
        """
        assert (await sql(s, "SELECT 'a' || 'b'")).scalar() == "ab"
        """,
    ),
    "no_such_function": (
        "dialect-only SQL",
        "sqlite",
        """
        await sql(s, "SELECT now()")
        """,
    ),
    "on_conflict": (
        "dialect-only SQL",
        "mysql mariadb",
        """
        await sql(s, "INSERT INTO users (name) VALUES ('ada') ON CONFLICT DO NOTHING")
        """,
    ),
    "cast": (
        "dialect-only SQL",
        "sqlite mysql mariadb",
        """
        await sql(s, "SELECT 1::text")
        """,
    ),
    "group_by": (
        "dialect-only SQL",
        "postgres mysql",
        """
        await sql(s, "SELECT name, number FROM users GROUP BY number")
        """,
    ),
    "read_again": (
        "values",
        "mysql mariadb",
        """
        async with asyncdb.connections(2) as (one, two):
            await one.exec_driver_sql("INSERT INTO users (id, name) VALUES (1, 'ada')")
            await one.commit()
            query = "SELECT name FROM users"
            assert (await two.exec_driver_sql(query)).scalar() == "ada"
            await one.exec_driver_sql("UPDATE users SET name = 'eve'")
            await one.commit()
            assert (await two.exec_driver_sql(query)).scalar() == "eve"
        """,
    ),
}
BACKENDS = ("sqlite", "postgres+asyncpg", "mysql+asyncmy", "mariadb+asyncmy")


def body(name: str, text: str) -> str:
    mark = ""
    fixture = "asyncdb_session"
    if "asyncdb." in text:
        mark, fixture = '@pytest.mark.asyncdb(exclude="sqlite", isolation="reset")\n', "asyncdb"
    lines = "\n".join(f"    {line.strip() and line[8:]}" for line in text.strip("\n").splitlines())
    start = "" if fixture == "asyncdb" else "    s = asyncdb_session\n"
    return f"{mark}async def test_{name}({fixture}):\n{start}{lines}\n"


def run(project: Project, *more: str, apart: bool = False) -> pytest.RunResult:
    words = [*WITHOUT, "--color=no", *more]
    if apart:
        return project.pytester.runpytest_subprocess(*words)
    return project.pytester.runpytest_inprocess(*words)


def section(result: pytest.RunResult) -> list[str]:
    """The lines of the summary about differences."""
    lines = [line.strip("= ") if line.startswith("===") else line for line in result.outlines]
    titles = (n for n, line in enumerate(lines) if re.match(r"asyncdb: \d+ tests? differ", line))
    start = next(titles, None)
    if start is None:
        return []
    end = next(n for n in range(start, len(lines)) if lines[n] == "short test summary info")
    return lines[start:end]


def content(project: Project) -> dict[str, Any]:
    return json.loads((project.path / "x.json").read_text(encoding="utf-8"))


@pytest.fixture
def corpus(project: Project) -> Project:
    project.write("app/models.py", MODELS)
    parts = [body(name, text) for name, (_, _, text) in CORPUS.items()]
    project.write("test_it.py", "\n\n".join([HEAD, *parts]))
    return project


@pytest.mark.complete
def test_each_divergence_is_reported_with_its_cause(corpus: Project, servers: Servers) -> None:
    """None is missed; each fails where it should, for the reason that it should."""
    result = run(corpus, *servers.arguments(*BACKENDS), "--asyncdb-report=x.json")
    report = content(corpus)
    found = {t["test"].rpartition("test_")[2]: t for t in report["tests"]}
    seen = {
        name: (
            test["cause"],
            " ".join(
                b.partition("+")[0] for b, c in test["on"].items() if c["outcome"] != "passed"
            ),
        )
        for name, test in found.items()
    }
    wrong = {name: seen[name] for name, case in CORPUS.items() if seen[name] != case[:2]}
    assert wrong == {}
    assert len(seen) == len(CORPUS)
    assert section(result)[0] == f"asyncdb: {len(CORPUS)} tests differ between backends"
    assert all(len(line) <= 80 for line in section(result))


PORTABLE = """
import asyncio
from datetime import timedelta
from sqlalchemy import and_, case, delete, exists, func, update
from sqlalchemy.orm import selectinload

NAMES = ["ada", "bob", "cyd", "sqlite", "postgres-asyncpg", "José", "名前", "O'Neil", "100%", "x" * 40]
each = pytest.mark.parametrize("name", NAMES)


@each
async def test_insert(asyncdb_session, name):
    await add(asyncdb_session, {"name": name})
    assert await asyncdb_session.scalar(select(User.name)) == name


@each
async def test_update(asyncdb_session, name):
    await add(asyncdb_session, {"name": "old"})
    changed = await asyncdb_session.execute(update(User).values(name=name))
    assert changed.rowcount == 1
    assert list(await asyncdb_session.scalars(select(User.name))) == [name]


@each
async def test_delete(asyncdb_session, name):
    await add(asyncdb_session, {"name": name}, {"name": "other"})
    await asyncdb_session.execute(delete(User).where(User.name == name))
    assert list(await asyncdb_session.scalars(select(User.name))) == ["other"]


@each
async def test_key(asyncdb_session, name):
    user = User(name=name)
    asyncdb_session.add(user)
    await asyncdb_session.flush()
    asyncdb_session.add(Post(user_id=user.id, text=name))
    await asyncdb_session.commit()
    query = select(User.name, Post.text).join(Post, Post.user_id == User.id)
    assert (await asyncdb_session.execute(query)).all() == [(name, name)]


@each
async def test_twice(asyncdb_session, name):
    await add(asyncdb_session, {"name": name})
    with pytest.raises(IntegrityError):
        async with asyncdb_session.begin_nested():
            await add(asyncdb_session, {"name": name})
    assert await asyncdb_session.scalar(select(func.count()).select_from(User)) == 1


@each
async def test_nobody(asyncdb_session, name):
    with pytest.raises(IntegrityError):
        async with asyncdb_session.begin_nested():
            await asyncdb_session.execute(insert(Post).values(user_id=77, text=name))
            await (await asyncdb_session.connection()).exec_driver_sql("SELECT 1")


@each
async def test_order(asyncdb_session, name):
    await add(asyncdb_session, *({"name": f"{name[:30]}{n}", "number": n} for n in (2, 3, 1)))
    numbers = select(User.number).order_by(User.number.desc()).limit(2)
    assert list(await asyncdb_session.scalars(numbers)) == [3, 2]


@each
async def test_null(asyncdb_session, name):
    await add(asyncdb_session, {"name": name}, {"name": "other", "nick": "n"})
    nobody = select(User.name).where(User.nick.is_(None))
    assert list(await asyncdb_session.scalars(nobody)) == [name]


@each
async def test_sum(asyncdb_session, name):
    await add(asyncdb_session, {"name": name, "price": Decimal("1.25")}, {"name": "b", "price": 2})
    assert await asyncdb_session.scalar(select(func.sum(User.price))) == Decimal("3.25")


@each
async def test_undone(asyncdb_session, name):
    made = datetime(2024, 1, 31, 12)
    await add(asyncdb_session, {"name": name, "made": made})
    assert await asyncdb_session.scalar(select(User.made)) + timedelta(days=1) > made
    await asyncdb_session.rollback()
    assert await asyncdb_session.scalar(select(exists(select(User.id)))) in (False, 0)


def test_of_no_database():
    pass
"""


def test_a_project_whose_tests_agree_gets_no_report(project: Project, servers: Servers) -> None:
    """Nothing is printed; a test that fails everywhere does not differ either."""
    project.write("app/models.py", MODELS)
    project.write("test_it.py", HEAD + PORTABLE)
    words = servers.arguments(*BACKENDS)
    result = run(project, *words)
    result.assert_outcomes(passed=401)
    assert "asyncdb: " not in "\n".join(result.outlines).partition("collected")[2]
    project.write("test_it.py", HEAD + PORTABLE + body("wrong", "        assert s is None"))
    result = run(project, *words, "-k", "wrong or null")
    result.assert_outcomes(passed=40, failed=4, deselected=361)
    assert section(result) == []


TWO = """
NASTY = "<script>alert('&')</script>"


@pytest.mark.parametrize("name", [NASTY, "b"])
async def test_two(asyncdb_session, name):
    await add(asyncdb_session, {"name": name})
    assert (await sql(asyncdb_session, "SELECT 1 = 1")).scalar() is True


async def test_same(asyncdb_session):
    pass
"""


@pytest.fixture
def two(project: Project) -> Project:
    project.write("app/models.py", MODELS)
    project.write("test_it.py", HEAD + TWO)
    return project


def test_the_section_says_what_differs(two: Project, servers: Servers) -> None:
    """Whole, with the values and the statement."""
    result = run(two, *servers.arguments("sqlite", "postgres+asyncpg"), "-k", "b and two")
    assert section(result) == [
        "asyncdb: 1 test differs between backends",
        "values (1)",
        "  test_it.py::test_two[b]",
        "    passed on postgres+asyncpg",
        "    failed on sqlite: assert 1 is True where 1 = scalar()",
        "      SELECT 1 = 1",
    ]
    assert result.outlines[-2] == "asyncdb: 1 test differs between backends"


@pytest.mark.parametrize("workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.complete)])
def test_the_page_has_every_test_escaped(two: Project, servers: Servers, workers: tuple) -> None:
    """And so it is with xdist's workers; the JSON is the same but for times."""
    words = servers.arguments("sqlite", "postgres+asyncpg")
    result = run(two, *words, "--asyncdb-report=deep/x.html", *workers, apart=bool(workers))
    result.assert_outcomes(passed=4, failed=2)
    assert section(result)[0] == "asyncdb: 2 tests differ between backends"
    path = two.path / "deep" / "x.html"
    assert f"asyncdb: 2 tests differ between backends: {path}" in result.outlines
    page = (two.path / "deep" / "x.html").read_text(encoding="utf-8")
    names = ["test_it.py::test_same", "test_it.py::test_two[<script>alert('&')</script>]"]
    names += ["test_it.py::test_two[b]"]
    assert page.count("<script") == page.count("</script>") == 2
    assert "<script>alert" not in page
    assert not re.findall(r"src=|url\(|@import|https?:", page.partition("<script")[0])
    [data] = re.findall(r'<script type="application/json" id="data">(.*)</script>', page)
    run(two, *words, "--asyncdb-report=x.json", *workers, apart=bool(workers))
    for found in (json.loads(data), content(two)):
        assert [test["test"] for test in found["tests"]] == names
        outcomes = {
            (t["cause"], *(cell["outcome"] for cell in t["on"].values())) for t in found["tests"]
        }
        assert outcomes == {(None, "passed", "passed"), ("values", "failed", "passed")}
        error = found["tests"][2]["on"]["sqlite"]["error"]
        assert [title for title, _ in error["sections"]] == ["SQL", "changed rows"]
        assert "assert 1 is True" in error["traceback"]
        assert found["servers"]["sqlite"].startswith("SQLite 3.")
        assert {"Python", "pytest", "pytest-asyncdb", "SQLAlchemy"} < {*found["versions"]}


def test_sections_of_a_report_do_not_depend_on_the_terminal(two: Project) -> None:
    """``--tb=line`` leaves them out on the terminal only; parameters are in natural order."""
    two.tests(
        """
        @pytest.mark.parametrize("n", [10, 9, 2])
        async def test_numbers(asyncdb_session, n):
            await asyncdb_session.execute(text("SELECT 1"))
            assert n == 9, "\\ud800"

        @pytest.fixture
        async def broken(asyncdb_session):
            await asyncdb_session.execute(text("SELECT nothing"))

        def test_setup(broken):
            pass
        """
    )
    result = run(two, "--asyncdb=sqlite", "--tb=line", "--asyncdb-report=x.json")
    assert "- asyncdb: " not in str(result.stdout)
    tests = {test["test"]: test["on"]["sqlite"] for test in content(two)["tests"]}
    numbers = [f"test_it.py::test_numbers[{n}]" for n in (2, 9, 10)]
    assert list(tests) == [*numbers, "test_it.py::test_setup"]
    for test, last in ((numbers[0], "SELECT 1 -- "), ("test_it.py::test_setup", "SELECT nothing")):
        [(title, sql)] = tests[test]["error"]["sections"]
        assert title == "SQL"
        assert last in sql


def test_no_password_gets_into_a_report(two: Project, servers: Servers) -> None:
    """Nor what a statement that names one compares."""
    two.write(
        "test_it.py",
        HEAD
        + body(
            "secret",
            """
        found = (await sql(s, "SELECT 'hunter2' AS password WHERE 1::text = '1'")).scalar()
            """.replace("            \n", ""),
        )
        + body("url", '        assert s.bind.dialect.name == "sqlite", "x://ada:hunter3@h/x"')
        + body(
            "variable", '        password = "hunter" + str(4)\n        assert password == "hunter5"'
        )
        + body(
            "near",
            '        token = "hunter6"\n        given = token[:3]\n        assert given == 1',
        ),
    )
    words = servers.arguments("sqlite", "postgres+asyncpg")
    result = run(two, *words, "--asyncdb-report=x.json")
    text = (two.path / "x.json").read_text(encoding="utf-8")
    tests = content(two)["tests"]
    assert [t["test"].rpartition("_")[2] for t in tests] == ["near", "secret", "url", "variable"]
    tracebacks = [test["on"]["sqlite"]["error"]["traceback"].splitlines() for test in tests[::3]]
    assert "        token = '***'" in tracebacks[0]
    assert [line.rpartition(":")[2] for line in tracebacks[1]] == [" AssertionError"]
    assert "'***'" in text
    assert "x://ada:***@h/x" in text
    for number in range(2, 7):
        assert f"hunter{number}" not in text + "\n".join(section(result))


def test_a_backend_that_cannot_be_had_is_left_out(
    two: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing about any test."""
    monkeypatch.setattr("pytest_asyncdb.servers.url._ANSWER", 0.2)
    nobody = "--asyncdb-url=postgres=postgresql+asyncpg://ada:hunter2@127.0.0.1:1/x"
    result = run(two, "--asyncdb=sqlite,postgres", nobody, "--asyncdb-report=x.json")
    result.assert_outcomes(passed=1, failed=2, errors=3)
    assert content(two)["left_out"] == ["postgres"]
    assert content(two)["differences"] == {}
    assert section(result) == []
    assert "hunter2" not in (two.path / "x.json").read_text(encoding="utf-8")


def test_one_backend_is_collected_only_for_a_report(two: Project, servers: Servers) -> None:
    """No report of pytest carries anything else."""

    class Seen:
        def __init__(self) -> None:
            self.carried: list[bool] = []

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            self.carried.append(hasattr(report, "asyncdb"))

    words = (*WITHOUT, "--color=no", "--asyncdb=sqlite")
    for more, expected in ((), False), (("--asyncdb-report=x.json",), True):
        seen = Seen()
        two.pytester.runpytest_inprocess(*words, *more, plugins=[seen])
        assert set(seen.carried) == {expected}
    assert {t["cause"] for t in content(two)["tests"]} == {None}


def test_a_report_has_a_form(project: Project) -> None:
    result = run(project, "--asyncdb-report=x.txt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert str(result.stderr).strip() == (
        "ERROR: a report is JSON or HTML (--asyncdb-report=x.txt)\n\n"
        "To fix this: give a name that ends in .json or .html"
    )
