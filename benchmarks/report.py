"""The table, as text, as JSON, and as a block of a page."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Measured, Result

HEADER = ("what", "on", "target", "reached", "p10 to p90", "fastest", "", "medians")
#: Around a block of a page that ``--docs`` writes.
BEGIN, END = "<!-- {}: begin, written by --docs -->", "<!-- {}: end -->"

_PACKAGES = (
    *("pytest-asyncdb", "pytest", "pytest-asyncio", "pytest-xdist", "pytest-sqla", "SQLAlchemy"),
    *("aiosqlite", "asyncpg", "psycopg", "asyncmy", "aiomysql"),
)
_FACTORS = {"×": 1.0, "s": 1.0, "ms": 1000.0, "calls": 1.0}
_PLACES = {"×": 2, "s": 2, "ms": 1, "calls": 0}


def row(result: Result) -> tuple[str, ...]:
    """A line of the table."""
    target = "" if result.target is None else f"≤ {_number(result.target, result.unit)}"
    if result.reached is None:
        reason = result.problem.strip().splitlines()[0 if not result.failed else -1]
        return (result.what, result.word, target, "", "", "", result.verdict, reason)
    reached, unit = result.reached, result.unit
    return (
        result.what,
        result.word,
        target,
        _number(reached.median, unit),
        f"{_digits(reached.low, unit)} to {_digits(reached.high, unit)}",
        "" if result.fastest is None else _digits(result.fastest.median, unit),
        result.verdict,
        ", ".join(f"{name} {_taken(taken, unit)}" for name, taken in result.variants.items()),
    )


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> str:
    """Lines of a Markdown table, its columns aligned."""
    lines = [header, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header))]

    def text(cells: Iterable[str]) -> str:
        padded = (cell.replace("|", "/").ljust(w) for cell, w in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    return "\n".join([text(header), text("-" * w for w in widths), *map(text, rows)])


def surroundings(command: str, servers: Mapping[str, str]) -> dict[str, Any]:
    """Where, when and with what was measured."""
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} × {_processor()}, {platform.system()}",
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "servers": dict(servers),
    }


def statements(results: Sequence[Result]) -> str:
    """A table of what statements cost: a line for each driver and strategy."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        kind, strategy = result.what.partition(" : ")[0].split(", ")
        cells = lines.setdefault((result.word, strategy), {})
        cells[kind] = result.verdict
        if (reached := result.reached) is not None:
            spread = f"{_digits(reached.low, '×')} to {_digits(reached.high, '×')}"
            cells[kind] = f"{_digits(reached.median, '×')} ({spread})"
    kinds = list(next(iter(lines.values()), {}))
    rows = [(*line, *(cells[kind] for kind in kinds)) for line, cells in lines.items()]
    return table(rows, ("on", "strategy", *kinds))


def plot(path: Path, results: Sequence[Result]) -> None:
    """An SVG of the processor time of a whole suite, with the plugin and with each contender.

    Nothing where the suite was not measured, or without matplotlib.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        return
    shown = [r for r in results if r.what.startswith("whole suite, processor time") and r.reached]
    bars: dict[tuple[str, str], Measured] = {}
    for result in shown:
        for name, taken in result.variants.items():
            bars.setdefault((result.word, name), taken)
    if not bars:
        return
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.35 * len(bars)), layout="constrained")
    for y, ((_, name), taken) in enumerate(reversed(bars.items())):
        colour = "#1b7837" if name == "asyncdb" else "#9e9e9e"
        axes.barh(y, taken.median, color=colour)
        axes.hlines(y, taken.low, taken.high, color="black", linewidth=1)
    labels = [f"{name}, {word}" for word, name in reversed(bars)]
    axes.set_yticks(range(len(bars)), labels)
    axes.set_xlabel("seconds of the processor, median and spread; shorter is better")
    axes.grid(axis="x", linewidth=0.3)
    axes.set_axisbelow(True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def write_json(path: Path, results: Sequence[Result], around: Mapping[str, Any]) -> None:
    lines = [{**dataclasses.asdict(result), "verdict": result.verdict} for result in results]
    text = json.dumps({**around, "results": lines}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_docs(path: Path, table: str, around: Mapping[str, Any], block: str = "benchmark") -> None:
    """Replace the block of that name, between its two comments.

    Raises:
        ValueError: The page has no such block.
    """
    before, begin, rest = path.read_text("utf-8").partition(BEGIN.format(block))
    _, end, after = rest.partition(END.format(block))
    if not begin or not end:
        raise ValueError(f"{path} has no block {block!r}")
    versions = ", ".join(f"{name} {found}" for name, found in around["versions"].items())
    servers = "; ".join(f"{name} {text}" for name, text in around["servers"].items())
    written = [
        f"`{around['command']}`, {around['date']}",
        table,
        f"{around['machine']}; Python {around['python']}, {versions}"
        + (f"; servers: {servers}." if servers else "."),
    ]
    text = "\n\n".join([before + begin, *written, end + after])
    path.write_text(text, encoding="utf-8")


def _number(value: float, unit: str) -> str:
    return f"{_digits(value, unit)} {unit}"


def _digits(value: float, unit: str) -> str:
    return f"{value * _FACTORS[unit]:,.{_PLACES[unit]}f}"


def _taken(taken: Measured, unit: str) -> str:
    if unit == "calls":
        return _digits(taken.median, unit)
    if taken.median >= 1:
        return f"{taken.median:.2f} s"
    return f"{taken.median * 1000:.2f} ms"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
