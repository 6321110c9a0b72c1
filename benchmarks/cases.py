"""What is measured: a table of cases, each with its variants and its target."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from benchmarks.projects import (
    ASYNCDB,
    ASYNCDB_CONTAINER,
    ASYNCDB_LOCAL,
    CREATE_ALL,
    DATABASES,
    HAND_WRITTEN,
    NO_DATABASE,
    NULL_POOL,
    ONLY_IMPORTS,
    POSTGRESQL,
    SQLA,
    Source,
)
from benchmarks.runs import Run, Variant

ALL = ("sqlite", "postgres", "mysql", "mariadb")
SERVERS = ("postgres", "mysql", "mariadb")


def ratio(values: Sequence[float]) -> float:
    return values[0] / values[1]


def difference(values: Sequence[float]) -> float:
    return values[0] - values[1]


def net_ratio(values: Sequence[float]) -> float:
    """Of the first pair, each without what the second pair's run took."""
    return (values[0] - values[2]) / (values[1] - values[3])


def per_test(run: Run) -> float:
    return statistics.median(run.tests)


def fastest(run: Run) -> float:
    """The tenth percentile of the tests: what other programs on the machine disturb least."""
    return tenth(run.tests)


def tenth(values: Sequence[float]) -> float:
    """The value that a tenth of them are below."""
    return sorted(values)[len(values) // 10]


#: What is taken from a run besides the time of a test.
until_ready: Callable[[Run], float] = attrgetter("ready")
calls: Callable[[Run], float] = attrgetter("calls")

#: Calls of functions that take ten milliseconds: on a quiet machine 65,000 took 25.
INSTALLED = 25_000


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the table, for each word that it is for.

    Args:
        key: Its name in ``--cases``.
        what: Its name in the table.
        variants: What is compared; they run in turns.
        target: What is to be reached at most; None: shown for comparison.
        other_targets: The same on backends that have another one.
        backends: What it is measured on; empty: once, without a database.
        once: On the first driver of each of these only: what is measured is the server's.
        value: What is taken from each run: seconds, or a number of calls.
        compare: The values of one round to what is reached.
        unit: Of what is reached: ``×``, ``ms``, ``s`` or ``calls``.
        rounds: So many times the rounds of the command line: for what one run measures once.
        most: No more rounds than this: for what takes long.
        paired: The second variant are the tests between those of the first one, in one process;
            times are the processor's, for what is too small to be seen among those of a clock.
        built: How often each variant has to build the schema; empty: that is not looked at.
        needs: What the case is left out without: packages, or ``Docker``.
    """

    key: str
    what: str
    variants: tuple[Variant, ...]
    target: float | None = None
    other_targets: Mapping[str, float] = dataclasses.field(default_factory=dict)
    backends: tuple[str, ...] = ALL
    once: bool = False
    value: Callable[[Run], float] = per_test
    compare: Callable[[Sequence[float]], float] = ratio
    unit: str = "×"
    rounds: int = 1
    most: int | None = None
    paired: bool = False
    built: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()


def ours(name: str, isolation: str = "rollback", **options: object) -> Variant:
    """A variant with this plugin."""
    return dataclasses.replace(
        Variant(name, ASYNCDB, arguments=(f"--asyncdb-isolation={isolation}",)),
        **options,  # type: ignore[arg-type]
    )


def _against(key: str, source: Source, name: str, target: float | None, **options: object) -> Case:
    """``rollback`` on one loop per test against another way to do it."""
    # That one is so slow that few of its tests say enough.
    tables, tests = (50, 25) if source is CREATE_ALL else (5, None)
    return dataclasses.replace(
        Case(
            key,
            f"rollback, one loop per test : {name}",
            (
                ours("rollback", loop="function", tables=tables, tests=tests),
                Variant(name, source, loop="function", tables=tables, tests=tests),
            ),
            target,
        ),
        **options,  # type: ignore[arg-type]
    )


def _by_loop(
    key: str,
    isolation: str,
    target: float,
    backends: tuple[str, ...],
    other_targets: Mapping[str, float] = {},
) -> list[Case]:
    """A strategy against ``rollback``, on either setting of the loop; one has the target."""
    return [
        Case(
            f"{key}-{loop}" if loop == "function" else key,
            f"{isolation} : rollback, 50 tables, 2 dirty, {text}",
            (
                ours(isolation, isolation, loop=loop, tables=50),
                ours("rollback", loop=loop, tables=50),
            ),
            target if loop == "session" else None,
            other_targets if loop == "session" else {},
            backends,
        )
        for loop, text in (("session", "one loop"), ("function", "one loop per test"))
    ]


def _visible(
    key: str,
    how: str,
    backends: tuple[str, ...],
    target: float | None,
    *,
    every: int = 1,
    pause: float = 0.0,
) -> Case:
    """What a test of its own copy takes longer than the same test in ``rollback``."""
    plain = ours("rollback", tables=50, every=every, pause=pause, tests=30 if pause else None)
    return Case(
        key,
        f"copy - rollback, 50 tables, {how}",
        (dataclasses.replace(plain, name="copy", mark='asyncdb(isolation="copy")'), plain),
        target,
        backends=backends,
        compare=difference,
        unit="ms",
    )


def _start(
    key: str, state: str, target: float, *arguments: str, warm: bool = False, reuse: bool = False
) -> Case:
    plain = Variant("SQLite", ASYNCDB_LOCAL, tables=50, tests=1, word="sqlite")
    server = dataclasses.replace(
        plain, name="server", word="", warm=warm or reuse, arguments=arguments
    )
    return Case(
        key,
        f"start-up, local server, {state} - the same on SQLite",
        (server, plain),
        target,
        backends=("postgres",),
        once=True,
        value=until_ready,
        compare=difference,
        unit="s",
        rounds=2,
        # The run before the measured ones has built it, and the server is still there.
        built=(0, 1) if reuse else (),
    )


def _size(tables: int, target: float | None) -> Case:
    return Case(
        f"tables-{tables}",
        f"rollback, {tables} tables : 5 tables",
        (ours(f"{tables} tables", tables=tables), ours("5 tables")),
        target,
        most=1,
    )


def _noting(name: str) -> Variant:
    """Of two tests one notes nothing."""
    variant = ours(name, every=2, times=4)
    return dataclasses.replace(variant, arguments=(*variant.arguments, "-p", "benchmark_blind"))


def _workers(source: Source, number: int, name: str) -> Variant:
    arguments = ("-n", str(number), "--dist=load")
    return Variant(name, source, arguments=arguments, tables=50, tests=8 * number)


CASES = (
    Case(
        "rollback",
        "rollback, one loop : best hand-written fixture",
        (ours("rollback"), Variant("hand-written", HAND_WRITTEN)),
        1.0,
    ),
    Case(
        "loops",
        "rollback, one loop per test : one loop",
        (ours("loop per test", loop="function"), ours("one loop")),
        1.3,
    ),
    Case(
        "seeing",
        "rollback, noting statements and times for reports : without",
        (_noting("noting"), _noting("blind")),
        1.03,
        paired=True,
    ),
    _against(
        "pytest-sqla",
        SQLA,
        "pytest-sqla",
        0.7,
        other_targets={"sqlite": 0.9},
        needs=("pytest-sqla",),
    ),
    _against("null-pool", NULL_POOL, "NullPool", None, backends=SERVERS),
    _against("create-all", CREATE_ALL, "create_all per test, 50 tables", None),
    *_by_loop("reset", "reset", 1.5, ALL, {"postgres": 1.3, "mysql": 2.0}),
    Case(
        "reset-ids",
        "reset, ids go on : rollback, 50 tables, 2 dirty, one loop",
        (
            ours("reset", "reset", tables=50, mark="asyncdb(reset_sequences=False)"),
            ours("rollback", tables=50),
        ),
        1.5,
        backends=("mysql",),
        once=True,
    ),
    _visible("copy", "tests of 0.1 s", ("postgres",), 0.010, pause=0.1),
    _visible("copy-dense", "one after the other", ("postgres",), None),
    _visible("copy-mixed", "each tenth test", ("postgres",), None, every=10),
    _visible("copy-mysql", "tests of 0.1 s", ("mysql", "mariadb"), None, pause=0.1),
    *_by_loop("copy-sqlite", "copy", 2.0, ("sqlite",)),
    Case(
        "pytest-postgresql",
        "copy : pytest-postgresql's template, 50 tables",
        (ours("copy", "copy", tables=50), Variant("pytest-postgresql", POSTGRESQL, tables=50)),
        backends=("postgres",),
        most=1,
        needs=("pytest-postgresql",),
    ),
    _start("start", "cold", 1.2),
    _start("start-warm", "warm cache", 0.4, warm=True),
    _start("start-reuse", "--asyncdb-reuse", 0.1, "--asyncdb-reuse", reuse=True),
    Case(
        "start-container",
        "start-up, container : pytest-databases",
        (
            Variant("container", ASYNCDB_CONTAINER, tables=50, tests=1),
            Variant("pytest-databases", DATABASES, tables=50, tests=1),
        ),
        backends=("postgres",),
        value=until_ready,
        needs=("Docker", "pytest-databases"),
    ),
    Case(
        "start-reuse-container",
        "start-up, container, --asyncdb-reuse : a new one",
        (
            Variant(
                "kept",
                ASYNCDB_CONTAINER,
                tables=50,
                tests=1,
                warm=True,
                arguments=("--asyncdb-reuse",),
            ),
            Variant("new", ASYNCDB_CONTAINER, tables=50, tests=1),
        ),
        backends=SERVERS,
        value=until_ready,
        built=(0, 1),
        needs=("Docker",),
    ),
    Case(
        "installed",
        "a run without database tests, plugin on - off",
        (
            Variant("on", dataclasses.replace(NO_DATABASE, plugin="asyncdb"), tests=1, calls=True),
            Variant("off", NO_DATABASE, tests=1, calls=True),
        ),
        INSTALLED,
        backends=(),
        value=calls,
        compare=difference,
        unit="calls",
    ),
    Case(
        "workers",
        "set-up with -n 8 : -n 1, without the workers' own start",
        (
            _workers(ASYNCDB, 8, "-n 8"),
            _workers(ASYNCDB, 1, "-n 1"),
            _workers(ONLY_IMPORTS, 8, "-n 8, imports only"),
            _workers(ONLY_IMPORTS, 1, "-n 1, imports only"),
        ),
        1.3,
        backends=SERVERS,
        once=True,
        value=until_ready,
        compare=net_ratio,
        most=1,
        built=(1, 1, 0, 0),
    ),
    _size(50, None),
    _size(500, 1.1),  # "unchanged", with room for noise
)
