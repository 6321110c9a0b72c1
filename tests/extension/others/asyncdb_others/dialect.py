"""A dialect whose databases are schemas, and which spells savepoints otherwise."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.postgresql.base import PGCompiler
from sqlalchemy.engine import URL

_STANDARD = re.compile(r"release\s+savepoint\b|rollback\s+to\s+savepoint\b", re.IGNORECASE)


def refuse_standard(statement: str) -> None:
    """As a DBMS does that knows the dialect's spelling only."""
    if _STANDARD.search(statement):
        raise AssertionError(f"not in the dialect's spelling: {statement}")


class PgSchemaCompiler(PGCompiler):
    def visit_rollback_to_savepoint(self, savepoint_stmt: Any, **kw: Any) -> str:
        return f"ROLLBACK TRANSACTION TO {self.preparer.format_savepoint(savepoint_stmt)}"

    def visit_release_savepoint(self, savepoint_stmt: Any, **kw: Any) -> str:
        return f"RELEASE {self.preparer.format_savepoint(savepoint_stmt)}"


class PgSchemaDialect(PGDialect_asyncpg):
    """``pgschema+asyncpg://user@host/SCHEMA?home=DATABASE``; without ``home`` it is a database."""

    name = "pgschema"
    supports_statement_cache = True
    statement_compiler = PgSchemaCompiler

    def create_connect_args(self, url: URL) -> Any:
        home = url.query.get("home", url.database)
        bare = url.difference_update_query(["home"]).set(database=str(home))
        arguments, options = super().create_connect_args(bare)
        if url.database != home:
            settings = {"search_path": f'"{url.database}"', "application_name": url.database}
            options["server_settings"] = settings
        return arguments, options

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        refuse_standard(statement)
        super().do_execute(cursor, statement, parameters, context)
