"""Waits for locks are looked for after one second without progress, instead of twenty."""

from pytest_asyncdb import _pulse

_pulse._STUCK = 1.0
