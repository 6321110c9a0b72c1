"""The queries that show what changed in a PostgreSQL database; see ``postgres_reset.py``."""

from __future__ import annotations

from pytest_asyncdb._record.row_changes import UNREADABLE
from pytest_asyncdb.abc import LEFT_OPEN, LEFT_TEXT

#: Notes every DDL statement, except on temporary objects, by an empty large object. The large
#: object belongs to the transaction, so a rollback removes it, and it conflicts with nothing. This
#: needs a superuser, and only a superuser can change built-in objects. The functions of the
#: triggers are temporary, so the server drops the triggers with the session. The triggers are
#: members of an extension, so they are in no dump. Run this with ``session_replication_role =
#: replica``, so that the triggers do not note themselves.
NOTE_DDL = """
CREATE FUNCTION pg_temp.asyncdb_note() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$ BEGIN
    IF tg_event = 'sql_drop' THEN
        PERFORM lo_create(0) FROM pg_event_trigger_dropped_objects()
            WHERE NOT is_temporary LIMIT 1;
    ELSE
        PERFORM lo_create(0) FROM pg_event_trigger_ddl_commands()
            WHERE schema_name IS DISTINCT FROM 'pg_temp' LIMIT 1;
    END IF;
END $$;
CREATE EVENT TRIGGER asyncdb_ddl ON ddl_command_end EXECUTE FUNCTION pg_temp.asyncdb_note();
CREATE EVENT TRIGGER asyncdb_drop ON sql_drop EXECUTE FUNCTION pg_temp.asyncdb_note();
ALTER EXTENSION plpgsql ADD EVENT TRIGGER asyncdb_ddl;
ALTER EXTENSION plpgsql ADD EVENT TRIGGER asyncdb_drop;
ALTER EVENT TRIGGER asyncdb_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER asyncdb_drop ENABLE ALWAYS
"""

#: A query for the rows that show the notes, and for what event triggers do not see: data of large
#: objects, and other event triggers.
NOTED = """
SELECT xmin FROM pg_largeobject_metadata UNION ALL SELECT xmin FROM pg_largeobject
UNION ALL SELECT xmin FROM pg_event_trigger
"""

#: For accounts without that right: the catalogs of what they can change, each with the column that
#: holds the object's oid.
CATALOGS = {
    **dict.fromkeys(
        (
            *("pg_class", "pg_constraint", "pg_type", "pg_enum", "pg_trigger", "pg_rewrite"),
            *("pg_policy", "pg_extension", "pg_statistic_ext", "pg_collation", "pg_operator"),
            *("pg_cast", "pg_default_acl", "pg_largeobject_metadata", "pg_conversion"),
            *("pg_ts_config", "pg_ts_dict", "pg_foreign_server", "pg_publication"),
            *("pg_publication_rel", "pg_opclass", "pg_opfamily"),
        ),
        "oid",
    ),
    "pg_proc": "pronamespace <> pg_my_temp_schema() AND oid",
    "pg_attribute": "attnum > 0 AND attrelid",
    "pg_attrdef": "adrelid",
    "pg_sequence": "seqrelid",
    "pg_index": "indexrelid",
    "pg_description": "objoid",
    "pg_ts_config_map": "mapcfg",
    "pg_foreign_table": "ftrelid",
}

#: A query for the rows of these catalogs that describe the user's schema. 16384 is the lowest oid
#: of an object that a user creates (``FirstNormalObjectId``). The schema public is older.
OF_SCHEMA = " UNION ALL ".join(
    [
        *(f"SELECT xmin FROM {name} WHERE {oid} >= 16384" for name, oid in CATALOGS.items()),
        # The schemas of temporary tables are left out, because they stay.
        "SELECT xmin FROM pg_namespace WHERE nspname !~ '^pg_'",
        "SELECT xmin FROM pg_description WHERE objoid = 'public'::regnamespace",
        "SELECT xmin FROM pg_depend WHERE classid = 'pg_user_mapping'::regclass",
    ]
)

_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"
#: A query for the rows that describe the database, for all accounts: its owner, rights, comment and
#: settings, and the owners and grantees of its objects (``REASSIGN OWNED`` fires no trigger).
OF_DATABASE = f"""
SELECT xmin FROM pg_database WHERE datname = current_database()
UNION ALL SELECT xmin FROM pg_db_role_setting WHERE setdatabase = {_DATABASE}
UNION ALL SELECT xmin FROM pg_shdepend WHERE dbid = {_DATABASE}
UNION ALL SELECT xmin FROM pg_shdescription
    WHERE objoid = {_DATABASE} AND classoid = 'pg_database'::regclass
"""

#: Tables and similar objects, each with the reason why the account cannot see what changes in it,
#: or NULL.
_RELATIONS = f"""
FROM (SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS name, {UNREADABLE} AS why
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND n.nspname <> 'information_schema'
        AND n.nspname NOT LIKE 'pg\\_%') AS c
WHERE c.why IS """

#: The tables, each with its writable columns. For each column: the expression that remembers it,
#: without the types and collations of the user; its name; the expression that restores it.
TABLES = f"""
SELECT c.name, ARRAY(
    SELECT ARRAY[
        format(CASE WHEN own THEN '%I::text COLLATE "default" AS %I' ELSE '%I AS %I' END,
            a.attname, 'c' || a.attnum),
        quote_ident(a.attname),
        'c' || a.attnum || CASE WHEN own THEN '::' || format_type(a.atttypid, a.atttypmod)
            ELSE '' END]
    FROM pg_attribute a,
        LATERAL (SELECT greatest(a.atttypid, a.attcollation) >= 16384 AS own) AS types
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY a.attnum)
{_RELATIONS} NULL AND c.relkind = 'r' ORDER BY c.oid
"""

SEQUENCES = f"SELECT c.name {_RELATIONS} NULL AND c.relkind = 'S' ORDER BY c.oid"

#: What a restorer cannot see, in words.
UNSEEN = f"""
SELECT CASE c.relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END || c.name || ': ' || c.why
{_RELATIONS} NOT NULL AND c.relkind IN ('r', 'S')
UNION ALL SELECT format('large objects: the role %I may not read them', current_user)
WHERE EXISTS (SELECT FROM pg_largeobject_metadata)
    AND NOT has_table_privilege('pg_largeobject', 'SELECT')
"""

#: What may hold locks, each with the statement that ends it: connections in a transaction, and
#: prepared transactions, which have no connection any more. ``pg_terminate_backend`` waits only if
#: it has a second argument, which is new in version 14; ``changed`` waits instead.
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
