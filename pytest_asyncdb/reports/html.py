"""The report as one HTML page, which loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from pytest_asyncdb._record.text import duration
from pytest_asyncdb.reports.outcome import summary

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(content: dict[str, Any]) -> str:
    """The whole page for a report's content."""
    return "\n".join(_page(content)) + "\n"


def _page(content: dict[str, Any]) -> Iterator[str]:
    backends, tests = content["backends"], content["tests"]
    number = sum(map(len, content["differences"].values()))
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>asyncdb: {number} of {len(tests)} tests differ</title>"
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    yield f"<style>\n{style}</style>\n</head>\n<body>\n<main>"
    yield f"<h1>{number} of {len(tests)} tests differ between backends</h1>"
    if number:
        causes = (f"<li>{escape(c)}: {len(t)}</li>" for c, t in content["differences"].items())
        yield f"<ul>{''.join(causes)}</ul>"
    if content["left_out"]:
        yield f"<p>Not compared, no test was set up: {escape(', '.join(content['left_out']))}</p>"
    yield '<label><input type="checkbox" id="only"> only tests that differ</label>'
    yield '<div class="wide" tabindex="0" role="region" aria-label="Tests">'
    yield f'<table style="--backends: {len(backends)}"><thead><tr>'
    yield '<th scope="col">Test</th><th scope="col">Cause</th>'
    for backend in backends:
        yield f'<th scope="col">{escape(backend).replace("+", "+<wbr>")}</th>'
    yield "</tr></thead><tbody>"
    yield from (_row(test, backends) for test in tests)
    yield "</tbody></table></div>\n</main>\n</body>\n</html>"


def _row(test: dict[str, Any], backends: list[str]) -> str:
    name, cause = escape(test["test"]), escape(test["cause"] or "")
    details = escape("\n".join(_details(backend, cell) for backend, cell in test["on"].items()))
    return (
        f"<tr{' data-cause' if cause else ''}>"
        f'<th scope="row"><details>'
        f"<summary>{name}</summary><p>{details}</p></details></th><td>{cause}</td>"
        + "".join(_cell(test["on"].get(backend)) for backend in backends)
        + "</tr>"
    )


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "<td></td>"
    outcome = cell["outcome"]
    style = {"passed": "good", "failed": "bad", "error": "bad"}.get(outcome, "")
    seconds = sum(cell["seconds"].values())
    return f'<td class="{style}">{outcome} <small>{duration(seconds)}</small></td>'


def _details(backend: str, cell: dict[str, Any]) -> str:
    times = ", ".join(f"{when} {duration(s)}" for when, s in cell["seconds"].items())
    lines = [f"{cell['outcome']}: {times}"]
    if error := cell["error"]:
        lines.append(f"in {error['when']}: {summary(error)}")
        if error["code"]:
            lines.append(f"code {error['code']}")
        if error["statement"]:
            lines.append(error["statement"])
    return f"{backend} " + "\n    ".join(lines)
