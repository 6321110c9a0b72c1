"""Two-phase transactions that a test has prepared and not ended.

A prepared transaction has no connection any more, but keeps its locks. MySQL and MariaDB do not
report to which database it belongs. So the plugin notes those of the test's engine, and touches no
others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from pytest_asyncdb._record.text import shorten
from pytest_asyncdb.abc import LEFT_OPEN
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.isolation.backing_connection import BackingConnection

_STATEMENT = re.compile(
    r"\s*(?:(?P<verb>prepare|commit|rollback)\s+(?:transaction|prepared)"
    r"|xa\s+(?P<xa>prepare|commit|rollback))\s+(?P<xid>.*?)[\s;]*$",
    re.IGNORECASE | re.DOTALL,
)
#: MariaDB lets another connection end a prepared transaction only after the server has noticed that
#: the first connection was closed. Number of attempts, and seconds between them.
_ATTEMPTS = 25
_PAUSE = 0.02


class Prepared:
    """The transactions that one test has prepared."""

    def __init__(self) -> None:
        #: For each transaction: the statement that rolls it back, and the one that has prepared it.
        self._open: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def note(self, statement: str, parameters: Any, succeeded: bool) -> None:
        """Note a statement of the test.

        A cancelled statement may have had its effect, so PREPARE counts even if it has failed.
        """
        if (match := _STATEMENT.match(statement)) is None:
            return
        xid = match["xid"]
        for one in parameters or ():  # only MySQL's drivers put parameters into the text
            xid = xid.replace("%s", "'" + str(one).replace("'", "''") + "'", 1)
        undo = f"{'XA ROLLBACK' if match['xa'] else 'ROLLBACK PREPARED'} {xid}"
        if (match["xa"] or match["verb"]).lower() == "prepare":
            self._open[undo] = f"{statement[: match.start('xid')]}{xid}"
        elif succeeded:
            self._open.pop(undo, None)

    def roll_back(self, take: Callable[..., BackingConnection], test: str) -> list[BaseException]:
        """Roll back the open transactions, after the test's connections were closed. Blocks.

        Args:
            take: Returns another connection, which is closed afterwards.

        Returns:
            The breach of the isolation, if a transaction was open.
        """
        if not self._open:
            return []
        left, backing = [], take(())
        dialect = backing.connector.dialect
        try:
            backing.connect()
            backing.run(lambda: dialect.set_isolation_level(backing.adapted, "AUTOCOMMIT"))
            for undo, statement in self._open.items():
                for _ in range(_ATTEMPTS):
                    try:
                        backing.script([undo])
                    except Exception:
                        time.sleep(_PAUSE)
                    else:
                        left.append(shorten(f"{LEFT_OPEN}that is gone: {statement}"))
                        break
        except Exception as error:
            return [error]
        finally:
            backing.discard()
        return [messages.LEFT_CONNECTED.of(test, left)] if left else []
