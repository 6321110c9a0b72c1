"""The thread that closes the last test's connections never gets round to it."""

from pytest_asyncdb.isolation.direct_pool import DirectPool

_close_retired = DirectPool.close_retired


def _close_retired_here(self, aside=True):
    if not aside:
        _close_retired(self, aside)


DirectPool.close_retired = _close_retired_here
