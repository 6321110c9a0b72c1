"""Ten thousand tests in one run: ``python -m benchmarks.flat``; does anything grow with them?

pytest keeps three reports of each test, and of each fixture that depends on one with a wider scope
its request. What a run grows by whose tests have fixtures like ours that do nothing is therefore
measured too, and taken off.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.projects import ASYNCDB, Source
from benchmarks.runs import Project, Run, RunFailed, Variant
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


@dataclasses.dataclass(frozen=True)
class Growth:
    """What was different at the end of a run from what it was after two thousand tests.

    Args:
        time: The median of the last thousand tests, as a ratio to that of the second.
        calls: The same of how many functions a test calls, which no noise touches.
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
    def of(cls, run: Run, size: int) -> Growth:
        """Of a run of ten times *size* tests."""
        early, late = (run.samples[n] for n in (1, -1))
        second, last = run.tests[size : 2 * size], run.tests[-size:]
        return cls(
            statistics.median(last) / statistics.median(second),
            late.calls / early.calls,
            *(
                getattr(late, name) - getattr(early, name)
                for name in ("memory", "threads", "files")
            ),
        )


def measure(word: str, isolation: str, size: int, servers: Servers) -> Growth:
    """Run ten times *size* tests on *word*; without a word: tests without a database."""
    source = ASYNCDB if word else _WITHOUT
    arguments = (f"--asyncdb-isolation={isolation}",) if word else ()
    variant = Variant("flat", source, arguments=arguments, tests=10 * size, sample=size)
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        run = Project(Path(folder, "flat"), variant, word, size, servers).run()
    return Growth.of(run, size)


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
