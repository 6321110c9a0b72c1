"""The provider ``url``: a server that is already running, and keeps running.

This module starts, stops and changes nothing on the server. The databases that the plugin creates
there have names of their own. No text of this module shows the password.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_asyncdb.abc import Backend, Candidate, Driver, Server, ServerProvider, Show
from pytest_asyncdb.errors import ConfigError, ProviderUnavailable, ServerStartError
from pytest_asyncdb.servers import readiness
from pytest_asyncdb.servers.messages import server_too_old
from pytest_asyncdb.values import BackendSpec, Sourced

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

#: Seconds within which an external server must answer.
_ANSWER = 10.0
_LOOK = "see that the server runs and that the URL in {} leads to it"
_LEAVE = "or leave {} out and let a server be started: --asyncdb-server=auto"
#: Errors of servers and drivers that another attempt would not change: what has failed, and the
#: remedy.
_FINAL = {
    r'Unknown database|(to|permission denied for) database|database ".*" (does|is) not ': (
        "refused the database",
        "name a database in {} to which the account may connect",
    ),
    'password authentication failed|Access denied|expired|role ".*" (does|is) not ': (
        "refused the user or the password",
        "correct the user and the password in {}; special characters are percent-encoded: "
        "urllib.parse.quote(password, safe='')",
    ),
    "unexpected keyword argument": (
        "cannot be reached with these arguments",
        "correct what follows ? in {}; asyncpg's is ssl=, not sslmode=",
    ),
    "no pg_hba.conf entry": ("refused the connection", _LOOK),
}


class UrlProvider(ServerProvider):
    """The server at the user's URL."""

    name = "url"

    def find(self, spec: BackendSpec, backend: Backend, url: Sourced[str] | None) -> Candidate:
        """See the base class.

        Raises:
            ConfigError: The URL cannot be parsed.
        """
        if url is None:
            raise ProviderUnavailable(f"ASYNCDB_{backend.name.upper()}_URL is not set")
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            make_url(url.value)
        except (ArgumentError, ValueError):
            name = backend.maintenance or "name"
            example = f"{backend.dialect}+{backend.drivers[0].name}://user:password@host/{name}"
            raise ConfigError(
                f"this is not a URL of a {backend.label} server ({url.source})",
                ["The value is not shown, as it may hold a password."],
                [f"write it as {example}"],
            ) from None
        return Candidate(self.name, url.source, None, detail=url)

    @contextlib.contextmanager
    def obtain(
        self, found: Candidate, spec: BackendSpec, backend: Backend, driver: Driver, progress: Show
    ) -> Iterator[Server]:
        from sqlalchemy.engine import make_url

        given: Sourced[str] = found.detail
        url = make_url(given.value)
        server = _server(url, found, backend)
        try:
            waiting = f"{backend.label}: waiting for the server of {given.source}"
            with readiness.patience(progress, waiting):
                text, pooler = readiness.wait_until_ready(
                    server, backend, driver, _ANSWER, final=lambda error: _cause(error) is not None
                )
        except readiness.NotReady as error:
            raise _no_answer(error, given, url, backend) from None
        version = backend.version_of(text)
        wrong = seen = remedy = ""
        if backend.local is not None and not backend.local.recognises(text):
            wrong, seen = f"not {backend.label}", f"it says: {text}"
            remedy = f"give the URL of a {backend.label} server, or name the other backend"
        elif not readiness.fits(version, spec.version):
            wrong = f"{backend.label} {version}, not {spec.version}"
            seen = f"the version was asked for by: {spec.source}"
            remedy = f"write {backend.name} without @{spec.version}, or give another URL"
        if wrong:
            what = f"the server is {wrong} ({given.source})"
            raise ServerStartError(what, [seen], [remedy], "Seen:")
        if readiness.too_old(version, backend.oldest):
            raise server_too_old(backend.label, version, backend.oldest, given.source)
        yield dataclasses.replace(server, version=version, behind_pooler=pooler)


def _server(url: URL, found: Candidate, backend: Backend) -> Server:
    scheme = url.get_backend_name()
    return Server(
        backend=backend.name,
        version="",
        provider=found.provider,
        reason=found.reason,
        managed=False,
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        maintenance=url.database or backend.maintenance,
        query=tuple((key, word) for key, words in url.normalized_query.items() for word in words),
        scheme=None if scheme in (backend.dialect, *backend.schemes) else scheme,
    )


def _cause(error: BaseException) -> tuple[str, str] | None:
    return next((_FINAL[words] for words in _FINAL if re.search(words, str(error))), None)


def _no_answer(
    error: readiness.NotReady, given: Sourced[str], url: URL, backend: Backend
) -> ServerStartError:
    """Return the error with what the driver reported, without the password, and the likely
    cause."""
    failed, remedy = _cause(error.error) or ("did not answer", _LOOK)
    passwords = {key: str(word) for key, word in url.query.items() if "pass" in key.lower()}
    shown = url.update_query_dict(dict.fromkeys(passwords, "..."))
    text = readiness.describe(error.error)
    # A password that equals the user's name, the host or the database is no secret. Masking it, or
    # an empty one, would make the text hard to read.
    known = {"", url.username, url.host, url.database}
    for secret in {url.password or "", *passwords.values()} - known:
        text = text.replace(secret, "***")
    return ServerStartError(
        f"the {backend.label} server {failed} ({given.source})",
        [f"asked for {error.seconds:.1f} s: {shown.render_as_string(hide_password=True)}", text],
        [remedy.format(given.source), _LEAVE.format(given.source)],
        "Seen:",
    )
