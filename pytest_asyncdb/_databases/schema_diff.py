"""Differences between the models and the database. Alembic finds them, this module describes
them."""

from __future__ import annotations

import decimal
import re
from collections.abc import Collection, Sequence
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData
from sqlalchemy.schema import BLANK_SCHEMA

from pytest_asyncdb._databases.plan import mapped

#: The first words of Alembic's operations, and the side on which the object exists.
_SIDES = {
    "add": "in the models, not in the database",
    "remove": "in the database, not in the models",
}


def differences(
    connection: Connection, metadata: Sequence[MetaData], ignore: Collection[str]
) -> list[str]:
    """Return the changes that Alembic would make to the database to match the models.

    Args:
        ignore: Names of tables to leave out, besides Alembic's own ``alembic_version``.
    """
    metadata = [_as_mapped(connection, one) for one in metadata]
    schemas = {table.schema for one in metadata for table in one.tables.values()}

    def include_name(name: str | None, kind: str, parents: Any) -> bool:
        return kind != "schema" or name is None or name in schemas

    def include_object(item: Any, name: str | None, kind: str, *_: Any) -> bool:
        return kind != "table" or name not in ignore

    options = {
        "compare_type": True,
        "compare_server_default": _defaults_differ,
        "include_schemas": bool(schemas - {None}),
        "include_name": include_name,
        "include_object": include_object,
    }
    context = MigrationContext.configure(connection, opts=options)
    found: Any = compare_metadata(context, list(metadata))  # type: ignore[arg-type]
    # Alembic groups the differences of a column in a list.
    return [_text(one) for group in found for one in (group if type(group) is list else [group])]


def _as_mapped(connection: Connection, metadata: MetaData) -> MetaData:
    """Return *metadata* with the schemas that its tables have on *connection*.

    The default schema becomes None, because Alembic does not know it by its name.
    """
    options, default = connection.get_execution_options(), connection.dialect.default_schema_name

    def there(schema: str | None, none: Any = None) -> Any:
        found = mapped(schema, options)
        return none if found in (None, default) else found

    tables = metadata.sorted_tables
    if all(there(table.schema) == table.schema for table in tables):
        return metadata
    copy = MetaData(naming_convention=metadata.naming_convention)
    for table in tables:
        new = table.to_metadata(
            copy,
            schema=there(table.schema),
            referred_schema_fn=lambda *args: there(args[3], BLANK_SCHEMA),
        )
        # The name of an index of index=True holds the schema. In the database it holds the original
        # one.
        names = {tuple(one.columns.keys()): one.name for one in table.indexes}
        for index in new.indexes:
            if index.name not in names.values():
                index.name = names[tuple(index.columns.keys())]
    return copy


def _defaults_differ(
    context: Any, column: Any, model: Any, there: str | None, wanted: Any, rendered: Any
) -> bool:
    """Return whether a default exists on one side only, or the two are different literals.

    Alembic's own comparison also reports a default that the backend only writes differently, and
    fails on PostgreSQL if the default contains a quote. Expressions are not compared.
    """
    if wanted is not None and not hasattr(wanted, "arg"):  # FetchedValue: not known
        return False
    if wanted is None and model is model.table.autoincrement_column:  # a sequence's next value
        return False
    if there is not None and there.upper() == "NULL":  # for MariaDB this means no default
        there = None
    if there is None or wanted is None:
        return (there is None) != (wanted is None)
    return isinstance(wanted.arg, str) and not _same_literal(there, wanted.arg)


def _same_literal(there: str, wanted: str) -> bool:
    """Compare a default as the backend reports it, such as ``'7'::text``, with the model's."""
    text = re.sub(r"::[\w ]+(\(\d+(,\d+)?\))?(\[\])?$", "", there).strip("()")
    if text[:1] == text[-1:] == "'" and len(text) > 1:
        text = text[1:-1].replace("''", "'")
    try:
        return decimal.Decimal(text) == decimal.Decimal(wanted)
    except decimal.InvalidOperation:
        return text == wanted


def _text(difference: tuple[Any, ...]) -> str:
    kind, *rest = difference
    action, _, what = kind.partition("_")
    if action == "modify":
        schema, table, column, _, there, wanted = rest
        name = ".".join(filter(None, (schema, table, column)))
        return f"{what} of {name}: {_shown(wanted)} in the models, {_shown(there)} in the database"
    side = _SIDES.get(action, "differs")
    if what == "column":
        schema, table, column = rest
        return f"column {'.'.join(filter(None, (schema, table, column.name)))}: {side}"
    if what in ("table", "table_comment"):
        return f"{what.replace('_', ' ')} {rest[0].fullname}: {side}"
    item = rest[0]
    columns = ", ".join(str(column.name) for column in item.columns)
    words = item.__visit_name__.replace("_", " ")
    named = f" {item.name}" if item.name else ""
    return f"{words}{named} on {item.table.fullname}({columns}): {side}"


def _shown(value: Any) -> str:
    """Return a type, a server default or nullability as text."""
    argument = getattr(value, "arg", value)
    text = getattr(argument, "text", argument)
    return text if isinstance(text, str) else repr(text)
