"""A proxy before a server that counts round trips: a cost that no other program disturbs.

A round trip begins when the client sends something after the server had the last word:
what is sent in one go and answered in one go counts once. The proxy runs in a thread of its
own, and counts before it passes on, so that whoever has an answer finds its question counted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fix_servers import Target


class Count:
    """What was counted; as a plugin of an inner run, by test."""

    def __init__(self) -> None:
        self.total = 0
        #: By the test's function, set-up and teardown included.
        self.by_test: dict[str, int] = {}
        self._seen = 0

    def add(self, *_: object) -> None:
        self.total += 1

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        name = nodeid.partition("::")[2].partition("[")[0]
        self.by_test[name], self._seen = self.total - self._seen, self.total


class _Conversation:
    """One connection through the proxy."""

    def __init__(self, trips: Count) -> None:
        self._trips = trips
        self._last = "server"

    async def run(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass on what either side says, until one of them has closed."""
        ways = [
            asyncio.ensure_future(self._pass_on("client", client[0], server[1])),
            asyncio.ensure_future(self._pass_on("server", server[0], client[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            client[1].close()
            server[1].close()

    async def _pass_on(
        self, who: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(1 << 16):
            if who == "client" and self._last == "server":
                self._trips.add()
            self._last = who
            writer.write(data)
            await writer.drain()


@contextmanager
def wire(target: Target) -> Iterator[tuple[Count, Target]]:
    """A proxy before the server of *target*: what it counts, and *target* as it is behind it."""
    assert target.server is not None
    host, port = str(target.server.host), int(target.server.port or 0)
    trips, ready = Count(), threading.Event()
    loop, end = asyncio.new_event_loop(), asyncio.Event()
    ports: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await asyncio.open_connection(host, port)
        await _Conversation(trips).run((reader, writer), server)

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
            ports.append(proxy.sockets[0].getsockname()[1])
            ready.set()
            await end.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run, name="wire")
    thread.start()
    try:
        ready.wait()
        url = target.server.set(host="127.0.0.1", port=ports[0])
        yield trips, dataclasses.replace(target, server=url)
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
