"""Cached data folders, on real programs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_observer import Observer, observer_of
from fix_servers import Servers

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.abc import BackendSpec, Server
from pytest_asyncdb.servers.data_dir_cache import DataDirCache
from pytest_asyncdb.servers.supervised import Supervised

pytestmark = pytest.mark.everyday("postgres")

REGISTRY = Registry()


@pytest.fixture(params=["postgres", "mariadb"])
def name(request: pytest.FixtureRequest, servers: Servers) -> str:
    """A backend whose programs are here."""
    backend: str = request.param
    servers.need(backend, "local")
    return backend


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a user who has none yet: where its data folders will be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pytest-asyncdb" / "data"


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data folders that programs had to fill; they do."""
    folders: list[str] = []
    start = Supervised.start

    def noted(supervisor: Supervised, command: list[str], stop: str) -> None:
        if Path(command[0]).name in ("initdb", "mariadb-install-db"):
            folders.append(supervisor.folder)
        start(supervisor, command, stop)

    monkeypatch.setattr(Supervised, "start", noted)
    return folders


def spec_of(name: str) -> BackendSpec:
    return BackendSpec(name, written=name, source="a test")


@contextlib.contextmanager
def server(name: str) -> Iterator[Server]:
    """A server as a run starts it."""
    spec = spec_of(name)
    backend, provider = REGISTRY.backend(name), REGISTRY.provider("local")
    found = provider.find(spec, backend, None)
    with provider.obtain(found, spec, backend, REGISTRY.driver(spec), print) as running:
        yield running


def look(name: str, running: Server) -> set[str]:
    """The databases, seen by the observer: the password is right."""
    return observe(name, running).databases()


def observe(name: str, running: Server) -> Observer:
    driver = REGISTRY.driver(spec_of(name)).name
    return observer_of(REGISTRY.backend(name).url(running, driver, None))


def files(entry: Path) -> list[Path]:
    return sorted(path for path in (entry / "data").rglob("*") if path.is_file())


@pytest.mark.everyday("postgres", "mariadb")
def test_the_second_server_starts_from_what_the_first_one_filled(
    name: str, cache: Path, filled: list[str]
) -> None:
    """What is done on the first one is not in it, and only this user can read the entry."""
    with server(name) as first, observe(name, first).throw_away("asyncdb_of_the_first"):
        assert "asyncdb_of_the_first" in look(name, first)
        with server(name) as second:
            assert "asyncdb_of_the_first" not in look(name, second)
            assert first.port != second.port
    assert len(filled) == 1
    (entry,) = cache.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o700
    assert cache.stat().st_mode & 0o777 == 0o700


def _shorten(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


DAMAGES = {
    "shortened": lambda entry: _shorten(max(files(entry), key=lambda path: path.stat().st_size)),
    "missing": lambda entry: files(entry)[-1].unlink(),
    "more": lambda entry: (entry / "data" / "more").write_text(""),
    "no_folder": lambda entry: (entry / "data/pg_tblspc").rmdir(),
    "no_record": lambda entry: (entry / "entry.json").write_text("{}"),
}


@pytest.mark.everyday("shortened", "no_folder")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_replaced(
    cache: Path, filled: list[str], servers: Servers, damage: str
) -> None:
    """As left by a program that tidies up the cache; the next run uses the new one."""
    servers.need("postgres", "local")
    with server("postgres"):
        pass
    (entry,) = cache.iterdir()
    DAMAGES[damage](entry)
    for _ in range(2):
        with server("postgres") as running:
            assert look("postgres", running) == set()
    assert len(filled) == 2
    assert list(cache.iterdir()) == [entry]


def test_two_runs_fill_it_at_once(name: str, cache: Path, filled: list[str]) -> None:
    """Both work; one of the two is kept, and it is whole."""

    def use(_: int) -> bool:
        with server(name) as running:
            return look(name, running) == set()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert all(pool.map(use, range(2)))
    assert len(filled) == 2
    assert use(0)
    assert len(filled) == 2
    assert len(list(cache.iterdir())) == 1


def test_an_entry_that_others_can_write_is_not_believed(
    cache: Path, filled: list[str], servers: Servers
) -> None:
    """They could put a server's settings there, which run commands as this user."""
    servers.need("postgres", "local")
    with server("postgres"):
        pass
    (entry,) = cache.iterdir()
    cache.chmod(0o777)
    planted = entry / "data/postgresql.conf"
    planted.write_text("no_such_setting = 1")
    with server("postgres") as running:
        assert look("postgres", running) == set()
    assert len(filled) == 2


def test_an_entry_behind_a_link_is_not_believed(
    cache: Path, filled: list[str], servers: Servers, tmp_path: Path
) -> None:
    servers.need("postgres", "local")
    with server("postgres"):
        pass
    cache.rename(tmp_path / "elsewhere")
    cache.symlink_to(tmp_path / "elsewhere")
    with server("postgres"):
        pass
    assert len(filled) == 2


def test_without_a_folder_for_it_every_run_fills_its_own(
    tmp_path: Path, filled: list[str], monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    servers.need("postgres", "local")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        with server("postgres") as running:
            assert look("postgres", running) == set()
    assert len(filled) == 2


def test_unused_and_unfinished_entries_are_removed(tmp_path: Path, cache: Path) -> None:
    """By age: an entry after thirty days, what a killed run left half-done after minutes."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("text")
    for word in ("old", "new"):
        DataDirCache(word, ["input"]).keep(str(source), "secret")
    for word in ("old", "new"):
        (cache / f"program-0.{word}").mkdir()
    long_ago = time.time() - 40 * 86400
    for path in cache.glob("*old*"):
        os.utime(path, (long_ago, long_ago))
    another = DataDirCache("another", ["input"])
    another.keep(str(source), "secret")
    left = {path.name.partition("-")[0] for path in cache.iterdir()}
    assert left == {"new", "program", "another"}
    assert not (cache / "program-0.old").exists()
    assert another.password() == "secret"
    assert another.copy_to(str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "file").read_text() == "text"
