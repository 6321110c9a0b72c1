"""Every error of the plugin. Each takes objects and makes its own text and remedy.

The form: one line that says what failed and where the value came from, then what was seen
or tried, then ``To fix this:`` with the exact option, command or code.
"""

from __future__ import annotations

from collections.abc import Sequence


class AsyncdbError(Exception):
    """The base of all errors of this package.

    Args:
        headline: What failed, with the value and its source.
        seen: What was seen or tried, one per line.
        remedies: What to do; one suffices.
        seen_title: The line above *seen*; none: *seen* stands by itself.
    """

    def __init__(
        self,
        headline: str,
        seen: Sequence[str] = (),
        remedies: Sequence[str] = (),
        seen_title: str = "",
    ) -> None:
        super().__init__(_text(headline, seen, remedies, seen_title))
        self.headline = headline


class ConfigError(AsyncdbError):
    """A value from the command line, the environment, an ini file or a fixture."""


class MarkerError(AsyncdbError):
    """A mistake in ``@pytest.mark.asyncdb``."""


class ProviderUnavailable(AsyncdbError):
    """A provider cannot give this server; the text fits behind ``container: ``."""


class ServerUnavailable(AsyncdbError):
    """No provider could give the server."""


class ServerStartError(AsyncdbError):
    """A provider was chosen, and its server did not come up."""


class DriverMissing(AsyncdbError):
    """The driver's package is not installed."""


class MetadataError(AsyncdbError):
    """``asyncdb_metadata`` does not lead to tables."""


class SchemaError(AsyncdbError):
    """Building the schema or filling the database failed."""


class LoopError(AsyncdbError):
    """The test runs on something that the drivers do not know."""


class IsolationBreach(AsyncdbError):
    """A test got around its isolation, or would have."""

    #: What a test did could not be undone: no news where its server is gone.
    not_undone = False


class IsolationConflict(AsyncdbError):
    """Units of work that cannot share one connection overlap."""


class StatementBlocked(AsyncdbError):
    """A statement waited too long for a lock, and was cancelled."""


def _text(headline: str, seen: Sequence[str], remedies: Sequence[str], seen_title: str) -> str:
    parts = [headline]
    if seen:
        lines = [f"  - {line}" for line in seen] if seen_title else list(seen)
        parts.append("\n".join([seen_title, *lines] if seen_title else lines))
    if len(remedies) == 1:
        parts.append(f"To fix this: {remedies[0]}")
    elif remedies:
        parts.append("To fix this, do one of:\n" + "\n".join(f"  - {r}" for r in remedies))
    return "\n\n".join(parts)
