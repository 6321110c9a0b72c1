from asyncdb_others.plugin import pytest_asyncdb_register

__all__ = ["pytest_asyncdb_register"]
