"""Reports or refuses engines that connect to another database than the test's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._run import messages
from pytest_asyncdb._run.app_engines import name_of, shown_url
from pytest_asyncdb._run.pytest_internals import running_fixture

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

    from pytest_asyncdb.values import Sourced

#: Used instead of a test while the test modules are imported.
COLLECTION = "the collection of tests"


class OtherEngine(NamedTuple):
    """An engine that has connected to another database than the test's.

    Args:
        url: The engine's URL without the password.
        name: ``module:attribute`` of the application that leads to the engine, if it was found.
        test: The node id of the test, or :data:`COLLECTION`.
        place: The line of the user's code; empty: it is not known.
        fixture: The fixture that was being set up, as :func:`running_fixture` returns it.
    """

    url: str
    name: str | None
    test: str
    place: str
    fixture: str | None


class OtherEngines:
    """The engines that one process has seen connecting to other databases.

    Args:
        option: The value of ``asyncdb_other_engines``.
        named: The value of ``asyncdb_app_engines``, for remedies.
    """

    def __init__(self, option: Sourced[str], named: str) -> None:
        self._option = option
        self._named = ", ".join(named.replace(",", " ").split())
        #: The running test.
        self.test = COLLECTION
        #: The engines that have connected since the last report, once each.
        self.seen: list[OtherEngine] = []
        #: The errors of engines that were refused since then.
        self.refused: list[errors.AsyncdbError] = []
        self._names: dict[str, str | None] = {}

    def connects(self, engine: Engine) -> None:
        """Report or refuse *engine*, which is about to connect.

        Raises:
            IsolationBreach: ``asyncdb_other_engines`` is ``refuse``.
        """
        from pytest_asyncdb._record.call_sites import lines_of, user_position
        from pytest_asyncdb.isolation.started_tasks import started_in

        url = shown_url(engine)
        name = self._names[url] = self._names[url] if url in self._names else name_of(engine)
        test = getattr(started_in(), "test", self.test)
        if self._option.value != "refuse" and (url, name, test) in [one[:3] for one in self.seen]:
            return
        place = "".join(lines_of(user_position()[1][:1]))
        other = OtherEngine(url, name, test, place, running_fixture())
        if self._option.value == "refuse":
            fixture = [f"fixture: {other.fixture}"] if other.fixture else []
            at = [f"at {place}"] if place else []
            seen = [f"test: {test}", *fixture, *at, f"Nothing was sent to {url}."]
            text = f"an engine connects to another database than the test's ({self._option.source})"
            error = errors.IsolationBreach(text, seen, self.remedies(other))
            if test == self.test:
                self.refused.append(error)
            raise error
        self.seen.append(other)

    def remedies(self, other: OtherEngine) -> list[str]:
        """Return what to do about *other*."""
        option = "asyncdb_app_engines = " + f"{self._named}, " * bool(self._named)
        return [
            f"to redirect it, write in the ini file: {option}{other.name or 'module:attribute'}",
            f"to leave it alone: {option}-{other.name or other.url}",
            *messages.spare_fixture(other.fixture),
        ]


def in_memory(url: URL) -> bool:
    """Return whether the database is in the memory of this process, so that it cannot be real
    data."""
    unnamed = url.database in (None, "", ":memory:") or "mode=memory" in str(url)
    return url.get_backend_name() == "sqlite" and unnamed
