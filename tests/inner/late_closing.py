"""The thread that closes the last test's connections never gets round to it."""

from pytest_asyncdb.isolation._connections import RealConnections

_close_retired = RealConnections.close_retired


def _close_retired_here(self, aside=True):
    if not aside:
        _close_retired(self, aside)


RealConnections.close_retired = _close_retired_here
