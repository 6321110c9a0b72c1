"""Containers: who can reach them, who removes them, and what they cost runs without any."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fix_docker import containers, docker
from fix_observer import Observer, observer_of
from fix_project import Project
from fix_servers import Servers

from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._system.process_identity import Owner
from pytest_asyncdb.abc import BackendSpec, Server
from pytest_asyncdb.servers import data_volume
from pytest_asyncdb.servers.data_volume import DataVolume
from pytest_asyncdb.servers.docker_api import LABEL
from pytest_asyncdb.servers.readiness import wait_until_ready
from pytest_asyncdb.servers.testcontainers_api import Container, is_this_machine

REGISTRY = Registry()


@contextlib.contextmanager
def obtained(name: str = "postgres") -> Iterator[Server]:
    spec = spec_of(name)
    backend, provider = REGISTRY.backend(name), REGISTRY.provider("container")
    found = provider.find(spec, backend, None)
    provider.load(found, backend)
    with provider.obtain(found, spec, backend, REGISTRY.driver(spec), print) as server:
        assert observer(server).query("SELECT 1")
        yield server


def spec_of(name: str) -> BackendSpec:
    return BackendSpec(name, written=name, source="a test")


def observer(server: Server) -> Observer:
    driver = REGISTRY.driver(spec_of(server.backend))
    return observer_of(REGISTRY.backend(server.backend).url(server, driver.name, None))


@contextlib.contextmanager
def throw_away_volume() -> Iterator[tuple[list[str], Any]]:
    """What makes a data folder that no other container has, and its volume."""
    words = ["postgres", f"test-{secrets.token_hex(4)}"]
    with docker() as client:
        volume = client.volumes.get(DataVolume(client, words).name)
        try:
            yield words, volume
        finally:
            volume.remove()


def container_of(client: Any, server: Server) -> Any:
    """The container of a server."""
    for one in containers(client, label=LABEL):
        if any(int(binding["HostPort"]) == server.port for binding in bindings(one)):
            return one
    raise AssertionError("no container has this port")


def bindings(container: Any) -> list[dict[str, str]]:
    """The addresses and ports on which the engine listens for a container."""
    return [binding for ports in container.ports.values() for binding in ports or []]


def published(client: Any, server: Server) -> list[str]:
    """The addresses on which the engine listens for a server."""
    return [binding["HostIp"] for binding in bindings(container_of(client, server))]


def listeners(port: int) -> set[str]:
    """The addresses on which any process of this machine listens, in hexadecimal."""
    found = set()
    for table in filter(Path.exists, (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))):
        for row in table.read_text().splitlines():
            words = row.split()
            if words[3] == "0A" and words[1].endswith(f":{port:04X}"):
                found.add(words[1].partition(":")[0])
    return found


@pytest.mark.everyday("postgres", "mariadb")
@pytest.mark.parametrize("name", ["postgres", "mysql", "mariadb"])
def test_a_container_listens_on_the_loopback_address_only(servers: Servers, name: str) -> None:
    """Its password is random, but nothing on the network needs to reach it."""
    servers.need(name, "container")
    with obtained(name) as server, docker() as client:
        assert published(client, server) == ["127.0.0.1"]
        assert server.host == "127.0.0.1"
        assert server.port is not None
        assert listeners(server.port) <= {"0100007F"}


def test_the_container_of_a_remote_engine_is_published_to_this_machine(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's loopback address is not this machine's. The address is for documentation."""
    servers.need("postgres", "container")
    from testcontainers.core.config import ConnectionMode, testcontainers_config

    monkeypatch.setattr(testcontainers_config, "tc_host_override", "198.51.100.7")
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)  # it would be asked there
    monkeypatch.setattr(
        testcontainers_config, "connection_mode_override", ConnectionMode.docker_host
    )
    recipe, owner = REGISTRY.backend("postgres").container, Owner.current("cafe0124", "a test")
    assert recipe is not None
    with (
        throw_away_volume() as (words, _),
        Container("postgres:17") as container,
        docker() as client,
    ):
        container.get_image()
        host, port, _ = container.start(recipe, words, owner)
        assert host == "198.51.100.7"
        server = Server("postgres", "17", "container", "", True, host=host, port=port)
        assert set(published(client, server)) == {"0.0.0.0", "::"}


def test_an_address_of_this_machine_is_told_from_others() -> None:
    """In a container with the socket of the engine outside, the engine's address is another's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        own = probe.getsockname()[0]
    assert all(map(is_this_machine, ("localhost", "127.0.0.1", own)))
    assert not any(map(is_this_machine, ("198.51.100.7", "docker.invalid")))


def test_a_run_that_starts_a_container_removes_those_of_killed_runs(servers: Servers) -> None:
    """Ryuk was killed too, or the engine was restarted; the label is there."""
    servers.need("postgres", "container")
    code = (
        "from pytest_asyncdb._system.process_identity import Owner\n"
        "print(Owner.current('cafe0123', 'a PostgreSQL container').to_json())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with docker() as client:
        left = client.containers.create("postgres:17", labels={LABEL: done.stdout.strip()})
        foreign = client.containers.create("postgres:17", labels={LABEL: "build7/41"})
        try:
            with obtained():
                ids = {one.id for one in containers(client)}
            assert left.id not in ids
            assert foreign.id in ids
        finally:
            foreign.remove(force=True, v=True)


@pytest.mark.complete  # Ryuk waits for ten seconds
def test_a_killed_run_leaves_no_container(project: Project, servers: Servers) -> None:
    """Ryuk removes it ten seconds later."""
    servers.need("postgres", "container")
    project.tests(
        """
        async def test_it(asyncdb_session):
            import os, signal

            print(f"\\npid: {os.getpid()}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = project.pytester.runpytest_subprocess(
        "-s", "--asyncdb=postgres", "--asyncdb-server=container"
    )
    pid = next(int(line.split()[1]) for line in result.outlines if line.startswith("pid: "))
    until = time.monotonic() + 60

    def left() -> list[str]:
        with docker() as client:
            found = containers(client, label=LABEL)
            labels = [one.labels[LABEL] for one in found]
        return [text for text in labels if text[0] == "{" and json.loads(text)["pid"] == pid]

    assert left()  # the control
    while left():
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.mark.everyday("postgres")
@pytest.mark.parametrize("name", ["postgres", "mysql", "mariadb"])
def test_a_container_starts_from_the_data_folder_of_an_earlier_one(
    servers: Servers, name: str
) -> None:
    """As it was before its server started; in the control, the first one, it is not there."""
    servers.need(name, "container")
    recipe = REGISTRY.backend(name).container
    assert recipe is not None
    mark = f"asyncdb_mark_{secrets.token_hex(4)}"
    with docker() as client, obtained(name) as first:
        in_volume, in_folder = f"/asyncdb-cache/data/{mark}", f"{recipe.data_folder}/{mark}"
        one = container_of(client, first)
        assert one.exec_run(["touch", in_volume]).exit_code == 0
        try:
            with observer(first).throw_away(mark), obtained(name) as second:
                found = container_of(client, second).exec_run(["test", "-e", in_folder])
                assert found.exit_code == 0
                assert mark in observer(first).databases()
                assert mark not in observer(second).databases()
            assert one.exec_run(["test", "-e", in_folder]).exit_code == 1
        finally:
            assert one.exec_run(["rm", in_volume]).exit_code == 0


def test_a_container_fills_its_data_folder_where_the_copy_cannot_be_read(servers: Servers) -> None:
    servers.need("postgres", "container")
    recipe, owner = REGISTRY.backend("postgres").container, Owner.current("cafe0124", "a test")
    assert recipe is not None
    with throw_away_volume() as (words, volume), docker() as client:
        broken = ["sh", "-c", "echo a file > /v/data"]
        where = {volume.name: {"bind": "/v", "mode": "rw"}}
        client.containers.run("postgres:17", entrypoint=broken, volumes=where, remove=True)
        with Container("postgres:17") as container:
            container.get_image()
            host, port, password = container.start(recipe, words, owner)
            server = Server("postgres", "17", "container", "", True, host=host, port=port)
            server = dataclasses.replace(server, user="postgres", password=password)
            backend, driver = REGISTRY.backend("postgres"), REGISTRY.driver(spec_of("postgres"))
            wait_until_ready(server, backend, driver, 60, container.check)
            assert b"Not a directory" in container_of(client, server).logs()


def test_volumes_of_another_month_are_removed_with_the_next_one(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a container uses them, or others created them."""
    servers.need("postgres", "container")
    monkeypatch.setattr(data_volume, "_LABEL", f"org.pytest-asyncdb.{secrets.token_hex(4)}")
    made: list[str] = []

    def create(word: str) -> DataVolume:
        volume = DataVolume(client, ["test", word])
        made.append(volume.name)
        return volume

    def left() -> set[str]:
        return {volume.name for volume in client.volumes.list()}

    with docker() as client:
        foreign = client.volumes.create()
        image = client.images.get("postgres:17")
        user = client.containers.create(image, **create("used").arguments(image, "/v"))
        try:
            create("idle")
            create("control")
            assert left() >= set(made)
            monkeypatch.setattr(data_volume, "_TOO_OLD", datetime.timedelta(0))
            create("new")
            assert left() & {*made, foreign.name} == {made[0], made[3], foreign.name}
        finally:
            user.remove(v=True)
            for name in left() & {*made, foreign.name}:
                client.volumes.get(name).remove()


def test_asking_for_the_engine_imports_no_client(servers: Servers) -> None:
    """As the header and doctor of every run do; the package takes long to import."""
    servers.need("postgres", "container")
    code = (
        "import sys\n"
        "from pytest_asyncdb._config.registry import Registry\n"
        "from pytest_asyncdb.abc import BackendSpec\n"
        "registry = Registry()\n"
        "find = registry.provider('container').find\n"
        "print(find(BackendSpec('postgres'), registry.backend('postgres'), None).at_hand)\n"
        "print({'docker', 'testcontainers', 'psutil', 'requests'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True", "set()"]


def test_a_run_on_a_local_server_imports_no_client(project: Project, servers: Servers) -> None:
    """Though it removes what killed runs have left."""
    servers.need("postgres", "local")
    project.tests(
        """
        async def test_it(asyncdb_session):
            import sys, threading

            for thread in threading.enumerate():
                if thread.name == "asyncdb-reap":
                    thread.join()
            assert "docker" not in sys.modules
        """
    )
    result = project.pytester.runpytest_subprocess("--asyncdb=postgres", "--asyncdb-server=local")
    result.assert_outcomes(passed=1)


def test_testcontainers_still_has_a_ryuk_to_start() -> None:
    """A private name: without it, testcontainers_api.py has to start Ryuk in another way."""
    from testcontainers.core import container

    reaper = getattr(container, "Reaper", None)
    assert callable(getattr(reaper, "get_instance", None)), (
        "testcontainers.core.container.Reaper.get_instance is gone: "
        "change _start_ryuk() in pytest_asyncdb/servers/testcontainers_api.py"
    )
