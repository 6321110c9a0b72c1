"""A server, running or found; a run without database tests knows none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Server:
    """A running DBMS that can hold several databases.

    Args:
        backend: The backend's name.
        version: The version that the server itself reports, such as ``17.11``.
        provider: The provider that obtained it.
        reason: Why this provider was taken, one clause.
        managed: True where we started it, and so may tune and end it.
        host: Host name or address.
        port: TCP port.
        user: The user that may create databases.
        password: That user's password; never shown.
        maintenance: The database connected to in order to create and drop others.
        query: Further parameters of the URL, from an external server's own URL.
        scheme: The dialect in an external server's own URL, where it matters.
        tuning: The throw-away settings in force, in words.
        seconds: How long the start took.
        single: The maintenance database is the only one that may be used, and this is what it
            holds and keeps; None: databases may be made.
        room: How many connections the whole run may have; None: nobody knows.
        kept: The folder of a server that stays for later runs; None: it does not, or is not ours.
    """

    backend: str
    version: str
    provider: str
    reason: str
    managed: bool
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    maintenance: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    scheme: str | None = None
    tuning: str = ""
    seconds: float = 0.0
    single: tuple[str, ...] | None = None
    room: int | None = None
    kept: str | None = None

    def to_message(self) -> dict[str, Any]:
        """The server as plain data, for the channel between xdist's processes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Server:
        """The opposite of :meth:`to_message`; sequences come back as tuples."""
        query = tuple((key, value) for key, value in message["query"])
        single = message["single"] if message["single"] is None else tuple(message["single"])
        return cls(**{**message, "query": query, "single": single})


@dataclasses.dataclass(frozen=True)
class Found:
    """What a provider would use for a spec, found without starting anything.

    Args:
        provider: The provider's name.
        reason: Why it can be had, one clause for the header.
        version: The version that it will be, as far as it is known beforehand.
        tuning: The throw-away settings that will be in force, in words.
        at_hand: Nothing has to be downloaded for it.
        detail: What the provider needs to go on; its own business.
    """

    provider: str
    reason: str
    version: str | None
    tuning: str = ""
    at_hand: bool = dataclasses.field(default=True, kw_only=True)
    detail: Any = dataclasses.field(default=None, repr=False)
