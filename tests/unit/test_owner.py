"""Owners: a process is told from any other, and in doubt it is alive."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_asyncdb._system import process_identity
from pytest_asyncdb._system.process_identity import Owner, start_time

HERE = Owner.current("cafe0123", "a PostgreSQL server")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield process


def owned_by(process: subprocess.Popen[bytes]) -> Owner:
    return dataclasses.replace(HERE, pid=process.pid, started=start_time(process.pid) or "")


def test_this_process_is_alive() -> None:
    assert HERE.pid == os.getpid()
    assert HERE.started
    assert HERE.alive()


def test_a_process_that_has_ended_is_dead(child: subprocess.Popen[bytes]) -> None:
    owner = owned_by(child)
    assert owner.alive()
    child.communicate()
    assert not owner.alive()


def test_a_process_that_waits_for_its_parent_is_dead(child: subprocess.Popen[bytes]) -> None:
    """A killed run whose parent does not ask for its exit code holds nothing any more."""
    owner = owned_by(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(child.pid) == ""
    assert not owner.alive()


def test_another_process_of_the_same_number_is_not_the_owner() -> None:
    assert not dataclasses.replace(HERE, started="1").alive()


@pytest.mark.parametrize(
    "change",
    [
        {"host": "elsewhere/0123"},
        {"host": f"{socket.gethostname()}/0123"},
        {"space": "pid:[1]"},
        {"started": ""},
        {"started": "Sat Nov 28 19:20:58 2026"},
        {"pid": -1},
    ],
    ids=[
        "other-host",
        "other-machine-of-that-name",
        "other-pid-namespace",
        "unknown-start",
        "start-of-another-version",
        "no-pid",
    ],
)
def test_who_cannot_be_looked_at_is_alive(change: dict[str, Any]) -> None:
    """A number means nothing on another machine or in another container."""
    gone = dataclasses.replace(HERE, pid=2**22 + 1)
    assert not gone.alive()
    assert dataclasses.replace(gone, **change).alive()


def test_without_a_machine_id_another_boot_may_be_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Machines of a CI service may share a name and an engine."""
    gone = dataclasses.replace(HERE, pid=2**22 + 1)
    monkeypatch.setattr(process_identity, "_read", lambda path: path.replace("/etc/machine-id", ""))
    here = Owner.current("", "").host
    assert here.endswith("boot_id")
    assert not dataclasses.replace(gone, host=here).alive()
    assert dataclasses.replace(gone, host=f"{here}_before").alive()


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_server_of_a_dead_process_is_in_use_only_if_later_runs_find_it(
    tmp_path: Path, kept: bool, recorded: bool
) -> None:
    """``kept`` names the folder of the record; the record names the server."""
    gone = dataclasses.replace(HERE, pid=2**22 + 1, kept=str(tmp_path) if kept else "")
    assert not gone.holds("a-server")
    (tmp_path / "record.json").write_text("a-server" if recorded else "another")
    assert gone.holds("a-server") is (kept and recorded)
    assert HERE.holds("a-server")


@pytest.mark.skipif(sys.platform != "linux", reason="the observer is Linux' own /proc")
def test_the_start_time_is_the_systems() -> None:
    """Counted from the boot, so that setting the clock makes no process another one."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[19]) * 100 // os.sysconf("SC_CLK_TCK")
    assert abs(int(HERE.started) - ticks) <= 1
    assert start_time(2**22 + 1) == ""


def test_a_start_time_may_be_read_less_precisely_later() -> None:
    """psutil reads the time of the boot in whole seconds."""
    assert dataclasses.replace(HERE, started=str(int(HERE.started) - 100)).alive()
    assert not dataclasses.replace(HERE, started=str(int(HERE.started) - 1000)).alive()


def test_a_record_is_read_by_other_versions() -> None:
    """One line; a later version may have added fields."""
    text = HERE.to_json()
    assert "\n" not in text
    assert Owner.from_json(text) == HERE
    assert Owner.from_json(json.dumps({**json.loads(text), "later": 1})) == HERE


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"pid": 1}', "null"])
def test_what_is_no_record_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        Owner.from_json(text)


def test_a_record_of_other_types_is_an_error() -> None:
    values = {**dataclasses.asdict(HERE), "pid": "1"}
    with pytest.raises(ValueError):
        Owner.from_json(json.dumps(values))


def test_an_owner_in_words() -> None:
    owner = dataclasses.replace(HERE, host="build7/0123", pid=41)
    assert str(owner) == "a PostgreSQL server of run cafe0123 (process 41 on build7)"
