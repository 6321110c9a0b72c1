"""Small projects, run as their users would: libraries that bring models, sessions, factories or
migrations of their own (docs/howto/libraries.md), several databases, sync code, seeds in files, and
what an application needs of its server."""

from __future__ import annotations

import importlib.util

import pytest
from fix_example import run, run_on
from fix_servers import WORDS, Servers, Target
from fix_suite import COMPLETE

#: The folder of each example, with the number of its tests and the modules that it needs.
EXAMPLES = {
    "sqlmodel_app": (4, ["sqlmodel"]),
    "advanced_alchemy_app": (4, ["advanced_alchemy"]),
    "fastapi_users_app": (4, ["fastapi_users_db_sqlalchemy"]),
    "factories": (6, ["factory", "polyfactory"]),
    "alembic_ini": (4, []),
    "alembic_toml": (9, ["pytest_alembic"]),
    "audit_app": (5, []),
    "sync_app": (4, ["celery", "factory"]),
    "seed_files": (5, []),
}
#: The words on which they run every day, each in one run.
EVERYDAY = ("sqlite", "postgres+asyncpg", "mysql+asyncmy")
#: aiomysql cannot send bytes to a server when it runs with PyMySQL 1.2; Advanced Alchemy's ids are
#: bytes there.
CANNOT = {"advanced_alchemy_app": ["mysql+aiomysql"]}


def words_of(example: str, words: tuple[str, ...]) -> list[str]:
    """The words on which an example can run."""
    return [word for word in words if word not in CANNOT.get(example, ())]


def passes(example: str, targets: list[Target], *arguments: str) -> None:
    """Run the example on all targets; every test of it must pass."""
    number, modules = EXAMPLES[example]
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    own = ("-p", "pytest_alembic") if "pytest_alembic" in modules else ()
    output = run_on(example, targets, *own, *arguments)
    assert f"{number * len(targets)} passed" in output


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_passes_on_all_backends_in_one_run(example: str, servers: Servers) -> None:
    words = words_of(example, WORDS if COMPLETE else EVERYDAY)
    passes(example, [servers.target(word) for word in words])


@pytest.mark.complete
@pytest.mark.parametrize("isolation", ["reset", "copy"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_it_passes_on_real_connections_in_workers(
    example: str, servers: Servers, isolation: str
) -> None:
    targets = [servers.target(word) for word in words_of(example, WORDS)]
    passes(example, targets, f"--asyncdb-isolation={isolation}", "-n", "2")


#: Servers that the example starts itself, with the number of its tests for each.
OWN_SERVERS = {
    "postgres-embedded": 3,
    "mariadb-local": 2,
    "mysql-container": 2,
    "postgres-container": 3,
}


@pytest.mark.everyday("postgres-embedded", "mariadb-local")
@pytest.mark.parametrize("word", OWN_SERVERS)
def test_a_server_gets_its_settings_and_extensions(servers: Servers, word: str) -> None:
    backend, provider = word.split("-")
    servers.need(backend, provider)
    arguments = [f"--asyncdb={backend}", f"--asyncdb-server={provider}"]
    if word == "postgres-container":
        arguments.append("--asyncdb-image=postgres:17")
    assert f"{OWN_SERVERS[word]} passed" in run("own_server", *arguments)
