"""A complete dump of a PostgreSQL database: all of ``pg_catalog``, rows, sequences.

``CREATE DATABASE … TEMPLATE`` keeps the oids of all objects, so a copy has the same ones, and the
catalogs are compared as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

#: Statistics, which ANALYZE and the server itself write.
STATISTICS = ("pg_statistic", "pg_statistic_ext_data")

#: Columns that the server changes by itself, or that only tell where rows are stored.
VOLATILE = {
    # Estimates of VACUUM and ANALYZE, what VACUUM has frozen, the file's name.
    "pg_class": (
        *("relpages", "reltuples", "relallvisible", "relallfrozen"),
        *("relfrozenxid", "relminmxid", "relfilenode"),
    ),
}

#: Temporary tables are their session's; so are the event triggers by which the plugin notes DDL: it
#: ends them with its connection.
_TEMPORARY = {
    "pg_class": "relpersistence <> 't'",
    "pg_type": "typnamespace NOT IN (SELECT oid FROM temporary)",
    "pg_proc": "pronamespace NOT IN (SELECT oid FROM temporary)",
    "pg_namespace": "nspname !~ '^pg_(toast_)?temp_'",
    "pg_attribute": "attrelid NOT IN (SELECT oid FROM temporary)",
    "pg_attrdef": "adrelid NOT IN (SELECT oid FROM temporary)",
    "pg_constraint": "conrelid NOT IN (SELECT oid FROM temporary)",
    "pg_index": "indrelid NOT IN (SELECT oid FROM temporary)",
    "pg_event_trigger": "oid NOT IN (SELECT oid FROM temporary)",
    "pg_depend": "objid NOT IN (SELECT oid FROM temporary)"
    " AND refobjid NOT IN (SELECT oid FROM temporary)",
}
_WITH = """WITH temporary AS MATERIALIZED (
    SELECT oid FROM pg_class WHERE relpersistence = 't'
    UNION ALL SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_'
    UNION ALL SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE nspname ~ '^pg_temp_'
    UNION ALL SELECT oid FROM pg_event_trigger WHERE evtname ~ '^asyncdb_'
    UNION ALL SELECT t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE nspname ~ '^pg_(toast_)?temp_'
    UNION ALL SELECT d.oid FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid
        WHERE relpersistence = 't'
    UNION ALL SELECT d.oid FROM pg_constraint d JOIN pg_class c ON c.oid = d.conrelid
        WHERE relpersistence = 't'
)
"""

#: Of the catalogs that all databases share: what belongs to this one. Names and oids of databases
#: differ; ``{limit}`` is the lock timeout that the plugin gives its copies.
_SHARED = {
    "pg_database": """SELECT (to_jsonb(d) - '{{oid,datname,datfrozenxid,datminmxid}}'::text[])::text
        FROM pg_database d WHERE datname = current_database()""",
    "pg_db_role_setting": """SELECT setrole::regrole || ' ' || unnest(setconfig)
        FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase
        WHERE datname = current_database()
        EXCEPT SELECT '- lock_timeout={limit}'""",
    "pg_shdescription": """SELECT description FROM pg_shdescription
        JOIN pg_database d ON d.oid = objoid AND classoid = 'pg_database'::regclass
        WHERE datname = current_database()""",
    "pg_shseclabel": """SELECT provider || ' ' || label FROM pg_shseclabel
        JOIN pg_database d ON d.oid = objoid AND classoid = 'pg_database'::regclass
        WHERE datname = current_database()""",
    "pg_shdepend": """SELECT CASE WHEN dbid = 0 THEN to_jsonb(s) - 'objid'
            ELSE to_jsonb(s) - 'dbid' END::text
        FROM pg_shdepend s JOIN pg_database d ON d.oid = dbid OR dbid = 0 AND d.oid = objid
            AND classid = 'pg_database'::regclass
        WHERE datname = current_database()""",
    "pg_subscription": """SELECT (to_jsonb(s) - 'subdbid')::text
        FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid
        WHERE datname = current_database()""",
}

_CATALOGS = """SELECT relname, string_agg(quote_ident(attname), ', ' ORDER BY attnum)
    FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
        AND relname <> ALL (%s)
        AND format('%%s.%%s', relname, attname) <> ALL (%s)
    GROUP BY relname"""
_RELATIONS = """SELECT format('%I.%I', nspname, relname), relkind
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'm', 'S') AND relpersistence <> 't' AND (relkind <> 'm' OR relispopulated)
        AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"""


def queries(cursor: Any, limit: str) -> Iterator[tuple[str, str]]:
    """A query for the rows, as text, of everything; with the name of what it reads."""
    volatile = [f"{name}.{column}" for name, columns in VOLATILE.items() for column in columns]
    cursor.execute(_CATALOGS, (list(STATISTICS), volatile))
    for name, columns in cursor.fetchall():
        where = _TEMPORARY.get(name, "true")
        yield name, f"SELECT ROW({columns})::text FROM pg_catalog.{name} WHERE {where}"
    for name, query in _SHARED.items():
        yield name, query.format(limit=limit)
    cursor.execute(_RELATIONS)
    for name, kind in cursor.fetchall():
        what = {"S": "ROW(last_value, is_called)"}.get(kind, "r")
        yield f"rows of {name}", f"SELECT {what}::text FROM ONLY {name} r"


def dump(connection: Any, limit: str) -> dict[str, Any]:
    """What is in the database, as one number for each catalog and table.

    Args:
        limit: The lock timeout that the plugin gives its copies.
    """
    cursor = connection.cursor()
    # Plans take longer than the whole query otherwise.
    cursor.execute("SET jit = off; SET row_security = off; SET search_path = pg_catalog")
    parts = [
        f"SELECT $n${name}$n$, count(*) || ':' || coalesce(sum(hashtextextended(r, 0)), 0)"
        f" FROM ({query}) AS q (r)"
        for name, query in queries(cursor, limit)
    ]
    cursor.execute(_WITH + " UNION ALL ".join(parts))
    return dict(cursor.fetchall())


def rows(connection: Any, limit: str, name: str) -> Counter[str]:
    """The rows of one part of a dump."""
    cursor = connection.cursor()
    query = dict(queries(cursor, limit)).get(name)
    if query is None:
        return Counter()
    cursor.execute(_WITH + query)
    return Counter(row for (row,) in cursor.fetchall())
