"""How long servers, schemas, set-up and teardown took: the summary's table, and what stands out.

The limits are for what a user wants to know of without having asked; the page
``docs/howto/times.md`` tells them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_asyncdb._record.timings import Series
    from pytest_asyncdb._run.run import Run

#: Seconds that are ordinary: for the start of a server (three containers on two cores took 25),
SERVER = 60.0
#: for the schema and seed of one template, and for a worker's first database from it,
TEMPLATE = 10.0
#: for the set-up, or the teardown, of one test;
ONE = 3.0
#: for all of these in a run, as long as they are not more than this share of it, too.
ALL, SHARE = 10.0, 0.5

#: What is measured in a strategy, with its name in the table.
_PARTS = {"database": "database", "set_up": "set-up", "teardown": "teardown"}
_COLUMNS = ("count", "total", "median", "longest")


def collect(run: Run) -> dict[str, Any]:
    """The numbers of a run, as plain data; all times in seconds.

    Returns:
        ``seconds`` of the run, ``workers``, and ``backends``: by the backend as it was written,
        ``server`` (``provider``, ``seconds``; None: none was started), ``schema``, ``seed``, and
        ``strategies``: by name ``database`` (a worker's first), ``set_up``, ``teardown``. Each
        has ``count``, ``total``, ``median``, ``longest`` and ``test``, the longest one's.
    """
    noted = run.noted
    backends = {}
    for spec in run.settings.specs:
        word = str(spec)
        server = run.owned.started(spec) if run.owned is not None else None
        built = {part: noted.built.get((word, part)) for part in ("schema", "seed")}
        strategies = sorted({isolation for one, isolation, _ in noted.tests if one == word})
        if server is None and not strategies and not any(built.values()):
            continue
        backends[word] = {
            "server": server and {"provider": server.provider, "seconds": server.seconds},
            **{part: _numbers(series) for part, series in built.items()},
            "strategies": {
                name: {part: _numbers(noted.tests.get((word, name, part))) for part in _PARTS}
                for name in strategies
            },
        }
    seconds = time.perf_counter() - run.times.began
    return {"seconds": seconds, "workers": max(1, len(noted.workers)), "backends": backends}


def _numbers(series: Series | None) -> dict[str, Any]:
    numbers = sorted(series.numbers) if series is not None else []
    return {
        "count": len(numbers),
        "total": sum(numbers),
        "median": numbers[len(numbers) // 2] if numbers else 0.0,
        "longest": series.longest if series is not None else 0.0,
        "test": series.test if series is not None else None,
    }


def table(found: Mapping[str, Any]) -> list[str]:
    """The lines for ``--asyncdb-stats``."""
    workers = found["workers"]
    by = f" by {workers} workers" if workers > 1 else ""
    if not found["backends"]:
        return ["asyncdb: no times: the run used no database"]
    lines = [f"asyncdb: times of a run of {_text(found['seconds'])}{by}"]
    for word, backend in found["backends"].items():
        lines.append(f"  {word:<26}" + "".join(f"{name:>12}" for name in _COLUMNS))
        if server := backend["server"]:
            lines.append(f"    server ({server['provider']})".ljust(40) + _right(server["seconds"]))
        lines += _row("schema", backend["schema"])
        lines += _row("seed", backend["seed"])
        for name, parts in backend["strategies"].items():
            for part, title in _PARTS.items():
                lines += _row(f"{name}: {title}", parts[part])
    return lines


def _row(title: str, series: Mapping[str, Any]) -> Iterator[str]:
    if not series["count"]:
        return
    cells = "".join(_right(series[name]) for name in _COLUMNS[1:])
    yield f"    {title:<24}{series['count']:>12}{cells}"
    if series["test"] and series["count"] > 1:
        yield f"      longest: {series['test']}"


def unusual(found: Mapping[str, Any]) -> list[str]:
    """A line for each time that is out of the ordinary."""
    lines: dict[str, None] = {}
    for word, backend in found["backends"].items():
        server = backend["server"]
        if server and server["seconds"] > SERVER:
            # Two drivers share one server.
            name = word.partition("+")[0] + word[word.find("@") :] * ("@" in word)
            took = f"took {_text(server['seconds'])} to start"
            lines[f"{name}: the server ({server['provider']}) {took}{_over(SERVER)}"] = None
        for what in ("schema", "seed"):
            if backend[what]["longest"] > TEMPLATE:
                took = f"took {_text(backend[what]['longest'])}"
                lines[f"{word}: the {what} {took}{_over(TEMPLATE)}"] = None
        for name, parts in backend["strategies"].items():
            for line in _of_strategy(parts, found["seconds"] * found["workers"]):
                lines[f"{word}, {name}: {line}"] = None
    return [f"asyncdb: slow: {line}" for line in lines]


def _of_strategy(parts: Mapping[str, Any], run: float) -> Iterator[str]:
    if (first := parts["database"])["longest"] > TEMPLATE:
        took = f"took {_text(first['longest'])}"
        yield f"a worker's first database {took}{_over(TEMPLATE)}: {first['test']}"
    for part in ("set_up", "teardown"):
        if (series := parts[part])["longest"] > ONE:
            took = f"took {_text(series['longest'])}"
            yield f"a {_PARTS[part]} {took}{_over(ONE)}: {series['test']}"
    total = parts["set_up"]["total"] + parts["teardown"]["total"]
    if total > max(ALL, SHARE * run):
        yield f"set-up and teardown took {_text(total)}, over half of the run's {_text(run)}"


def _over(limit: float) -> str:
    return f" (over {limit:g} s)"


def _right(seconds: float) -> str:
    return f"{_text(seconds):>12}"


def _text(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{0 if seconds >= 0.01 else 2}f} ms"
