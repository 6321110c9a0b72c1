"""Ten thousand tests in one run: ``python -m benchmarks.flat``; does anything grow with them?

The second thousand and the last are minutes apart, in which machines that others use, too,
change their speed. Another run, of two thousand tests, therefore waits before its second thousand,
and takes turns with the last of the first run.

pytest keeps three reports of each test, and of each fixture that depends on one with a wider scope
its request. What a run grows by whose tests have fixtures like ours that do nothing is therefore
measured too, and taken off.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import report
from benchmarks.projects import ASYNCDB, Source
from benchmarks.runs import Project, Run, RunFailed, Turns, Variant
from benchmarks.servers import WORDS, Servers
from pytest_asyncdb.errors import AsyncdbError

HEADER = (
    *("10,000 tests", "on", "time, last thousand : second", "calls", "memory", "threads", "files"),
    "",
)
#: As many fixtures as those of a test with ``asyncdb_session``, in the same order.
_WITHOUT = Source(
    "session",
    conftest="""
import app
import pytest


async def work(_):
    pass


app.work = work


@pytest.fixture(scope="session", params=["sqlite"])
def backend(request):
    return request.param


def given():
    return pytest.fixture(scope="session")(lambda: None)


metadata, options, migrate, seed, engines, session_options = (given() for _ in range(6))


@pytest.fixture
def view(request, backend, metadata, options, migrate, seed, engines):
    yield


@pytest.fixture
def sessionmaker(view, session_options):
    pass


@pytest.fixture
def session(view, sessionmaker):
    yield
""",
)
#: How much slower the last thousand may be, how many more functions its tests may call, and how
#: many bytes may come to be in use.
SLOWER, MORE, GROWN = 1.05, 1.01, 5 * 2**20
#: So many tests run in turn.
_TURN = 10


@dataclasses.dataclass(frozen=True)
class Growth:
    """What was different at the end of a run from what it was after two thousand tests.

    Args:
        time: Of the last thousand tests, as a ratio to the second: the median of the ratios of
            what ran in turns.
        calls: The same of how many functions a test calls, which noise hardly touches.
        memory: In bytes.
        threads: More than there were.
        files: More descriptors than were open.
    """

    time: float
    calls: float
    memory: int
    threads: int
    files: int

    @classmethod
    def of(cls, run: Run, again: Run, size: int) -> Growth:
        """Of a run of ten times *size* tests, and another one of the first two *size* of them."""
        early, late = (run.samples[n] for n in (1, -1))
        ratios = [
            statistics.median(last) / statistics.median(second)
            for last, second in zip(_blocks(run, size), _blocks(again, size), strict=True)
        ]
        return cls(
            statistics.median(ratios),
            late.calls / early.calls,
            *(
                getattr(late, name) - getattr(early, name)
                for name in ("memory", "threads", "files")
            ),
        )


def _blocks(run: Run, size: int) -> Iterator[tuple[float, ...]]:
    """The last *size* tests, a turn each."""
    # The first tests of a run are not among those that were measured.
    last = run.tests[-size:]
    return (last[n : n + _TURN] for n in range(0, size, _TURN))


def measure(word: str, isolation: str, size: int, servers: Servers) -> Growth:
    """Run ten times *size* tests on *word*; without a word: tests without a database."""
    source = ASYNCDB if word else _WITHOUT
    arguments = (f"--asyncdb-isolation={isolation}",) if word else ()
    if word:
        servers.url(word)  # started before two runs want it
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        pipes = {name: f"{folder}/{name}.pipe" for name in ("long", "short")}
        for pipe in pipes.values():
            os.mkfifo(pipe)

        def start(name: str, other: str, tests: int) -> Run:
            variant = Variant(
                name,
                source,
                arguments=arguments,
                tests=tests,
                sample=size,
                turns=Turns(pipes[name], pipes[other], tests - size, tests, _TURN),
            )
            try:
                return Project(Path(folder, name), variant, word, size, servers).run()
            finally:
                _give(pipes[other], size)  # nobody waits for a run that has failed

        with contextlib.ExitStack() as stack:
            for pipe in pipes.values():  # what is put in before both runs have opened it stays
                stack.callback(os.close, os.open(pipe, os.O_RDWR))
            _give(pipes["short"], 1)
            with ThreadPoolExecutor(2) as pool:
                run = pool.submit(start, "long", "short", 10 * size)
                again = pool.submit(start, "short", "long", 2 * size)
            return Growth.of(run.result(), again.result(), size)


def _give(pipe: str, turns: int) -> None:
    with Path(pipe).open("wb") as file:
        file.write(b"." * turns)


def row(isolation: str, word: str, growth: Growth, without: Growth) -> tuple[str, ...]:
    """A line of the table."""
    memory = growth.memory - without.memory
    steady = growth.threads <= 0 and growth.files <= 0 and memory <= GROWN and growth.calls <= MORE
    return (
        isolation,
        word,
        f"{growth.time:.2f} ×",
        f"{growth.calls:.3f} ×",
        f"{memory / 2**20:+.1f} MiB",
        f"{growth.threads:+d}",
        f"{growth.files:+d}",
        "ok" if steady and growth.time <= SLOWER else "missed",
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flat", description=__doc__)
    parser.add_argument("--words", default=WORDS, help="as in --asyncdb (%(default)s)")
    parser.add_argument("--isolation", default="rollback", help="or reset, or both (%(default)s)")
    parser.add_argument("--size", type=int, default=1000, help="a tenth of a run (%(default)s)")
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="write the table into a page")
    options = parser.parse_args(arguments)
    rows = []
    failed = False
    with Servers({}) as servers:
        without = measure("", "", options.size, servers)
        for word in options.words.split(","):
            for isolation in options.isolation.split(","):
                print(f"{isolation} {word}", file=sys.stderr, flush=True)
                try:
                    growth = measure(word, isolation, options.size, servers)
                except (AsyncdbError, RunFailed) as error:
                    print(error, file=sys.stderr, flush=True)
                    failed = True
                else:
                    rows.append(row(isolation, word, growth, without))
        command = shlex.join(["python", "-m", "benchmarks.flat", *arguments])
        around = report.surroundings(command, servers.versions())
    print(report.table(rows, HEADER))
    if options.docs:
        report.write_docs(options.docs, report.table(rows, HEADER), around, "flat")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
