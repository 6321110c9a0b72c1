"""What no transaction of MySQL and MariaDB holds: tables of MyISAM and MEMORY, and full-text indexes.

The judge is a plain engine, on the database of a test in ``reset``.
"""

from __future__ import annotations

import pytest
from fix_project import MODELS, Project
from fix_servers import WORDS, Servers

pytestmark = [
    pytest.mark.everyday("mysql+aiomysql", "mariadb+asyncmy"),
    pytest.mark.parametrize("word", WORDS[3:]),
]

TABLES = f"""{MODELS}
from sqlalchemy import Index


class Hit(Base):
    __tablename__ = "hits"
    __table_args__ = {{"mysql_engine": "MyISAM", "mariadb_engine": "MyISAM"}}
    id: Mapped[int] = mapped_column(primary_key=True)


class Page(Base):
    __tablename__ = "pages"
    __table_args__ = (Index("words", "body", mysql_prefix="FULLTEXT", mariadb_prefix="FULLTEXT"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(String(200))
"""

#: Its tables with their rows.
EMPTY: dict[str, list[object]] = {"hits": [], "pages": [], "posts": [], "users": []}

HELPERS = """
from sqlalchemy.ext.asyncio import create_async_engine

from app.models import Hit, Page

pytestmark = pytest.mark.filterwarnings("ignore:Some non-transactional changed tables")


@pytest.fixture
async def plain(asyncdb_url):
    engine = create_async_engine(asyncdb_url)
    yield async_sessionmaker(engine)
    await engine.dispose()


async def numbers(session):
    return [await session.scalar(select(func.count(one.id))) for one in (Hit, User)]
"""


@pytest.mark.parametrize("engine", ["MyISAM", "MEMORY"])
def test_what_no_rollback_undoes_is_gone_in_the_next_test(
    project: Project, servers: Servers, word: str, engine: str
) -> None:
    """Within the test it stays, as in production, also after a statement that has failed."""
    project.write("app/models.py", TABLES.replace("MyISAM", engine))
    project.tests(
        HELPERS,
        """
        async def work(sessions):
            async with sessions() as session:
                session.add_all([Hit(id=1), User(name="ada")])
                await session.flush()
                await session.rollback()
                assert await numbers(session) == [1, 0]
                with pytest.raises(IntegrityError):
                    await session.execute(text("INSERT INTO hits VALUES (2), (1)"))
                await session.rollback()
                assert await numbers(session) == [2, 0]

        @pytest.mark.asyncdb(isolation="reset")
        async def test_plain(plain):
            await work(plain)

        async def test_it(asyncdb_sessionmaker):
            await work(asyncdb_sessionmaker)

        async def test_next(asyncdb_session):
            assert await numbers(asyncdb_session) == [0, 0]
        """,
    )
    project.run(servers.target(word), expected=EMPTY).passed(3)


def test_only_such_rows_cost_a_database(project: Project, servers: Servers, word: str) -> None:
    """Not temporary tables, of which MariaDB says the same after a rollback, nor reading."""
    project.write("app/models.py", TABLES)
    project.tests(
        HELPERS,
        """
        seen = []

        async def note(session):
            seen.append(await session.scalar(text("SELECT database()")))

        async def test_reading(asyncdb_session):
            await note(asyncdb_session)
            await numbers(asyncdb_session)
            await add(asyncdb_session, "ada")

        async def test_writing(asyncdb_session):
            await note(asyncdb_session)
            await asyncdb_session.execute(insert(Hit), [{"id": 1}])

        async def test_next(asyncdb_session):
            await note(asyncdb_session)
            assert seen[0] == seen[1] != seen[2]
        """,
    )
    project.run(servers.target(word), expected=EMPTY).passed(3)
    project.write("app/models.py", MODELS)
    project.tests(
        """
        seen = set()

        @pytest.mark.parametrize("n", range(2))
        async def test_it(asyncdb_session, n):
            seen.add(await asyncdb_session.scalar(text("SELECT database()")))
            await asyncdb_session.execute(text("CREATE TEMPORARY TABLE t (id int)"))
            await asyncdb_session.execute(text("INSERT INTO t VALUES (1)"))
            assert len(seen) == 1
        """
    )
    project.run(servers.target(word)).passed(2)


def test_full_text_search_finds_what_was_committed(
    project: Project, servers: Servers, word: str
) -> None:
    """In ``rollback`` that is the seed."""
    project.write("app/models.py", TABLES)
    project.write(
        "conftest.py",
        """
        import pytest
        from app.models import Page


        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                session.add(Page(body="seeded words"))

            return seed
        """,
    )
    project.tests(
        HELPERS,
        """
        async def found(sessions):
            async with sessions() as session:
                session.add(Page(body="written words"))
                await session.commit()
                query = select(Page.body).where(text("match(body) against ('words')"))
                return sorted(await session.scalars(query.order_by(Page.id)))

        @pytest.mark.asyncdb(isolation="reset")
        async def test_plain(plain):
            assert await found(plain) == ["seeded words", "written words"]

        @pytest.mark.asyncdb(isolation="reset")
        async def test_reset(asyncdb_sessionmaker):
            assert await found(asyncdb_sessionmaker) == ["seeded words", "written words"]

        async def test_rollback(asyncdb_sessionmaker):
            assert await found(asyncdb_sessionmaker) == ["seeded words"]
        """,
    )
    seeded = {**EMPTY, "pages": [(1, "seeded words")]}
    project.run(servers.target(word), expected=seeded).passed(3)
