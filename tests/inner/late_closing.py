"""The thread that closes the last test's connections never gets round to it."""

from pytest_asyncdb.isolation.direct_pool import DirectPool

_close_retired = DirectPool.close_retired


def _close_retired_here(self, in_thread=True):
    if not in_thread:
        _close_retired(self, in_thread)


DirectPool.close_retired = _close_retired_here
