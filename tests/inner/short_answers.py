"""Servers have one second for an answer, instead of ten."""

from pytest_asyncdb import _pulse

_pulse._ANSWER = 1.0
