"""Servers have one second for an answer, instead of ten."""

from pytest_asyncdb._run import liveness

liveness.ANSWER = 1.0
