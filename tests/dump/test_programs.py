"""Random programs of rows, commits, session state and DDL leave nothing, in every strategy."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest
from dump.programs import DDL, DRIVER, DUMP, ENDS, EXPECTED, ROWS, SCHEMA, STATE, Program, Step
from dump.stage import REPORTED, Stage, open_stage
from fix_servers import Servers, Target
from fix_suite import COMPLETE, EXAMPLES, PARTS
from hypothesis import HealthCheck, Phase, event, given, seed, settings
from hypothesis import strategies as st

from pytest_asyncdb import build_engine
from pytest_asyncdb.isolation.copy import Copy
from pytest_asyncdb.isolation.reset import Reset
from pytest_asyncdb.isolation.rollback import Rollback

STRATEGIES = {"rollback": Rollback, "reset": Reset, "copy": Copy}
#: How many of the programs each strategy gets: a copy costs several times as much as a rollback.
SHARE = {"rollback": 32, "reset": 16, "copy": 2}

#: The session of the next test, and its database from outside.
Seen = tuple[list[str], list[str]]

NUMBERS = st.integers(1, 4)


def programs(backend: str) -> st.SearchStrategy[tuple[list[Step], bool]]:
    """Two to eight steps, and whether the connection is closed at the end."""

    def steps(words: Any) -> st.SearchStrategy[Step]:
        return st.tuples(st.sampled_from(list(words)), NUMBERS)

    raw = st.tuples(st.sampled_from([DRIVER + word for word in STATE[backend]]), NUMBERS)
    work = st.one_of(*[steps(ROWS), steps(ENDS), steps(STATE[backend])] * 3, raw)
    plain = st.lists(work, min_size=2, max_size=8)
    changing = st.lists(st.one_of(work, steps(DDL[backend])), min_size=2, max_size=8)
    return st.tuples(st.one_of(plain, plain, changing), st.booleans())


@pytest.mark.everyday("sqlite", ("postgres+asyncpg", "rollback"), ("postgres+asyncpg", "reset"))
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_random_programs_leave_nothing(
    servers: Servers, target: Target, strategy: str, part: int
) -> None:
    """Catalogs, rows, and the session of the next test's connection are those of the start."""
    backend = target.backend
    words = {**ROWS, **STATE[backend], **DDL[backend]}
    assert len(words) == len(ROWS) + len(STATE[backend]) + len(DDL[backend])
    program = Program(backend, words, f"{os.getpid()}")
    with (
        contextlib.ExitStack() as connections,
        open_stage(target, servers, SCHEMA[backend], STRATEGIES[strategy]) as stage,
    ):
        look = _Look(stage, program, counters=strategy != "rollback")
        connections.callback(look.close)
        expected = look()

        @seed(part)
        @settings(
            max_examples=EXAMPLES * SHARE[strategy] // len(PARTS) if COMPLETE else EXAMPLES,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(programs(backend))
        def check(drawn: tuple[list[Step], bool]) -> None:
            steps, closing = drawn
            breaches = stage.play("program", lambda engine: program.play(engine, steps, closing))
            assert [one for one in breaches if not isinstance(one, REPORTED)] == []
            event("reported" if breaches else "nothing to report")
            found = look()
            if found != expected:
                stage.renew()  # the next program, maybe a smaller one, must not find it
            assert found == expected, _differing(found, expected)

        check()


@pytest.mark.everyday("sqlite")
def test_a_plain_engine_leaves_most_of_it(servers: Servers, target: Target) -> None:
    """Control: what a session sets and commits is there for the next one of the same pool."""
    backend = target.backend
    program = Program(backend, STATE[backend], f"{os.getpid()}")
    left = []
    with open_stage(target, servers, SCHEMA[backend], Copy) as stage:

        async def compare(word: str) -> None:
            engine = build_engine(stage.database.url, pool_size=1, max_overflow=0)
            try:
                before = await program.look(engine)
                await program.play(engine, [(word, 1), ("commit", 1)], closing=True)
                if await program.look(engine) != before:
                    left.append(word)
            except EXPECTED:  # so much is left that nothing works
                left.append(word)
            finally:
                await engine.dispose()

        for word in STATE[backend]:
            stage.runner.run(compare(word))
    assert len(left) > len(STATE[backend]) / 2


def _differing(found: Seen, expected: Seen) -> list[tuple[Any, Any]]:
    pairs = zip(found, expected, strict=True)
    return [(sorted(set(one) - set(other)), sorted(set(other) - set(one))) for one, other in pairs]


class _Look:
    """What the next test finds: its session, and its database from outside."""

    def __init__(self, stage: Stage, program: Program, counters: bool) -> None:
        self.stage = stage
        self.program = program
        self.counters = counters
        self.database = ""
        self.connection: Any = None

    def __call__(self) -> Seen:
        session: list[str] = []
        found: list[str] = []

        async def work(engine: Any) -> None:
            session.extend(await self.program.look(engine))
            found.extend(self.outside(engine.url.database))

        assert self.stage.play("look", work) == []
        return session, found

    def outside(self, database: str) -> list[Any]:
        """A dump over a connection that is kept as long as the database is."""
        if database != self.database:
            self.close()
            self.connection = self.stage.target.observer.connect(database)
            self.database = database
        return DUMP[self.stage.target.backend](self.connection.cursor(), self.counters)

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
