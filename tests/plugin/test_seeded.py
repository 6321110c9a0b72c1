"""``asyncdb.seeded``: what the seed returned, for every test; and values that are made at import."""

from __future__ import annotations

import pytest
from fix_project import Project
from fix_servers import Target

#: Ids that nobody could guess, an id that the database gives, and a mapped object.
SEED = """
import dataclasses
import uuid

import pytest
from app.models import Post, User
from sqlalchemy import text


@dataclasses.dataclass
class Place:
    user: User
    posts: list


@pytest.fixture(scope="session")
def asyncdb_seed():
    async def seed(session):
        ada = User(name=uuid.uuid4().hex[:30])
        session.add(ada)
        await session.flush()
        post = Post(user_id=ada.id, text="first")
        session.add(post)
        await session.flush()
        return {"name": ada.name, "place": Place(ada, [post])}

    return seed
"""

#: The same for each strategy and each of two workers; each test spoils its copy.
TESTS = """
async def look(asyncdb, session):
    place = asyncdb.seeded["place"]
    assert await names(session) == [asyncdb.seeded["name"]] == [place.user.name]
    assert place.user not in session
    post = await session.get(Post, place.posts[0].id)
    assert post.user_id == place.user.id
    asyncdb.seeded["place"].posts.clear()
    place.user.name = "spoilt"
    place.posts.clear()
    assert asyncdb.seeded["place"].user.name == asyncdb.seeded["name"]


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(
    "strategy",
    [pytest.param(one, marks=pytest.mark.asyncdb(isolation=one))
     for one in ("rollback", "reset", "copy")],
)
async def test_it(asyncdb, asyncdb_session, number, strategy):
    await look(asyncdb, asyncdb_session)
"""


@pytest.mark.everyday("sqlite", "postgres+psycopg", "mysql+aiomysql")
def test_what_the_seed_returned_is_there_for_every_test(project: Project, target: Target) -> None:
    project.write("conftest.py", SEED)
    project.tests(TESTS)
    project.run_apart(target).passed(9)


@pytest.mark.everyday("postgres+asyncpg")
def test_every_worker_gets_what_belongs_to_its_rows(project: Project, target: Target) -> None:
    """On a server one worker has run the seed for all."""
    project.write("conftest.py", SEED)
    project.tests(TESTS)
    project.run_apart(target, "-n", "2").passed(9)


@pytest.mark.everyday("sqlite")
def test_the_values_of_layers(project: Project, target: Target) -> None:
    """Mappings become one, other values a list; None is none."""
    project.write(
        "conftest.py",
        """
        import pytest


        async def first(session):
            return {"a": 1, "b": 1}


        @pytest.fixture(scope="session")
        def asyncdb_seed():
            return first
        """,
    )
    project.tests(
        """
        async def nothing(session):
            pass


        async def second(session):
            return {"b": 2}


        async def third(session):
            return ["x"]


        async def test_one(asyncdb):
            assert asyncdb.seeded == {"a": 1, "b": 1}


        class TestLayers:
            @pytest.fixture(scope="session")
            @classmethod
            def asyncdb_seed(cls, asyncdb_seed):
                return [asyncdb_seed, nothing, second]

            async def test_it(self, asyncdb):
                assert asyncdb.seeded == {"a": 1, "b": 2}


        class TestList:
            @pytest.fixture(scope="session")
            @classmethod
            def asyncdb_seed(cls, asyncdb_seed):
                return [asyncdb_seed, third]

            async def test_it(self, asyncdb):
                assert asyncdb.seeded == [{"a": 1, "b": 1}, ["x"]]


        class TestNone:
            @pytest.fixture(scope="session")
            @classmethod
            def asyncdb_seed(cls):
                return nothing

            async def test_it(self, asyncdb):
                assert asyncdb.seeded is None
        """
    )
    project.run_apart(target).passed(4)


@pytest.mark.everyday("sqlite")
def test_a_value_that_cannot_be_copied_fails_the_test_that_asks(
    project: Project, target: Target
) -> None:
    project.write(
        "conftest.py",
        """
        import pytest


        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                return lambda: 1

            return seed
        """,
    )
    project.tests(
        """
        async def test_without(asyncdb_session):
            assert await names(asyncdb_session) == []


        async def test_it(asyncdb):
            asyncdb.seeded
        """
    )
    outcome = project.run(target).had(passed=1, failed=1)
    outcome.shows(
        """
        asyncdb.seeded: what asyncdb_seed returns cannot be copied for each test

        pickle said: AttributeError: Can't pickle local object 'asyncdb_seed.<locals>.seed.<locals>.<lambda>'

        To fix this: return plain values, dataclasses or mapped objects, or a dict or list of these
        """
    )


@pytest.mark.complete
def test_ids_that_a_module_makes_at_import(project: Project, target: Target) -> None:
    """Each worker has imported other ones, and finds its own in its database."""
    project.write(
        "conftest.py",
        """
        import uuid

        import pytest
        from app.models import User

        NAME = uuid.uuid4().hex[:30]
        ADA = User(name=uuid.uuid4().hex[:30])


        def also():
            return User(name=uuid.UUID(int=uuid.UUID(NAME.ljust(32, "0")).int).hex[:30])


        @pytest.fixture(scope="session")
        def asyncdb_seed():
            async def seed(session):
                session.add_all([ADA, also()])

            return seed
        """,
    )
    project.tests(
        """
        from conftest import ADA, NAME


        @pytest.mark.parametrize("number", range(4))
        async def test_it(asyncdb_session, number):
            assert await names(asyncdb_session) == sorted([ADA.name, NAME])
        """
    )
    words = f"--asyncdb={target.word},sqlite@3"
    project.run_apart(target, words).passed(8)
    project.run_apart(target, words, "-n", "2").passed(8)


@pytest.mark.everyday("sqlite", "mysql+aiomysql")
def test_objects_that_a_module_makes_at_import_are_stored_in_each_database(
    project: Project, target: Target
) -> None:
    """With ids that each database gives."""
    project.write(
        "app/more.py",
        """
        from sqlalchemy import ForeignKey, String
        from sqlalchemy.orm import Mapped, mapped_column, relationship

        from app.models import Base


        class Team(Base):
            __tablename__ = "team"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str] = mapped_column(String(20), server_default="none")
            members: Mapped[list["Member"]] = relationship(back_populates="team")


        class Member(Base):
            __tablename__ = "member"
            id: Mapped[int] = mapped_column(primary_key=True)
            team_id: Mapped[int] = mapped_column(ForeignKey("team.id"))
            team: Mapped[Team] = relationship(back_populates="members")
        """,
    )
    project.ini(asyncdb_metadata="app.models:Base app.more:Base")
    project.write(
        "conftest.py",
        """
        import pytest
        from app.more import Member, Team
        from sqlalchemy import insert

        TEAM = Team(members=[Member(), Member()])


        @pytest.fixture(scope="session")
        def asyncdb_seed(asyncdb_backend):
            async def seed(session):
                if asyncdb_backend.name == "sqlite":
                    await session.execute(insert(Team), [{"name": "one"}, {"name": "two"}])
                session.add(TEAM)
                await session.flush()
                return TEAM

            return seed
        """,
    )
    project.tests(
        """
        from app.more import Member, Team


        async def test_it(asyncdb, asyncdb_session):
            first = 3 if asyncdb.backend.name == "sqlite" else 1
            rows = (await asyncdb_session.execute(select(Member.team_id))).all()
            assert [tuple(row) for row in rows] == [(first,), (first,)]
            assert (asyncdb.seeded.id, asyncdb.seeded.name) == (first, "none")
            assert len(asyncdb.seeded.members) == 2
            asyncdb_session.add(Team())
            await asyncdb_session.commit()
        """
    )
    second = "postgres" if target.backend == "sqlite" else "sqlite@3"
    project.run_apart(target, f"--asyncdb={target.word},{second}").passed(2)
