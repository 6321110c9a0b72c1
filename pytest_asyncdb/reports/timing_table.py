"""How long servers, schemas, set-up and teardown took: the table of ``--asyncdb-stats``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._record.text import duration

if TYPE_CHECKING:
    from pytest_asyncdb._record.timings import Durations
    from pytest_asyncdb._run.run import Run

#: What is measured in a strategy, with its name in the table.
_PARTS = {"database": "database", "set_up": "set-up", "teardown": "teardown"}
_COLUMNS = ("count", "total", "median", "longest")


def collect(run: Run) -> dict[str, Any]:
    """The numbers of a run as JSON values; all times in seconds.

    Returns:
        ``seconds`` of the run, ``workers``, and ``backends``: by the backend as the user wrote it,
        ``server`` (``provider``, ``seconds``; None: none was started), ``schema``, ``seed``, and
        ``strategies``: by name ``database`` (a worker's first), ``set_up``, ``teardown``. Each
        has ``count``, ``total``, ``median``, ``longest`` and ``test``, that of the longest.
    """
    totals = run.timing_totals
    backends = {}
    for spec in run.settings.specs:
        word = str(spec)
        server = run.owned.started(spec) if run.owned is not None else None
        built = {part: totals.built.get((word, part)) for part in ("schema", "seed")}
        strategies = sorted({isolation for one, isolation, _ in totals.tests if one == word})
        if server is None and not strategies and not any(built.values()):
            continue
        backends[word] = {
            "server": server and {"provider": server.provider, "seconds": server.seconds},
            **{part: _numbers(durations) for part, durations in built.items()},
            "strategies": {
                name: {part: _numbers(totals.tests.get((word, name, part))) for part in _PARTS}
                for name in strategies
            },
        }
    seconds = time.perf_counter() - run.timer.began
    return {"seconds": seconds, "workers": max(1, len(totals.workers)), "backends": backends}


def _numbers(durations: Durations | None) -> dict[str, Any]:
    numbers = sorted(durations.seconds) if durations is not None else []
    return {
        "count": len(numbers),
        "total": sum(numbers),
        "median": numbers[len(numbers) // 2] if numbers else 0.0,
        "longest": numbers[-1] if numbers else 0.0,
        "test": durations.longest_test if durations is not None else None,
    }


def table(found: Mapping[str, Any]) -> list[str]:
    """The lines for ``--asyncdb-stats``."""
    if not found["backends"]:
        return ["asyncdb: no times: the run used no database"]
    workers = f" by {found['workers']} workers" if found["workers"] > 1 else ""
    lines = [f"asyncdb: times of a run of {duration(found['seconds'])}{workers}"]
    for word, backend in found["backends"].items():
        lines.append(f"  {word:<26}" + "".join(f"{name:>12}" for name in _COLUMNS))
        if server := backend["server"]:
            title = f"    server ({server['provider']})"
            lines.append(f"{title:<40}{duration(server['seconds']):>12}")
        lines += _row("schema", backend["schema"])
        lines += _row("seed", backend["seed"])
        for name, parts in backend["strategies"].items():
            for part, title in _PARTS.items():
                lines += _row(f"{name}: {title}", parts[part])
    return lines


def _row(title: str, numbers: Mapping[str, Any]) -> Iterator[str]:
    if not numbers["count"]:
        return
    cells = "".join(f"{duration(numbers[name]):>12}" for name in _COLUMNS[1:])
    yield f"    {title:<24}{numbers['count']:>12}{cells}"
    if numbers["test"] and numbers["count"] > 1:
        yield f"      longest: {numbers['test']}"
