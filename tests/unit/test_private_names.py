"""The private names of pytest and of SQLAlchemy's Engine that the plugin needs are there.

Each text says what breaks without the name; the modules ``*_internals`` are the only places
that use one.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import pytest_asyncdb
from pytest_asyncdb._engines.sqlalchemy_internals import (
    connect_isolation_level,
    drop_listeners,
    json_arguments,
    mapped_state,
    mapped_values,
    root_engine,
    watch_checkouts,
    with_listeners_of,
    without_events,
)
from pytest_asyncdb._run.pytest_internals import has_function_scope, running_fixture

#: Attributes of pytest's objects that begin with an underscore, and imports of its modules.
PRIVATE = re.compile(
    r"\b(?:config|item|node|request|session|metafunc|definition|collector|manager)\._[a-z]\w*"
    r"|\b(?:from|import) _pytest\b|\b_pyfuncitem\b"
)


class Base(DeclarativeBase):
    pass


class Node(Base):
    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"))
    children: Mapped[list[Node]] = relationship()


def test_fixture_scopes_are_found(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """pytest's ``Function._fixtureinfo.name2fixturedefs``."""
    item = request.node
    gone = "pytest has no Function._fixtureinfo any more: change _run/pytest_internals.py"
    assert hasattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs"), gone
    assert has_function_scope(item, "tmp_path")
    assert not has_function_scope(item, "tmp_path_factory")
    assert has_function_scope(item, "request")


@pytest.fixture
def set_up() -> str | None:
    return running_fixture()


def test_the_fixture_that_is_set_up_is_found(set_up: str | None) -> None:
    """The argument ``fixturedef`` of pytest's hook ``pytest_fixture_setup``."""
    gone = "pytest has another pytest_fixture_setup: change _run/pytest_internals.py"
    assert set_up == "'set_up' (scope function)", gone
    assert running_fixture() is None


def test_the_doctor_can_configure_pytest() -> None:
    """pytest's ``Config._do_configure``."""
    gone = "pytest has no Config._do_configure any more: change _run/pytest_internals.py"
    assert hasattr(pytest.Config, "_do_configure"), gone


def test_the_values_of_a_mapped_object_are_found() -> None:
    """SQLAlchemy's ``_sa_instance_state``, and ``_sa_adapter`` of its collections."""
    node = Node(id=1, children=[Node(id=2)])
    gone = "SQLAlchemy has {} no more: change _engines/sqlalchemy_internals.py"
    assert mapped_state(node) is inspect(node), gone.format("_sa_instance_state")
    assert mapped_state("no mapped object") is None
    assert mapped_values(node).keys() == {"id", "children"}
    plain = without_events(node.children)
    assert type(node.children) is not type(plain) is list, gone.format("_sa_adapter")


def test_the_root_of_a_derived_engine_is_found() -> None:
    """SQLAlchemy's ``OptionEngine._proxied``."""
    engine = create_engine("sqlite://")
    derived = engine.execution_options(a=1).execution_options(b=2)
    gone = (
        "SQLAlchemy has no OptionEngine._proxied any more: change _engines/sqlalchemy_internals.py"
    )
    assert root_engine(derived) is engine, gone
    assert root_engine(engine) is engine


def test_the_isolation_level_of_an_engine_is_found() -> None:
    """SQLAlchemy's ``DefaultDialect._on_connect_isolation_level``."""
    engine = create_engine("sqlite://", isolation_level="AUTOCOMMIT")
    gone = (
        "SQLAlchemy has no Dialect._on_connect_isolation_level any more: "
        "change _engines/sqlalchemy_internals.py"
    )
    assert connect_isolation_level(engine.dialect) == "AUTOCOMMIT", gone
    assert connect_isolation_level(create_engine("sqlite://").dialect) is None


def test_a_dialect_has_the_listeners_of_another_one_until_they_are_dropped() -> None:
    """SQLAlchemy's ``Dialect.dispatch`` and ``_has_events``."""
    seen: list[str] = []
    own, other = create_engine("sqlite://"), create_engine("sqlite://")
    event.listen(own, "handle_error", lambda context: seen.append("own"))
    event.listen(other, "handle_error", lambda context: seen.append("other"))
    for engine in (own, other):
        engine.dialect = with_listeners_of(own.dialect, other.dialect)
        with pytest.raises(DBAPIError), engine.connect() as connection:
            connection.exec_driver_sql("SELECT nothing FROM nowhere")
    gone = "SQLAlchemy calls the listeners of a dialect in another way: change _engines/"
    assert seen == ["own", "own"], gone
    assert with_listeners_of(own.dialect, other.dialect).dispatch is own.dialect.dispatch
    drop_listeners(engine.dialect)
    with pytest.raises(DBAPIError), engine.connect() as connection:
        connection.exec_driver_sql("SELECT nothing FROM nowhere")
    assert seen == ["own", "own"]
    for engine in (own, other):
        engine.dispose()


def test_the_functions_of_an_engine_for_json_are_found() -> None:
    """SQLAlchemy's ``Dialect._json_serializer`` and ``_json_deserializer``."""
    given = {"json_serializer": str, "json_deserializer": eval}
    assert json_arguments(create_engine("sqlite://", **given).dialect) == given
    assert json_arguments(create_engine("sqlite://").dialect) == {}


def test_every_checkout_is_seen_before_it_happens() -> None:
    """SQLAlchemy's ``Engine.raw_connection``: connections and raw connections call it. Of several
    that watch, the last one sees them."""
    outer, seen = [], []
    stop_outer = watch_checkouts(outer.append)
    engine = create_engine("sqlite://")
    derived = engine.execution_options(a=1)
    stop = watch_checkouts(seen.append)
    try:
        engine.connect().close()
        derived.connect().close()
        engine.raw_connection().close()
    finally:
        stop()
    engine.connect().close()
    stop_outer()
    engine.connect().close()
    engine.dispose()
    assert outer == [engine]
    assert seen == [engine, derived, engine], (
        "Engine.raw_connection is not called for every checkout any more: "
        "change _engines/sqlalchemy_internals.py"
    )


def test_private_names_of_pytest_stand_in_one_module() -> None:
    """Everywhere else there is none."""
    root = Path(pytest_asyncdb.__path__[0])
    found = {
        f"{path.relative_to(root)}: {name}"
        for path in root.rglob("*.py")
        if path.name != "pytest_internals.py"
        for name in PRIVATE.findall(path.read_text(encoding="utf-8"))
    }
    assert found == set()
