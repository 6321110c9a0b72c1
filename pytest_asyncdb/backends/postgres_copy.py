"""What ``CREATE DATABASE … TEMPLATE`` of PostgreSQL does not copy, and what stops ``DROP
DATABASE``.

Not copied is what the catalogs that all databases of a server share say about the database: its
owner, connection limit, privileges, comment, and the settings of the database and of roles in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_asyncdb.abc import Sql

#: Settings that have a list of quoted names as value. As one string it would be one name. From
#: ``variable_is_guc_list_quote`` of pg_dump.
_LISTS = "local_preload_libraries, search_path, session_preload_libraries, temp_tablespaces"

#: Returns statements in two parts. The name of the copy belongs between them.
_QUERY = f"""
WITH db AS (
    SELECT *, datdba::regrole::text AS owner FROM pg_database WHERE datname = '{{template}}'
)
SELECT 'ALTER DATABASE', 'OWNER TO ' || owner FROM db WHERE owner <> quote_ident(current_user)
UNION ALL SELECT 'ALTER DATABASE', 'CONNECTION LIMIT ' || datconnlimit
FROM db WHERE datconnlimit >= 0
UNION ALL SELECT 'REVOKE ALL ON DATABASE', 'FROM PUBLIC, ' || owner FROM db WHERE datacl IS NOT NULL
UNION ALL SELECT 'GRANT ' || privilege_type || ' ON DATABASE',
    'TO ' || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
        || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM db, aclexplode(datacl)
UNION ALL SELECT 'COMMENT ON DATABASE', 'IS ' || quote_literal(description)
FROM db JOIN pg_shdescription ON objoid = db.oid AND classoid = 'pg_database'::regclass
UNION ALL SELECT
    CASE setrole WHEN 0 THEN 'ALTER' ELSE 'ALTER ROLE ' || setrole::regrole || ' IN' END
        || ' DATABASE',
    'SET ' || quote_ident(name) || ' TO ' || coalesce((
        SELECT string_agg(
            quote_literal(replace(regexp_replace(part[1], '^"(.*)"$', '\\1'), '""', '"')), ', '
        ) FROM regexp_matches(value, '"(?:[^"]|"")*"|[^,[:space:]]+', 'g') AS part
        WHERE name = ANY (string_to_array('{_LISTS}', ', '))
    ), quote_literal(value))
FROM db JOIN pg_db_role_setting ON setdatabase = db.oid, unnest(setconfig) AS one,
    LATERAL (SELECT split_part(one, '=', 1), substr(one, strpos(one, '=') + 1)) AS s (name, value)
"""

#: Returns statements for a connection to a database. After them the database can be dropped.
FREE_TO_DROP = """
SELECT 'ROLLBACK PREPARED ' || quote_literal(gid)
FROM pg_prepared_xacts WHERE database = current_database()
UNION ALL SELECT format('ALTER DATABASE %I IS_TEMPLATE false', datname)
FROM pg_database WHERE datname = current_database() AND datistemplate
UNION ALL SELECT format(statement, subname)
FROM pg_subscription JOIN pg_database d ON d.oid = subdbid AND datname = current_database(),
    unnest(ARRAY[
        'ALTER SUBSCRIPTION %I DISABLE', 'ALTER SUBSCRIPTION %I SET (slot_name = NONE)',
        'DROP SUBSCRIPTION %I'
    ]) AS statement
"""


async def properties(sql: Sql, template: str) -> Callable[[str], Sequence[str]]:
    """Read these properties of *template*. Return a function that takes the name of a copy, and
    returns the statements that give the copy the same properties."""
    parts = await sql.fetch(_QUERY.format(template=template))
    return lambda name: [f'{before} "{name}" {after}' for before, after in parts]
