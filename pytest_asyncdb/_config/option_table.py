"""The table of options.

pytest's options, ``--help`` and the reading of values are made from it, and docs/reference.md is
compared with it. This module does not import SQLAlchemy.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import pytest

ISOLATIONS = ("rollback", "reset", "copy")
PROVIDERS = ("auto", "url", "embedded", "container", "local")

#: Flags and variables that do not follow from the option's name.
_FLAGS = {"backends": "--asyncdb", "urls": "--asyncdb-url"}
_VARIABLES = {"urls": "ASYNCDB_<BACKEND>_URL"}


class Option(NamedTuple):
    """One setting, with the same word on the command line, in the environment and in the ini file.

    Args:
        places: Where it may be given: ``flag``, ``env``, ``ini``.
        metavar: The word for its value in ``--help``; None: it is a switch.
        choices: The allowed values of a setting that has one value; empty: checked elsewhere.
        repeated: True if the flag may be repeated.
    """

    name: str
    help: str
    places: str = "flag env ini"
    metavar: str | None = None
    default: str = ""
    choices: tuple[str, ...] = ()
    repeated: bool = False

    @property
    def flag(self) -> str | None:
        word = _FLAGS.get(self.name, f"--asyncdb-{self.name.replace('_', '-')}")
        return word if "flag" in self.places else None

    @property
    def env(self) -> str | None:
        word = _VARIABLES.get(self.name, f"ASYNCDB_{self.name.upper()}")
        return word if "env" in self.places else None

    @property
    def ini(self) -> str | None:
        return f"asyncdb_{self.name}" if "ini" in self.places else None

    @property
    def is_switch(self) -> bool:
        return "flag" in self.places and self.metavar is None


OPTIONS = (
    Option(
        "backends",
        "backends that database tests run on: backend[+driver][@version], separated by commas, "
        "or all",
        metavar="SPECS",
        default="sqlite",
    ),
    Option(
        "urls",
        "URL of a running server; may be repeated",
        metavar="[BACKEND=]URL",
        repeated=True,
    ),
    Option(
        "allow_hosts",
        "hosts of test servers, besides this machine and names without a dot; separated by "
        "commas, * matches anything",
        metavar="HOSTS",
    ),
    Option(
        "server",
        "where servers come from: auto, url, embedded, container or local; separated by commas",
        metavar="[BACKEND=]PROVIDER",
        default="auto",
    ),
    Option(
        "image",
        "image of a backend's containers, in place of the official one; separated by commas",
        metavar="[BACKEND[@VERSION]=]IMAGE",
    ),
    Option(
        "isolation",
        "how tests are isolated from each other: rollback, reset or copy",
        metavar="STRATEGY",
        default="rollback",
        choices=ISOLATIONS,
    ),
    Option(
        "missing",
        "outcome of tests whose backend is not available",
        metavar="error|skip",
        default="error",
        choices=("error", "skip"),
    ),
    Option("reuse", "keep servers and template databases for the next run"),
    Option("keep", "keep databases of failed tests, print the commands that open them", "flag"),
    Option(
        "report",
        "write the outcomes of database tests by backend to a .json or .html file",
        "flag",
        metavar="FILE",
    ),
    Option("doctor", "check installation and configuration, run no test", "flag"),
    Option("stats", "show the times of servers, schemas, set-up and teardown", "flag"),
    Option(
        "sql",
        "statements in the report of a failed test: none, the last five on a line each, or all",
        metavar="no|short|all",
        default="short",
        choices=("no", "short", "all"),
    ),
    Option(
        "metadata",
        "the tables: module:attribute of a MetaData or declarative base, separated by commas",
        "ini",
    ),
    Option(
        "databases",
        "the backend of a database that asyncdb_metadata names, if it is not that of the test: "
        "NAME=SPEC, separated by commas",
        "ini",
    ),
    Option(
        "migrations",
        "Alembic's configuration, an alembic.ini or pyproject.toml: build the tables with it "
        "instead of create_all; with NAME= before it, that of another database",
        "ini",
    ),
    Option(
        "seed",
        "SQL files that fill the tables, as patterns relative to rootdir; of one pattern in the "
        "order of their names; with NAME= before it, for another database",
        "ini",
    ),
    Option(
        "inputs",
        "files and folders that asyncdb_migrate and asyncdb_seed read or import, as patterns "
        "relative to rootdir: when one changes, --asyncdb-reuse builds the databases again",
        "ini",
    ),
    Option(
        "extensions",
        "extensions of PostgreSQL that every database of the tests has, separated by commas",
        "ini",
    ),
    Option(
        "server_settings",
        "settings of the servers that the run starts: BACKEND: NAME=VALUE, NAME=VALUE; BACKEND: …",
        "ini",
    ),
    Option(
        "app_engines",
        "the application's engines, which connect to the test's database during a test: "
        "module:attribute of an AsyncEngine, an async_sessionmaker or a function that returns one, "
        "separated by commas, with - before an engine that keeps its own database",
        "ini",
    ),
    Option(
        "other_engines",
        "engines that connect to another database than the test's: report or refuse",
        "ini",
        default="report",
        choices=("report", "refuse"),
    ),
)


def add_options(parser: pytest.Parser) -> None:
    """Register :data:`OPTIONS` with pytest: their flags, and the lines of the ini file."""
    group = parser.getgroup("asyncdb", "async databases (pytest-asyncdb)")
    for option in OPTIONS:
        if option.flag is not None:
            action = "append" if option.repeated else "store_true" if option.is_switch else "store"
            metavar = {} if option.is_switch else {"metavar": option.metavar}
            group.addoption(
                option.flag,
                action=action,
                help=option.help,
                dest=f"asyncdb_{option.name}",
                default=None,
                **metavar,
            )
        if option.ini is not None:
            # The others may have several values; in TOML the ini file may give a list.
            single = option.choices or option.is_switch
            kind: Literal["linelist", "string"] = "string" if single else "linelist"
            parser.addini(option.ini, option.help, type=kind, default="")
