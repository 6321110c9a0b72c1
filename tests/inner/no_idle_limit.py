"""The control of the idle limit: every strategy keeps as many connections as on a large server."""

from pytest_asyncdb._databases import connection_limit

assert connection_limit.idle_limit  # it is still what decides
connection_limit.idle_limit = lambda server, label, workers: connection_limit.MOST_IDLE
