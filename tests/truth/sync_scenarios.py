"""Sync code: sessions, connections, errors, threads, fixtures and factories."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import factory
import limits
from factory.alchemy import SQLAlchemyModelFactory
from sqlalchemy import delete, event, func, insert, inspect, select, text, update
from sqlalchemy.orm import Session, scoped_session, selectinload
from stage import SERVERS, Item, User, Versioned
from sync_stage import SyncStage, sync_scenario

# Commit.


@sync_scenario()
def a_committed_object_is_seen_by_the_next_session(stage: SyncStage) -> None:
    with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        session.commit()
    with stage.sessions() as session:
        stage.note(session.get(User, 1).name)


@sync_scenario()
def what_is_not_committed_is_not_seen_later(stage: SyncStage) -> None:
    with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        session.flush()
        stage.note(session.in_transaction())
    stage.note(stage.users())


@sync_scenario()
def begin_block_commits(stage: SyncStage) -> None:
    with stage.sessions.begin() as session:
        session.add(User(key=1, name="ada", items=[Item(key=1, label="x")]))
    stage.note(stage.users())


@sync_scenario()
def several_commits_in_one_session(stage: SyncStage) -> None:
    with stage.sessions() as session:
        for n in range(4):
            session.add(User(key=n, name=f"u{n}"))
            session.commit()
        session.add(User(key=9, name="lost"))
        session.rollback()
    stage.note(stage.users())


@sync_scenario()
def a_connection_commits_as_it_goes(stage: SyncStage) -> None:
    with stage.engine.connect() as connection:
        connection.execute(insert(User).values(key=1, name="kept", score=0))
        connection.commit()
        connection.execute(insert(User).values(key=2, name="lost", score=0))
    with stage.engine.begin() as connection:
        connection.execute(insert(User).values(key=3, name="begun", score=0))
    stage.note(stage.users())


@sync_scenario()
def autocommit_needs_no_commit(stage: SyncStage) -> None:
    engine = stage.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(insert(User).values(key=1, name="ada", score=0))
        connection.rollback()
    stage.note(stage.users())


# Rollback.


@sync_scenario()
def begin_block_rolls_back_on_error(stage: SyncStage) -> None:
    with stage.attempting("block"), stage.sessions.begin() as session:
        session.add(User(key=1, name="ada"))
        session.flush()
        raise ValueError
    stage.note(stage.users())


@sync_scenario()
def rollback_then_work_again(stage: SyncStage) -> None:
    with stage.sessions() as session:
        session.add(User(key=1, name="lost"))
        session.flush()
        session.rollback()
        session.add(User(key=1, name="kept"))
        session.commit()
    stage.note(stage.users())


@sync_scenario()
def rollback_restores_attributes(stage: SyncStage) -> None:
    stage.add("ada")
    with stage.sessions() as session:
        user = session.get(User, 1)
        user.name = "other"
        session.flush()
        session.rollback()
        stage.note(user.name, session.dirty)


@sync_scenario()
def a_deleted_object_is_back_after_rollback(stage: SyncStage) -> None:
    stage.add("ada")
    with stage.sessions() as session:
        user = session.get(User, 1)
        session.delete(user)
        session.flush()
        stage.note(session.scalar(select(func.count(User.key))), user in session)
        session.rollback()
        stage.note(session.scalar(select(func.count(User.key))), user in session)


@sync_scenario()
def bulk_statements_are_rolled_back(stage: SyncStage) -> None:
    stage.add("ada", "bob")
    with stage.sessions() as session:
        stage.note(session.execute(update(User).values(score=7)).rowcount)
        stage.note(session.execute(delete(User).where(User.key == 2)).rowcount)
        session.rollback()
    stage.note(stage.users())


# Nested.


@sync_scenario()
def nested_commits(stage: SyncStage) -> None:
    with stage.sessions.begin() as session:
        session.add(User(key=1, name="outer"))
        with session.begin_nested():
            session.add(User(key=2, name="inner"))
    stage.note(stage.users())


@sync_scenario()
def error_in_nested_keeps_the_outer_work(stage: SyncStage) -> None:
    with stage.sessions.begin() as session:
        session.add(User(key=1, name="outer"))
        session.flush()
        with stage.attempting("nested"), session.begin_nested():
            session.add(User(key=2, name="outer"))
            session.flush()
        session.add(User(key=3, name="after"))
    stage.note(stage.users())


@sync_scenario()
def nested_in_nested(stage: SyncStage) -> None:
    with stage.sessions.begin() as session:
        session.add(User(key=1, name="a"))
        with session.begin_nested():
            session.add(User(key=2, name="b"))
            inner = session.begin_nested()
            session.add(User(key=3, name="c"))
            inner.rollback()
    stage.note(stage.users())


@sync_scenario()
def nested_is_left_open_at_commit(stage: SyncStage) -> None:
    with stage.sessions() as session:
        session.add(User(key=1, name="a"))
        session.flush()
        nested = session.begin_nested()
        session.add(User(key=2, name="b"))
        session.commit()
        stage.note(nested.is_active, session.in_nested_transaction())
    stage.note(stage.users())


@sync_scenario()
def a_savepoint_of_a_connection(stage: SyncStage) -> None:
    with stage.engine.begin() as connection:
        connection.execute(insert(User).values(key=1, name="outer", score=0))
        savepoint = connection.begin_nested()
        connection.execute(insert(User).values(key=2, name="inner", score=0))
        savepoint.rollback()
        stage.note(savepoint.is_active)
    stage.note(stage.users())


# Errors.


@sync_scenario()
def duplicate_key_then_rollback(stage: SyncStage) -> None:
    stage.add("ada")
    with stage.sessions() as session:
        session.add(User(key=1, name="other"))
        stage.attempt("flush", session.flush)
        session.rollback()
        session.add(User(key=2, name="other"))
        stage.attempt("commit", session.commit)
    stage.note(stage.users())


@sync_scenario()
def duplicate_key_without_rollback(stage: SyncStage) -> None:
    stage.add("ada")
    with stage.sessions() as session:
        session.add(User(key=1, name="other"))
        stage.attempt("flush", session.flush)
        stage.attempt("next", session.execute, select(User.name))
        stage.attempt("commit", session.commit)
        stage.note(session.is_active)
    stage.note(stage.users())


@sync_scenario()
def foreign_key_violated(stage: SyncStage) -> None:
    with stage.sessions() as session:
        session.add(Item(key=1, user_key=99, label="x"))
        stage.attempt("commit", session.commit)
    stage.note(stage.users())


@sync_scenario()
def the_statement_after_an_error_on_a_connection(stage: SyncStage) -> None:
    """PostgreSQL refuses it, the others go on."""
    stage.add("ada")
    with stage.engine.connect() as connection:
        connection.execute(insert(User).values(key=2, name="bob", score=0))
        again = insert(User).values(key=1, name="x", score=0)
        stage.attempt("bad", connection.execute, again)
        with stage.attempting("good"):
            connection.execute(insert(User).values(key=3, name="eve", score=0))
        stage.attempt("commit", connection.commit)
    stage.note(stage.users())


@sync_scenario()
def a_table_that_is_not_there(stage: SyncStage) -> None:
    with stage.sessions() as session:
        stage.attempt("select", session.execute, text("SELECT * FROM nowhere"))
        session.rollback()
        stage.attempt("next", session.scalar, select(func.count(User.key)))


@sync_scenario()
def a_stale_version(stage: SyncStage) -> None:
    with stage.sessions.begin() as session:
        session.add(Versioned(key=1, value=1))
    with stage.sessions() as session:
        row = session.get(Versioned, 1)
        session.commit()
        with stage.sessions.begin() as other:
            other.get(Versioned, 1).value = 2
        row.value = 3
        stage.attempt("commit", session.commit)


@sync_scenario()
def results_of_the_wrong_number(stage: SyncStage) -> None:
    stage.add("ada", "bob")
    with stage.sessions() as session:
        stage.attempt("two", session.scalars(select(User.name)).one)
        stage.attempt("none", session.scalars(select(User).where(User.key == 9)).one)
        stage.attempt("get", session.get_one, User, 9)


@sync_scenario()
def begin_twice(stage: SyncStage) -> None:
    with stage.sessions() as session:
        session.begin()
        stage.attempt("session", session.begin)
    with stage.engine.connect() as connection:
        connection.begin()
        stage.attempt("connection", connection.begin)


@sync_scenario()
def what_is_closed(stage: SyncStage) -> None:
    connection = stage.engine.connect()
    connection.close()
    stage.attempt("connection", connection.execute, select(User))
    result = None
    with stage.engine.connect() as connection:
        result = connection.execute(select(User))
        result.close()
        stage.attempt("result", result.all)


# Engines and results.


@sync_scenario()
def a_stream_that_is_left_early(stage: SyncStage) -> None:
    stage.add(*(f"u{n:02}" for n in range(30)))
    with stage.sessions() as session:
        query = select(User.name).order_by(User.key).execution_options(yield_per=4)
        rows = session.scalars(query)
        stage.note(next(rows.partitions()), rows.fetchmany(2))
        rows.close()
        stage.note(session.scalar(select(func.count(User.key))))


@sync_scenario()
def many_rows_in_one_call(stage: SyncStage) -> None:
    with stage.engine.begin() as connection:
        rows = [{"key": n, "name": f"u{n}", "score": n} for n in range(5)]
        connection.execute(insert(User), rows)
        stage.note(connection.execute(update(User).where(User.score > 2).values(score=0)).rowcount)
    stage.note(stage.users())


@sync_scenario()
def the_inspector_sees_the_tables(stage: SyncStage) -> None:
    inspector = inspect(stage.engine)
    stage.note(sorted(name for name in inspector.get_table_names() if name.startswith("truth_")))
    stage.note([column["name"] for column in inspector.get_columns("truth_user")])


@sync_scenario()
def a_lazy_relationship_loads_on_access(stage: SyncStage) -> None:
    with stage.sessions.begin() as session:
        session.add(User(key=1, name="ada", items=[Item(key=1, label="x"), Item(key=2)]))
    with stage.sessions() as session:
        user = session.get(User, 1)
        stage.note([item.label for item in user.items])
        session.expunge_all()
        user = session.scalars(select(User).options(selectinload(User.items))).one()
    stage.note([item.label for item in user.items])


@sync_scenario()
def events_of_a_session(stage: SyncStage) -> None:
    seen: list[str] = []
    with stage.sessions() as session:
        for name in ("after_begin", "after_flush", "after_commit", "after_rollback"):
            event.listen(session, name, lambda *_, name=name: seen.append(name))
        session.add(User(key=1, name="ada"))
        session.commit()
        session.add(User(key=2, name="bob"))
        session.flush()
        session.rollback()
    stage.note(seen)


# Threads.


@sync_scenario()
def a_thread_sees_what_is_committed(stage: SyncStage) -> None:
    stage.add("ada")

    def work() -> None:
        stage.note(stage.users())
        stage.add("bob", start=2)

    stage.in_thread(work)
    stage.note(stage.users())


@sync_scenario()
def threads_commit_at_once(stage: SyncStage) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: stage.add(f"u{n}", start=n), range(9)))
    stage.note(stage.users())


@sync_scenario()
def an_error_in_a_thread_leaves_the_others(stage: SyncStage) -> None:
    stage.add("ada")
    stage.in_thread(lambda: stage.attempt("thread", stage.add, "ada"))
    stage.add("bob", start=2)
    stage.note(stage.users())


@sync_scenario()
def a_session_is_handed_to_a_thread(stage: SyncStage) -> None:
    with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        session.flush()
        stage.in_thread(session.commit)
        session.add(User(key=2, name="lost"))
        session.flush()
        stage.in_thread(session.rollback)
    stage.note(stage.users())


@sync_scenario()
def a_scoped_session_has_one_session_for_each_thread(stage: SyncStage) -> None:
    scoped = scoped_session(stage.sessions)
    own = scoped()

    def work() -> None:
        stage.note(scoped() is own)
        scoped.add(User(key=1, name="thread"))
        scoped.commit()
        scoped.remove()

    stage.in_thread(work)
    scoped.add(User(key=2, name="main"))
    scoped.commit()
    stage.note(scoped() is own)
    scoped.remove()
    stage.note(stage.users())


@sync_scenario()
def sync_code_below_an_event_loop(stage: SyncStage) -> None:
    async def main() -> None:
        stage.add("on the loop")
        await asyncio.to_thread(stage.add, "in a thread", start=2)

    asyncio.run(main())
    stage.note(stage.users())


# Fixtures.


@contextlib.contextmanager
def _rows(stage: SyncStage) -> Iterator[Session]:
    """A fixture with a teardown."""
    with stage.sessions() as session:
        session.add(User(key=1, name="fixture"))
        session.commit()
        yield session
        session.execute(delete(User).where(User.key == 1))
        session.commit()


@sync_scenario()
def a_fixture_removes_its_rows(stage: SyncStage) -> None:
    with _rows(stage):
        stage.add("test", start=2)
        stage.note(stage.users())
    stage.note(stage.users())


@sync_scenario()
def a_fixture_whose_session_the_test_has_spoilt(stage: SyncStage) -> None:
    with stage.attempting("fixture"), _rows(stage) as session:
        session.add(User(key=1, name="again"))
        with contextlib.suppress(Exception):
            session.flush()
    stage.note(stage.users())


# Factories.


def _factory(stage: SyncStage, session: Session, persistence: str) -> type[SQLAlchemyModelFactory]:
    class Meta:
        model = User
        sqlalchemy_session = session
        sqlalchemy_session_persistence = persistence
        sqlalchemy_get_or_create = ("name",)

    members = {"Meta": Meta, "key": factory.Sequence(lambda n: n + 1), "name": "ada"}
    return type("UserFactory", (SQLAlchemyModelFactory,), members)


@sync_scenario()
def a_factory_commits(stage: SyncStage) -> None:
    with stage.sessions() as session:
        users = _factory(stage, session, "commit")
        users(name="ada")
        users.create_batch(2, name="bob")
        session.rollback()
    stage.note(stage.users())


@sync_scenario()
def a_factory_flushes(stage: SyncStage) -> None:
    with stage.sessions() as session:
        user = _factory(stage, session, "flush")()
        stage.note(user.key, session.scalar(select(User.name)))
        session.rollback()
    stage.note(stage.users())


@sync_scenario()
def a_factory_violates_a_constraint(stage: SyncStage) -> None:
    stage.add("ada")
    with stage.sessions() as session:
        users = _factory(stage, session, "commit")
        stage.attempt("twice", lambda: users(key=1, name="bob").name)
        session.rollback()
        stage.attempt("next", lambda: users(key=7, name="eve").name)
    stage.note(stage.users())


# Limits: the same as of the async side.


@sync_scenario(*SERVERS, limits=[limits.OVERLAP])
def a_transaction_does_not_see_another_ones_work(stage: SyncStage) -> None:
    with stage.sessions() as session:
        session.add(User(key=1, name="ada"))
        session.flush()
        stage.note(stage.users())
        session.commit()
    stage.note(stage.users())
