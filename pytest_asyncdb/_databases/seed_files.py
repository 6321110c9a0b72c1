"""The seed that runs SQL files (``asyncdb_seed`` in the ini file)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_asyncdb import errors
from pytest_asyncdb._record.text import error_text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


@dataclasses.dataclass(frozen=True)
class SeedFiles:
    """Runs each file, of one or many statements, in one transaction.

    Args:
        paths: The files, in the order in which they run.
    """

    paths: tuple[Path, ...]

    async def __call__(self, session: AsyncSession) -> None:
        connection = await session.connection()
        for path in self.paths:
            # As a text of several statements the server gets it as it is (build.take_scripts).
            script = f"SELECT 1;\n{path.read_text(encoding='utf-8')}"
            if connection.dialect.paramstyle in ("format", "pyformat"):
                script = script.replace("%", "%%")
            try:
                await connection.exec_driver_sql(script)
            except Exception as error:
                remedies = [
                    "correct its SQL",
                    "if it is for one backend only: override the fixture asyncdb_seed, "
                    "which may request asyncdb_backend",
                ]
                text = f"the seed {path} failed (asyncdb_seed)"
                raise errors.SchemaError(text, [error_text(error)], remedies) from error
