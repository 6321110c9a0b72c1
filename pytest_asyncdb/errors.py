"""The exception classes. The ``messages`` modules, beside the code that raises them, have the
texts.

The first line of a text says what failed and where the value came from. Then comes what was seen or
tried, then ``To fix this:`` with the exact option, command or code.
"""

from __future__ import annotations

from collections.abc import Sequence


class AsyncdbError(Exception):
    """The base class of all errors of this package.

    Args:
        headline: What failed, with the value and its source.
        seen: What was seen or tried, one per line.
        remedies: What to do; the user needs one of them.
        seen_title: The line above *seen*. With it, *seen* is shown as a list.
    """

    def __init__(
        self,
        headline: str,
        seen: Sequence[str] = (),
        remedies: Sequence[str] = (),
        seen_title: str = "",
    ) -> None:
        parts = [headline]
        if seen:
            lines = [seen_title, *(f"  - {line}" for line in seen)] if seen_title else seen
            parts.append("\n".join(lines))
        if len(remedies) == 1:
            parts.append(f"To fix this: {remedies[0]}")
        elif remedies:
            parts.append("To fix this, do one of:\n" + "\n".join(f"  - {r}" for r in remedies))
        super().__init__("\n\n".join(parts))
        self.headline = headline


class ConfigError(AsyncdbError):
    """A value from the command line, the environment, an ini file or a fixture is wrong."""


class MarkerError(AsyncdbError):
    """A mistake in ``@pytest.mark.asyncdb``."""


class ProviderUnavailable(AsyncdbError):
    """A provider cannot provide this server. The text is shown after the provider's name."""


class ServerUnavailable(AsyncdbError):
    """No provider can provide the server."""


class ServerStartError(AsyncdbError):
    """The server of the chosen provider did not start."""


class DriverMissing(AsyncdbError):
    """The driver's package is not installed."""


class MetadataError(AsyncdbError):
    """``asyncdb_metadata`` names no tables."""


class SchemaError(AsyncdbError):
    """Building the schema or filling the database failed."""


class LoopError(AsyncdbError):
    """The test runs on an async library that the drivers do not support."""


class IsolationBreach(AsyncdbError):
    """A test got around its isolation, or tried to."""

    #: True if a change could not be undone. Such a breach is not reported if the server is gone.
    not_undone = False


class IsolationConflict(AsyncdbError):
    """The isolation does not allow what a test does. For example, its units of work overlap."""


class StatementBlocked(AsyncdbError):
    """A statement waited too long for a lock and was cancelled."""
