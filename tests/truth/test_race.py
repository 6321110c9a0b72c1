"""Races between tasks show in ``reset`` about as often as on a plain engine."""

from __future__ import annotations

import pytest
from fix_project import Project, naive_database
from fix_servers import Target
from fix_suite import COMPLETE

TRIALS = 1000 if COMPLETE else 100

RACE = """
    import asyncio, json, os
    from pathlib import Path

    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    TRIALS = int(os.environ["TRIALS"])

    async def create(sessions, name):
        async with sessions() as session:
            found = await session.scalar(select(func.count(User.id)).where(User.name == name))
            if not found:
                session.add(User(name=name))
                await session.commit()

    async def races(engine, names):
        sessions, lost = async_sessionmaker(engine), 0
        for name in names:
            both = (create(sessions, name), create(sessions, name))
            results = await asyncio.gather(*both, return_exceptions=True)
            lost += any(isinstance(result, IntegrityError) for result in results)
        return lost

    @pytest.mark.asyncdb(isolation="reset")
    async def test_it(asyncdb_engine):
        # Both are warm, as an application is.
        names = [f"n{n}" for n in range(TRIALS)]
        await races(asyncdb_engine, ["warm"])
        engine = create_async_engine(os.environ["PLAIN_URL"])
        async with engine.begin() as connection:
            await connection.run_sync(User.metadata.create_all)
        await races(engine, ["warm"])
        counts = [await races(engine, names), await races(asyncdb_engine, names)]
        await engine.dispose()
        Path("counts").write_text(json.dumps(counts))
"""


@pytest.mark.complete
@pytest.mark.parametrize(
    "target",
    ["postgres+asyncpg", "mysql+asyncmy"],
    indirect=True,
    ids=["postgres-asyncpg", "mysql-asyncmy"],
)
def test_check_then_insert_fails_as_often_as_on_a_plain_engine(
    project: Project, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least 0.8 times; a statement that let no other task run would hide it always."""
    project.tests(RACE)
    monkeypatch.setenv("TRIALS", str(TRIALS))
    with naive_database(project, target) as url:
        monkeypatch.setenv("PLAIN_URL", url)
        project.run_apart(target).passed(1)
    plain, here = map(int, (project.path / "counts").read_text().strip("[]").split(","))
    print(f"of {TRIALS}: plain {plain}, reset {here}")
    assert plain > TRIALS / 10
    assert here >= 0.8 * plain
