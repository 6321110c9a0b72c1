"""A plan's fingerprint is equal wherever the same would be built."""

from __future__ import annotations

import importlib
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Enum, ForeignKey, Integer, MetaData, Table
from sqlalchemy.dialects import postgresql

from pytest_asyncdb._databases.fingerprint import Fingerprint
from pytest_asyncdb._databases.plan import SchemaPlan
from pytest_asyncdb.abc import Backend
from pytest_asyncdb.backends.postgres import Postgres


def metadata(*names: str) -> MetaData:
    made = MetaData()
    Table("things", made, *(Column(name, Integer, index=True) for name in names))
    return made


def fingerprint(made: MetaData) -> str:
    return Fingerprint(SchemaPlan((made,)), postgresql.dialect(), {}).of_run()


def test_the_order_of_a_tables_indexes_does_not_count() -> None:
    """SQLAlchemy keeps them in a set, and xdist's workers must not each build the schema."""
    kept = [metadata("a", "b", "c", "d") for _ in range(20)]  # at 20 times four addresses
    orders = {tuple(str(i.name) for i in one.tables["things"].indexes) for one in kept}
    assert len(orders) > 1  # control: the order does differ
    assert len(set(map(fingerprint, kept))) == 1


def linked(enum: str = "a") -> MetaData:
    made = MetaData()
    for name in "abcd":
        Table(name, made, Column("id", Integer, primary_key=True))
    keys = [ForeignKey(f"{name}.id") for name in "abcd"]
    Table("things", made, Column("id", Integer, *keys), Column("kind", Enum(enum, "b", name="k")))
    return made


def test_the_order_of_a_columns_foreign_keys_does_not_count() -> None:
    kept = [linked() for _ in range(20)]
    assert len({repr(one.tables["things"]) for one in kept}) > 1  # control
    assert len(set(map(fingerprint, kept))) == 1
    assert fingerprint(linked("c")) != fingerprint(kept[0])


def test_one_more_index_counts() -> None:
    """Control: indexes are part of the fingerprint."""
    assert fingerprint(metadata("a", "b")) != fingerprint(metadata("a", "b", "c"))


def seeded(*seeds: Any) -> str:
    plan = SchemaPlan(seeds=seeds)
    return Fingerprint(plan, postgresql.dialect(), {}).of_run()


def lasting(plan: SchemaPlan) -> str | None:
    return Fingerprint(plan, postgresql.dialect(), {}).lasting()


def calls_itself(depth: int) -> Any:
    async def seed(session: Any, left: int = depth) -> None:
        if left:
            await seed(session, left - 1)

    return seed


def test_a_seed_may_call_itself() -> None:
    """An inner function that does encloses itself."""
    assert seeded(calls_itself(2)) == seeded(calls_itself(2))
    assert seeded(calls_itself(2)) != seeded(calls_itself(3))
    assert lasting(SchemaPlan(seeds=(calls_itself(2),))) is not None


def test_a_list_may_hold_itself() -> None:
    names: list[Any] = ["ada"]
    names.append(names)

    def seed(session: Any) -> None:
        session.add_all(names)

    assert seeded(seed) == seeded(seed)


def test_a_seed_may_enclose_a_name_that_is_bound_later() -> None:
    """Its value is not known yet, so the template must not stay."""

    def make() -> tuple[str, str | None]:
        def seed(session: Any) -> None:
            helper(session)

        found = seeded(seed), lasting(SchemaPlan(seeds=(seed,)))

        def helper(session: Any) -> None: ...

        return found

    assert make() == make()
    assert make()[1] is None


def test_two_seeds_of_one_line_differ() -> None:
    one, other = lambda session: session.add(1), lambda session: session.add(2)
    assert seeded(one) != seeded(other)


def test_the_values_that_a_seed_encloses_count() -> None:
    def make(name: str) -> Any:
        return lambda session: session.add(name)

    assert seeded(make("ada")) == seeded(make("ada"))
    assert seeded(make("ada")) != seeded(make("bob"))


def seed_of(value: object) -> tuple[dict[str, object], Any]:
    """A seed of a module of its own, and the module's names; the code is always the same."""
    names: dict[str, object] = {"__name__": "conftest", "VALUE": value, "other": object()}
    exec("def make():\n    return VALUE\n\ndef seed(session):\n    return make(), other", names)
    return names, names["seed"]


def test_the_values_of_its_module_that_a_seed_names_count() -> None:
    """Also by way of a function of the module; an object without words does not."""
    number = uuid.uuid4()
    equal = [seeded(seed_of(number)[1]) for _ in range(2)]
    assert equal[0] == equal[1]
    assert seeded(seed_of(uuid.uuid4())[1]) != equal[0]


def test_what_a_seed_changes_in_its_module_does_not_count() -> None:
    names, seed = seed_of([])
    before = seeded(seed)
    names["VALUE"].append(1)  # type: ignore[attr-defined]
    assert seeded(seed) == before


def test_what_a_named_file_holds_counts(tmp_path: Path) -> None:
    """For templates that stay; within a run it is the same file."""
    file = tmp_path / "schema.sql"
    file.write_text("CREATE TABLE one (a integer)")
    plan = SchemaPlan(inputs=(file,))
    before = lasting(plan)
    assert lasting(plan) == before
    assert lasting(SchemaPlan()) != before
    file.write_text("CREATE TABLE one (b integer)")
    assert lasting(plan) != before
    file.unlink()
    assert lasting(plan) != before


def test_the_module_of_a_seed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed calls other functions of it."""
    path = tmp_path / "seeds_of_a_test.py"
    text = "NAMES = ['ada']\ndef seed(session):\n    session.add_all(NAMES)\n"
    path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    plan = SchemaPlan(seeds=(importlib.import_module("seeds_of_a_test").seed,))
    before = lasting(plan)
    path.write_text(text.replace("ada", "bob"))
    assert lasting(plan) != before
    monkeypatch.delitem(sys.modules, "seeds_of_a_test")


def test_an_object_without_a_description_lasts_for_the_run_only() -> None:
    class Seed:
        def __call__(self, session: Any) -> None: ...

    seed = Seed()
    assert seeded(seed) == seeded(seed)
    assert seeded(seed) != seeded(Seed())
    assert lasting(SchemaPlan(seeds=(seed,))) is None


def test_the_hook_of_a_backend_counts() -> None:
    """``after_create`` shapes the template as a migration does."""

    def hook(name: str) -> Any:
        async def after_create(self: Any, sql: Any, server: Any, extensions: Any) -> None:
            await sql.script([name])

        return after_create

    def hashes(hook: Any) -> tuple[str, str | None]:
        found = Fingerprint(SchemaPlan(empty=True), postgresql.dialect(), {}, hook)
        return found.of_run(), found.lasting()

    assert hashes(hook("a")) == hashes(hook("a"))
    assert not {*hashes(hook("a"))} & {*hashes(hook("b"))}
    assert not {*hashes(Backend.after_create)} & {*hashes(Postgres.after_create)}
