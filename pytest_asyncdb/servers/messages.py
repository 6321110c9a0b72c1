"""Texts of errors in starting servers."""

from __future__ import annotations

from pytest_asyncdb import errors


def server_start(label: str, provider: str, what: str, output: str) -> errors.ServerStartError:
    """A server did not come up.

    Args:
        what: What was waited for, and how long.
        output: The end of what the server printed.
    """
    lines = output.strip().splitlines()[-20:] or ["(it printed nothing)"]
    other = "local" if provider == "container" else "container"
    return errors.ServerStartError(
        f"the {label} server of provider {provider} did not start",
        [what, *(f"| {line}" for line in lines)],
        [f"read its output above, or take another provider: --asyncdb-server={other}"],
        "Seen:",
    )


def nowhere_to_keep(error: BaseException) -> errors.ServerUnavailable:
    """The user's cache cannot be written to, by which later runs would find a server."""
    return errors.ServerUnavailable(
        "no server can be kept for later runs (--asyncdb-reuse)",
        [f"{type(error).__name__}: {error}"],
        ["set XDG_CACHE_HOME to a folder that can be written to", "leave out --asyncdb-reuse"],
        "Seen:",
    )
