"""A pytest plugin for the examples: runs the tests in the order that ``ORDER`` names."""

from __future__ import annotations

import os
import random

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = os.environ["ORDER"]
    if order == "reversed":
        items.reverse()
    elif order != "as-written":
        random.Random(order).shuffle(items)
