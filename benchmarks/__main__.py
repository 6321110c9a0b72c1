"""The command ``python -m benchmarks``; exit code 1 if anything failed to run."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks import application, measure, report, statements
from benchmarks.cases import CASES
from benchmarks.servers import WORDS, Servers

QUICK = {"words": "sqlite", "tests": 20, "suite_each": 50, "batches": 2}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the targets of pytest-asyncdb against the alternatives.",
    )
    others = [statements.KEY, application.KEY]
    keys = [*(case.key for case in CASES), *others]
    aimed = [*(case.key for case in CASES if case.target is not None), *others]
    add = parser.add_argument
    add("--words", default=WORDS, help="backends with drivers, as in --asyncdb (%(default)s)")
    add("--tests", type=int, default=60, help="tests in each run (%(default)s)")
    add(
        "--suite-each",
        type=int,
        default=5,
        help="of the suite only each of so many tests (%(default)s)",
    )
    add("--rounds", type=int, default=2, help="runs of each variant (%(default)s)")
    add("--batches", type=int, default=5, help="batches of each statement (%(default)s)")
    add("--cases", default=",".join(aimed), help="which, or all; those with a target: %(default)s")
    add(
        "--server",
        action="append",
        default=[],
        metavar="BACKEND=PROVIDER",
        help="where a backend's server comes from: url (ASYNCDB_POSTGRES_URL and so on), "
        "embedded, local, container (the first of these that is there)",
    )
    add("--json", type=Path, metavar="FILE", help="write everything as JSON")
    add(
        "--docs",
        type=Path,
        metavar="PAGE",
        help="write the table into the block of a page, and a plot beside it",
    )
    add("--quick", action="store_true", help="only whether it works: SQLite, few tests")
    options = parser.parse_args(arguments)
    if options.quick:
        for name, value in QUICK.items():
            if getattr(options, name) == parser.get_default(name):
                setattr(options, name, value)
    options.words = options.words.split(",")
    options.cases = keys if options.cases == "all" else options.cases.split(",")
    options.server = dict(word.partition("=")[::2] for word in options.server)
    unknown = sorted(set(options.cases) - set(keys))
    if unknown:
        parser.error(f"unknown cases: {', '.join(unknown)}; there are: {', '.join(keys)}")
    if min(options.tests, options.rounds, options.suite_each, options.batches) < 1:
        parser.error("--tests, --rounds, --suite-each and --batches are at least 1")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    results: list[measure.Result] = []
    with Servers(options.server) as servers:
        for result in _measured(options, servers):
            if result.failed:
                print(result.problem, file=sys.stderr, flush=True)
            results.append(result)
        around = report.surroundings(
            shlex.join(["python", "-m", "benchmarks", *arguments]), servers.versions()
        )
    blocks = {}
    if of_statements := [result for result in results if result.key == statements.KEY]:
        blocks[statements.KEY] = report.statements(of_statements)
    if rows := [report.row(result) for result in results if result.key != statements.KEY]:
        blocks["benchmark"] = report.table(rows)
    print("\n\n".join(blocks.values()))
    if options.json:
        report.write_json(options.json, results, around)
    if options.docs:
        for block, table in blocks.items():
            report.write_docs(options.docs, table, around, block)
        report.plot(options.docs.with_suffix(".svg"), results)
    return int(any(result.failed for result in results))


def _measured(options: argparse.Namespace, servers: Servers) -> Iterator[measure.Result]:
    """Measure everything that was asked for, and say on stderr what comes next."""

    def chosen(key: str, words: Iterable[str]) -> Iterator[str]:
        for word in words if key in options.cases else ():
            print(f"{key} {word}", file=sys.stderr, flush=True)
            yield word

    for case in CASES:
        for word in chosen(case.key, measure.words(case, options.words)):
            yield measure.measure(case, word, options.tests, options.rounds, servers)
    for word in chosen(statements.KEY, options.words):
        yield from statements.measure(word, options.batches, servers)
    for word in chosen(application.KEY, application.words(options.words)):
        yield from application.measure(word, options.suite_each, options.rounds, servers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
