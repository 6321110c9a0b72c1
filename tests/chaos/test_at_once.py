"""Several runs, and many workers, on one server."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from fix_chaos import Chaos, Run, at_moments
from fix_servers import Servers

pytestmark = pytest.mark.usefixtures("untouched")

WORDS = ("postgres+asyncpg", "mariadb+asyncmy")


@at_moments
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.everyday("postgres+asyncpg")
def test_two_runs_at_once_do_not_meet(chaos: Chaos, servers: Servers, word: str, seed: int) -> None:
    """Each drops its own databases, and neither those of the other, nor anybody else's."""
    target = servers.target(word)
    left = f"asyncdb_{os.urandom(4).hex()}_main_0_1"
    target.observer.query(f"CREATE DATABASE {left}")
    workers = random.Random(seed).choice(["-n0", "-n2"])
    first = chaos.start(*target.arguments)
    first.at(random.Random(f"{seed} pause").uniform(0.0, 1.5))
    second = chaos.start(*target.arguments, workers)
    assert first.end() == 0, first.text
    assert second.end() == 0, second.text
    assert "60 passed" in first.text
    assert "60 passed" in second.text
    assert first.id != second.id
    first.leaves_nothing(target)
    second.leaves_nothing(target)
    assert left not in target.observer.databases()


COUNTED = """
    import os
    import pytest
    from pathlib import Path
    from app.models import Base

    SEEN = Path(__file__).with_name("seen")

    @pytest.fixture(scope="session")
    def asyncdb_migrate():
        def migrate(connection):
            SEEN.joinpath(f"built-{os.getpid()}-{os.urandom(4).hex()}").touch()
            Base.metadata.create_all(connection)
        return migrate
"""
EACH = """
    from pathlib import Path

    SEEN = Path(__file__).with_name("seen")

    @pytest.mark.parametrize("n", range(64))
    async def test_each(n, asyncdb_session, worker_id):
        await add(asyncdb_session, "ada")
        await asyncio.sleep(0.05)
        sql = "SELECT datname FROM pg_database WHERE datname LIKE 'asyncdb%\\\\_t_'"
        (name,) = await asyncdb_session.scalars(text(sql))
        SEEN.joinpath(f"template-{name}").touch()
        SEEN.joinpath(f"worker-{worker_id}").touch()
"""


@pytest.mark.complete
def test_eight_workers_have_one_server_and_one_template(chaos: Chaos, servers: Servers) -> None:
    """The server's processes are counted from outside, while the run lasts."""
    servers.need("postgres", "local")
    project = chaos.project
    project.write("conftest.py", COUNTED)
    project.tests(EACH, name="test_many.py")
    seen = project.path / "seen"
    seen.mkdir()
    run = Run(project, "test_many.py", "-n8", "--asyncdb=postgres", "--asyncdb-server=local")
    servers_seen = set()
    while run.at(run.age + 0.1):
        servers_seen |= {pid for pid in run.look() if _is_postmaster(pid)}
    assert run.end() == 0, run.text
    names = [path.name for path in seen.iterdir()]
    assert sum(name.startswith("worker-") for name in names) == 8
    assert sum(name.startswith("built-") for name in names) == 1
    assert sum(name.startswith("template-") for name in names) == 1
    assert len(servers_seen) == 1
    run.leaves_nothing()


def _is_postmaster(pid: int) -> bool:
    """A child has its parent's command line until it has found its own title."""
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return _is_postgres(str(pid)) and not _is_postgres(parent)
    except OSError:
        return False


def _is_postgres(pid: str) -> bool:
    return b"port=" in Path(f"/proc/{pid}/cmdline").read_bytes() and (
        Path(f"/proc/{pid}/exe").readlink().name == "postgres"
    )
