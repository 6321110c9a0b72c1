"""Waits for locks are looked for after one second without progress, instead of twenty."""

from pytest_asyncdb._run import liveness

liveness._STUCK = 1.0
