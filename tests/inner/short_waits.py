"""Waits for locks end after one second instead of twenty."""

from pytest_asyncdb.abc import Backend

Backend.lock_wait = 1.0
