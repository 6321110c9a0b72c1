"""The report as one HTML page, which loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from pytest_asyncdb._record.text import duration
from pytest_asyncdb.reports.outcome import summary

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1b1f; --soft: #5a5a66;
  --line: #d5d5dc; --head: #f1f1f5; --good: #11632f; --bad: #a8071a; --mark: #fdecee;
  --focus: #0b57d0; }
@media (prefers-color-scheme: dark) {
  :root { --back: #17181c; --text: #e7e7ea; --soft: #a6a6b3; --line: #383a42; --head: #22242a;
    --good: #74d394; --bad: #ff9a9f; --mark: #3a1f24; --focus: #8ab4ff; }
}
body { margin: 1rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 1px; }
.wide { overflow-x: auto; }
table, thead, tbody { display: block; min-width: calc(28rem + var(--backends) * 8rem); }
/* The browser lays out visible rows only: a page of thousands of tests opens at once. */
tbody { content-visibility: auto; contain-intrinsic-size: auto 100rem; }
tr { display: grid; border-bottom: 1px solid var(--line);
  grid-template-columns: minmax(20rem, 1fr) 8rem repeat(var(--backends), 8rem); }
th, td { padding: .25rem .5rem; text-align: left; min-width: 0; }
thead th { background: var(--head); }
tbody th { font-weight: normal; overflow-wrap: anywhere; }
td { white-space: nowrap; }
td small { color: var(--soft); }
.good { color: var(--good); }
.bad { color: var(--bad); background: var(--mark); font-weight: 600; }
summary { cursor: pointer; word-break: break-all; }
details p { margin: .5rem 0 .5rem 1rem; font-size: .9rem; white-space: pre-wrap; }
body:has(#only:checked) tbody tr:not([data-cause]) { display: none; }
"""

#: Rows of one tbody, which the browser lays out together.
_TOGETHER = 50

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
    yield f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>"
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
    yield "</tr></thead>"
    for start in range(0, len(tests), _TOGETHER):
        yield "<tbody>"
        for test in tests[start : start + _TOGETHER]:
            yield _row(test, backends)
        yield "</tbody>"
    yield "</table></div>\n</main>\n</body>\n</html>"


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
