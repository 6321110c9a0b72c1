"""The tables of docs/reference.md say what the code says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_asyncdb
from pytest_asyncdb import errors, fixtures, hookspecs
from pytest_asyncdb._config.markers import _KEYS
from pytest_asyncdb._config.option_table import OPTIONS
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._databases import messages as database_messages
from pytest_asyncdb._run import messages as run_messages
from pytest_asyncdb._run.handle import Asyncdb
from pytest_asyncdb.abc import Capabilities
from pytest_asyncdb.isolation import messages
from pytest_asyncdb.reports.hints import HINTS
from pytest_asyncdb.servers import messages as server_messages

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The first table below a heading, cells without backquotes, without its head."""
    section = re.split(r"^## ", REFERENCE, flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith(heading + "\n"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [
        [cell.strip().replace("`", "").replace("\\|", "|") for cell in _cells(row)]
        for row in rows[2:]
    ]


def _cells(row: str) -> list[str]:
    return re.split(r"(?<!\\)\|", row.strip())[1:-1]


def public_fixtures() -> Iterator[tuple[str, str]]:
    """Every fixture of the plugin with its scope, by introspection."""
    for name, value in vars(fixtures).items():
        if type(value).__name__ == "FixtureFunctionDefinition" and not name.startswith("_"):
            yield name, value._fixture_function_marker.scope


def test_the_options_are_those_of_the_code() -> None:
    """Flag with metavar, environment, ini, default: word for word and in order."""
    expected = [
        [
            "=".join(filter(None, (option.flag, option.metavar))) if option.flag else "",
            option.env or "",
            option.ini or "",
            option.default,
        ]
        for option in OPTIONS
    ]
    assert table("Options") == expected


def test_every_option_is_explained() -> None:
    """Each has an entry with an anchor and a line in the index."""
    text = REFERENCE.partition("## Options")[2].partition("## Fixtures")[0]
    found = re.findall(r"^:::\{(?:option|confval)\} ([\w-]+)", text, re.MULTILINE)
    assert found == [option.flag or option.ini for option in OPTIONS]


def test_every_fixture_and_argument_has_an_anchor_and_is_in_the_index() -> None:
    """Links lead to one fixture, not to the page."""
    for kind, what, names in (
        ("fixture", "fixture", [name for name, _ in public_fixtures()]),
        ("marker", "marker argument", ["backends", *_KEYS]),
    ):
        for name in names:
            anchor = f"({kind}-{name.replace('_', '-')})="
            assert f"{anchor}\n```{{index}} single: {name} ({what})\n```" in REFERENCE


def test_the_fixtures_are_those_of_the_code() -> None:
    """Name and scope, in the order of the code."""
    assert [tuple(row[:2]) for row in table("Fixtures")] == list(public_fixtures())


def test_the_handle_is_that_of_the_code() -> None:
    """Its public attributes, with the parameters of methods."""
    written = {row[0].removeprefix("await ") for row in table("The handle")}
    found = set()
    for name, value in vars(Asyncdb).items():
        if isinstance(value, property):
            found.add(name)
        elif callable(value) and not name.startswith("_"):
            parameters = list(inspect.signature(value).parameters.values())[1:]
            bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
            found.add(name + str(inspect.Signature(bare)))
    assert written == {*found, "backend"}


def test_every_fixture_says_its_scope_and_cost() -> None:
    """What ``pytest --fixtures`` prints, and what the reference relies on."""
    for name, _ in public_fixtures():
        text = inspect.getdoc(getattr(fixtures, name)._get_wrapped_function()) or ""
        assert "Scope: " in text, name
        assert len(text.splitlines()[0]) <= 88, name
        assert text.splitlines()[0].endswith("."), name


def test_the_marker_has_the_arguments_of_the_code() -> None:
    """The backends, then the keys."""
    assert {row[0] for row in table("Marker")} == {"*backends", *_KEYS}


def test_the_backends_are_those_of_the_code() -> None:
    """Their words and drivers, the default first."""
    registry = Registry()
    expected = [
        [name, ", ".join(driver.name for driver in registry.backend(name).drivers)]
        for name in registry.backends
    ]
    assert [row[:2] for row in table("Naming backends")] == expected


def test_the_capabilities_are_those_of_the_code() -> None:
    """Each capability of each backend."""
    registry = Registry()
    expected = [
        [
            field,
            *(
                "yes" if getattr(registry.backend(name).capabilities, field) else "no"
                for name in registry.backends
            ),
        ]
        for field in Capabilities._fields
    ]
    assert table("Capabilities") == expected


def test_the_hooks_are_those_of_the_code() -> None:
    """Every function of ``hookspecs.py``."""
    names = [name for name in vars(hookspecs) if name.startswith("pytest_")]
    assert [row[0] for row in table("Hooks")] == names


def test_every_exception_is_public() -> None:
    """Every child of AsyncdbError can be imported from the package."""
    names = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.AsyncdbError)
    }
    assert names <= set(pytest_asyncdb.__all__)


BREACHES: dict[str, list[errors.AsyncdbError | str]] = {
    "docs/troubleshooting.md": [
        *(
            text.headline.format(statement="…", what="…", level="…", seconds=10)
            for text in vars(messages).values()
            if isinstance(text, messages.Text)
        ),
        run_messages.needs_independent("asyncdb.connections()", "t").headline,
        run_messages.no_metadata(),
        run_messages.used_in_building("app.db:engine", "u"),
        server_messages.server_start("PostgreSQL", "local", "", ""),
    ],
    "docs/loops.md": [run_messages.on_trio("t", "anyio_backend", "r")],
    "docs/howto/migrations.md": [
        database_messages.foreign_database("…", "…", "asyncdb_migrations in pytest.ini")
    ],
    "docs/howto/seeds.md": [
        database_messages.seed_failed("PostgreSQL", ValueError()),
        database_messages.seed_reuses_object("PostgreSQL", "User"),
        database_messages.not_copied(ValueError()),
    ],
}


@pytest.mark.parametrize("page", BREACHES)
def test_headings_are_literal_error_messages(page: str) -> None:
    """Who searches for the message finds the page."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    headings = [line.lstrip("# ") for line in lines if line.startswith("#")]
    for error in BREACHES[page]:
        headline = error.headline if isinstance(error, errors.AsyncdbError) else error
        assert headline in headings


def _troubles() -> Iterator[str]:
    """The messages of the page, as hints see them: ``Class code: message``."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    found = re.findall(r"^### (.*)$", page, re.MULTILINE)
    for also in re.findall(r"^Also: (.*?)\n\n", page, re.MULTILINE | re.DOTALL):
        found += re.findall(r"`([^`]+)`", " ".join(also.split()))
    for message in found:
        yield message
        yield re.sub(r"^(\w+): ", r"\1 -: ", message)
        for cls in ("RuntimeError", "Failed", "AttributeError"):
            yield f"{cls} -: {message}"


def test_the_page_on_troubles_has_the_errors_that_have_a_hint() -> None:
    """By a message in a heading or behind "Also:"; hints for texts of several lines have none."""
    troubles = list(_troubles())
    patterns = {hint.means: [hint.database or "", hint.python or ""] for hint in HINTS}
    missing = [
        means
        for means, of_hint in patterns.items()
        if not any(re.search(p, text) for p in of_hint if p for text in troubles)
        and "\\n" not in "".join(of_hint)
    ]
    assert missing == []
