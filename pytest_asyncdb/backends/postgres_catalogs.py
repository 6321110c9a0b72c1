"""The queries by which PostgreSQL shows what changed in a database; see ``postgres_reset``."""

from __future__ import annotations

from pytest_asyncdb.abc import LEFT_OPEN, LEFT_TEXT

#: Catalogs that hold the schema, with the column that holds the object's oid.
CATALOGS = {
    **dict.fromkeys(
        (
            *("pg_class", "pg_constraint", "pg_type", "pg_enum", "pg_trigger", "pg_rewrite"),
            *("pg_policy", "pg_extension", "pg_statistic_ext", "pg_collation", "pg_operator"),
            *("pg_cast", "pg_default_acl", "pg_event_trigger", "pg_largeobject_metadata"),
        ),
        "oid",
    ),
    "pg_proc": "pronamespace <> pg_my_temp_schema() AND oid",
    "pg_namespace": "nspname !~ '^pg_' AND oid",  # those for temporary tables stay
    "pg_attribute": "attnum > 0 AND attrelid",
    "pg_attrdef": "adrelid",
    "pg_sequence": "seqrelid",
    "pg_index": "indexrelid",
    "pg_description": "objoid",
}

#: A query for the rows of all catalogs that describe the user's schema: 16384 is the lowest oid of
#: an object that a user creates (``FirstNormalObjectId``).
OF_SCHEMA = " UNION ALL ".join(
    f"SELECT xmin FROM {name} WHERE {column} >= 16384" for name, column in CATALOGS.items()
)

#: How often to check again whether a connection is still in a transaction.
CLOSING = 25

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

#: What may hold locks, each with the statement that ends it: connections in a transaction, and
#: prepared transactions, which have no connection any more. The second argument of
#: ``pg_terminate_backend``, to wait, is of version 14; ``changed`` waits.
LEFT = f"""
SELECT '{LEFT_OPEN}' || pid || ': ' || state || ': ' || left(query, {LEFT_TEXT}),
    'SELECT pg_terminate_backend(' || pid || ')'
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend' AND state <> 'idle'
UNION ALL SELECT '{LEFT_OPEN}that is gone: PREPARE TRANSACTION ' || quote_literal(gid),
    'ROLLBACK PREPARED ' || quote_literal(gid)
FROM pg_prepared_xacts WHERE database = current_database()
"""

#: How long a query waits for the locks of other sessions.
PATIENCE = "3s"

#: The word for changed catalogs.
SCHEMA = "schema"
