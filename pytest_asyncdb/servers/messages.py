"""Texts of errors that occur when servers are started or kept."""

from __future__ import annotations

from pytest_asyncdb.errors import ServerStartError


def server_start(label: str, provider: str, what: str, output: str) -> ServerStartError:
    """Return the error for a server that did not start.

    Args:
        what: What failed, and after how long.
        output: The end of what the server printed.
    """
    lines = output.strip().splitlines()[-20:] or ["(it printed nothing)"]
    other = "local" if provider == "container" else "container"
    return ServerStartError(
        f"the {label} server of provider {provider} did not start",
        [what, *(f"| {line}" for line in lines)],
        [f"read its output above, or use another provider: --asyncdb-server={other}"],
        "Seen:",
    )


def server_too_old(label: str, version: str, oldest: str, source: str) -> ServerStartError:
    """Return the error for a server that is older than the plugin supports.

    Args:
        source: Where the server comes from: a variable, or an image.
    """
    return ServerStartError(
        f"the server is {label} {version}, older than {oldest} ({source})",
        remedies=[f"use {label} {oldest} or newer"],
    )
