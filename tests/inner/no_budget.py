"""The control of a budget: connections are opened as if every server had room for all."""

from pytest_asyncdb._databases.connection_limit import Budget

assert Budget._count  # it is still what counts
Budget._count = lambda self: True
