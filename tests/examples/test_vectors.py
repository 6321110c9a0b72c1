"""pgvector on the embedded server: extension, column, codec, nearest neighbour."""

from __future__ import annotations

import pytest
from fix_example import run
from fix_servers import Servers

TESTS = 4 * 2 * 3 * 2  # tests, numbers, strategies, drivers


@pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.complete)], ids=["main", "n2"]
)
def test_it_passes_with_both_drivers(servers: Servers, workers: tuple[str, ...]) -> None:
    servers.need("postgres", "embedded")
    words = "--asyncdb=postgres+asyncpg,postgres+psycopg"
    output = run("vectors", words, "--asyncdb-server=embedded", *workers)
    assert f"{TESTS} passed" in output
