"""The queries by which PostgreSQL shows what changed in a database; see ``postgres_reset``."""

from __future__ import annotations

from pytest_asyncdb.abc import LEFT_OPEN, LEFT_TEXT

#: The lowest oid of an object that a user creates (``FirstNormalObjectId``).
FIRST = 16384

#: Catalogs that hold the schema, with the column that holds the object's oid.
CATALOGS = {
    "pg_class": "oid",
    "pg_attribute": "attnum > 0 AND attrelid",
    "pg_attrdef": "adrelid",
    "pg_constraint": "oid",
    "pg_type": "oid",
    "pg_enum": "oid",
    "pg_proc": "pronamespace <> pg_my_temp_schema() AND oid",
    "pg_trigger": "oid",
    "pg_rewrite": "oid",
    "pg_namespace": "nspname !~ '^pg_' AND oid",  # those for temporary tables stay
    "pg_sequence": "seqrelid",
    "pg_policy": "oid",
    "pg_extension": "oid",
    "pg_index": "indexrelid",
    "pg_statistic_ext": "oid",
    "pg_collation": "oid",
    "pg_operator": "oid",
    "pg_cast": "oid",
    "pg_description": "objoid",
    "pg_default_acl": "oid",
    "pg_event_trigger": "oid",
    "pg_largeobject_metadata": "oid",
}

#: A query for the rows of all catalogs that describe the user's schema.
OF_SCHEMA = " UNION ALL ".join(
    f"SELECT xmin FROM {name} WHERE {column} >= {FIRST}" for name, column in CATALOGS.items()
)

#: How often to check again whether a connection is still in a transaction.
CLOSING = 25

#: Stand for the connection of a prepared transaction, and for its statement.
GONE = "that is gone"
PREPARED = "'PREPARE TRANSACTION '"


TABLES = """
SELECT format('%I.%I', n.nspname, c.relname),
    (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
     FROM pg_attribute a
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
    (SELECT string_agg(format('t.%1$I = s.%1$I', a.attname), ' AND ')
     FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
     WHERE i.indrelid = c.oid AND i.indisprimary)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema'
    AND n.nspname NOT LIKE 'pg\\_%'
ORDER BY c.oid
"""

SEQUENCES = """
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\\_%'
ORDER BY c.oid
"""

#: What may hold locks: connections in a transaction, and prepared transactions, which have no
#: connection any more.
LEFT = f"""
SELECT '{LEFT_OPEN}' || pid, state || ': ' || left(query, {LEFT_TEXT}) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend' AND state <> 'idle'
UNION ALL SELECT '{LEFT_OPEN}{GONE}', {PREPARED} || quote_literal(gid)
FROM pg_prepared_xacts WHERE database = current_database()
"""

#: How long a query waits for the locks of other sessions.
PATIENCE = "3s"

#: The word for changed catalogs.
SCHEMA = "schema"

#: What the query returns for a table that was empty and has rows.
ROWS = "rows"
