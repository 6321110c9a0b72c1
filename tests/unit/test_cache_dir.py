"""The cache folder: nothing in it is believed unless it belongs to this user alone."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from pytest_asyncdb._system.cache_dir import cache_folder, private_folder, write_private
from pytest_asyncdb.errors import AsyncdbError

TEXT = """\
the cache folder {folder} is not private

Seen:
  - {problem}
  - Its files say which processes may be ended, so nothing in it was read.

To fix this, do one of:
  - remove it: rm -r {folder}
  - set XDG_CACHE_HOME to a folder of this user
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pytest-asyncdb"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_folder_is_created_for_this_user_only(cache: Path) -> None:
    """Also the ones above it in the cache, whatever the umask is."""
    old = os.umask(0)
    try:
        assert private_folder("servers/one") == cache / "servers/one"
    finally:
        os.umask(old)
    assert [mode(path) for path in (cache, cache / "servers", cache / "servers/one")] == [0o700] * 3
    assert private_folder(cache / "servers") == cache / "servers"


def test_a_path_outside_the_cache_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        private_folder(tmp_path / "other")


def test_a_folder_that_others_can_read_is_closed_to_them(cache: Path) -> None:
    """They could not have put anything into it."""
    (cache / "runs").mkdir(parents=True)
    (cache / "runs").chmod(0o755)
    private_folder("runs")
    assert mode(cache / "runs") == 0o700


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o720])
def test_a_folder_that_others_may_write_to_is_refused(cache: Path, bits: int) -> None:
    cache.mkdir(parents=True)
    cache.chmod(bits)
    with pytest.raises(AsyncdbError) as caught:
        private_folder("runs")
    problem = f"other users may write to it (mode {bits:04o})"
    assert str(caught.value) == TEXT.format(folder=cache, problem=problem).rstrip("\n")
    assert not (cache / "runs").exists()


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_is_refused(cache: Path, tmp_path: Path, dangling: bool) -> None:
    cache.mkdir(mode=0o700, parents=True)
    if not dangling:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
    (cache / "runs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AsyncdbError) as caught:
        private_folder("runs/one")
    assert "it is a symbolic link" in str(caught.value)
    assert not (tmp_path / "elsewhere/one").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root's chown")
def test_a_folder_of_another_user_is_refused(cache: Path) -> None:
    """As after ``sudo pytest``, or where another user has made it first."""
    cache.mkdir(mode=0o700, parents=True)
    os.chown(cache, 65534, -1)
    with pytest.raises(AsyncdbError) as caught:
        private_folder("runs")
    assert "it belongs to user 65534; this process runs as user 0" in str(caught.value)


def test_without_a_variable_it_is_where_the_system_has_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    place = {"linux": ".cache", "darwin": "Library/Caches"}.get(sys.platform)
    if place is None:
        pytest.skip("the test knows the folders of Linux and macOS")
    assert cache_folder() == tmp_path / place / "pytest-asyncdb"


def test_a_private_file_is_for_this_user_only_and_new(tmp_path: Path) -> None:
    write_private(tmp_path / "file", "text")
    assert mode(tmp_path / "file") == 0o600
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "file", "other")
