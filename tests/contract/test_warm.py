"""Data folders that are kept for later runs, on real programs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_observer import Observer, observer_of
from fix_servers import Servers

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.abc import BackendSpec, Server
from pytest_asyncdb.servers import local
from pytest_asyncdb.servers.data_dir_cache import DataDirCache

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
    initialise = local._initialise

    def noted(recipe: object, place: local.LocalPlace, *rest: object) -> None:
        folders.append(place.data)
        initialise(recipe, place, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(local, "_initialise", noted)
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
    """Its password is another one, and nothing of the first one is in it."""
    with server(name) as first, observe(name, first).throw_away("asyncdb_of_the_first"):
        assert "asyncdb_of_the_first" in look(name, first)
        with server(name) as second:
            assert "asyncdb_of_the_first" not in look(name, second)
            assert first.password != second.password
            with pytest.raises(Exception, match=r"(?i)password|denied"):
                look(name, dataclasses.replace(second, password=first.password))
    assert len(filled) == 1
    (entry,) = cache.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o700
    assert cache.stat().st_mode & 0o777 == 0o700


def _shorten(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _rot(path: Path) -> None:
    """Turn one bit, as a disk would: neither the size nor the time tells."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(100)
        (byte,) = file.read(1)
        file.seek(100)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGES = {
    "shortened": lambda entry: _shorten(max(files(entry), key=lambda path: path.stat().st_size)),
    "rotten": lambda entry: _rot(entry / "data/global/pg_control"),
    "missing": lambda entry: files(entry)[-1].unlink(),
    "more": lambda entry: (entry / "data" / "more").write_text(""),
    "no_folder": lambda entry: (entry / "data/pg_tblspc").rmdir(),
    "open_to_others": lambda entry: entry.chmod(0o777),
    "no_stamps": lambda entry: (entry / "kept.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_filled_anew(
    cache: Path, filled: list[str], servers: Servers, damage: str
) -> None:
    """Whatever somebody did to it; afterwards it serves again."""
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


def test_what_nobody_uses_is_removed(tmp_path: Path, cache: Path) -> None:
    """By age: what was used long ago, and what a killed run left half-done."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("text")
    kept = [DataDirCache("program", [word]) for word in ("old", "new")]
    for warm in kept:
        warm.keep(str(source), secrets.token_hex(4))
    half = [cache / f"program-0.{word}" for word in ("old", "new")]
    for path in half:
        path.mkdir()
    month = time.time() - 40 * 86400
    os.utime(kept[0].entry, (month, month))
    os.utime(half[0], (month, month))
    DataDirCache("program", ["another"]).keep(str(source), "secret")
    assert not kept[0].entry.exists()
    assert not half[0].exists()
    assert kept[1].entry.exists()
    assert half[1].exists()
    assert DataDirCache("program", ["another"]).take(str(tmp_path / "copy")) == "secret"
    assert (tmp_path / "copy" / "file").read_text() == "text"


def test_so_many_are_kept_that_were_used_last(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    kept = [DataDirCache("program", [str(number)]) for number in range(8)]
    for number, warm in enumerate(kept):
        warm.keep(str(source), "secret")
        os.utime(warm.entry, (time.time() - 100 + number,) * 2)
    DataDirCache("program", ["0"]).take(str(tmp_path / "copy"))  # is used
    DataDirCache("program", ["another"]).keep(str(source), "secret")
    there = [number for number, warm in enumerate(kept) if warm.entry.exists()]
    assert there == [0, 2, 3, 4, 5, 6, 7]
    assert len(list(cache.iterdir())) == 8
