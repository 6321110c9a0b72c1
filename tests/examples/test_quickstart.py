"""The quickstart of the docs: a project that never heard of us, run as it is."""

from __future__ import annotations

import pytest
from fix_example import run, run_on
from fix_servers import WORDS, Servers, Target

TESTS = 22
complete = pytest.mark.complete


@pytest.mark.parametrize(
    ("workers", "order"),
    [
        pytest.param((), "as-written", id="main", marks=complete),
        pytest.param(("-n", "2"), "random-1", id="n2"),
        pytest.param(("-n", "4"), "as-written", id="n4", marks=complete),
    ],
)
def test_all_backends_in_one_run(servers: Servers, workers: tuple[str, ...], order: str) -> None:
    """One command, six backends and drivers, with and without workers."""
    targets = [servers.target(word) for word in WORDS]
    output = run_on("quickstart", targets, *workers, order=order)
    assert f"{TESTS * len(WORDS)} passed" in output


@complete
@pytest.mark.parametrize("order", ["as-written", "reversed", "random-1", "random-2"])
def test_it_passes_in_any_order_on_each_backend(target: Target, order: str) -> None:
    """The tests do not depend on one another, whichever came before."""
    assert f"{TESTS} passed" in run_on("quickstart", [target], order=order)


@pytest.mark.complete
@pytest.mark.parametrize(
    ("provider", "backends", "workers"),
    [
        pytest.param("local", ("postgres", "mariadb"), (), id="local-main", marks=complete),
        pytest.param("local", ("postgres", "mariadb"), ("-n", "2"), id="local-n2"),
        pytest.param(
            *("container", ("postgres", "mysql", "mariadb"), ()), id="container", marks=complete
        ),
        pytest.param(
            *("container", ("postgres", "mysql", "mariadb"), ("-n", "4")),
            id="container-n4",
            marks=complete,
        ),
    ],
)
def test_it_passes_on_servers_of_each_provider(
    servers: Servers, provider: str, backends: tuple[str, ...], workers: tuple[str, ...]
) -> None:
    """The run finds, starts and ends its own servers."""
    for backend in backends:
        servers.need(backend, provider)
    words = [word for word in WORDS if word.partition("+")[0] in ("sqlite", *backends)]
    output = run(
        "quickstart", f"--asyncdb={','.join(words)}", f"--asyncdb-server={provider}", *workers
    )
    assert f"{TESTS * len(words)} passed" in output
