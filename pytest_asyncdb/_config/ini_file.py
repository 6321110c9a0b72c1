"""Reads lines of the ini file. Its format gives them different types: text, list or boolean."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._config.option_table import OPTIONS
from pytest_asyncdb._system.messages import near_miss


def read_line(config: pytest.Config, name: str) -> str:
    """Return the line *name* as text; empty if there is none. Values of a list are on separate
    lines."""
    try:
        value = config.getini(name)
    except (TypeError, pytest.UsageError):  # TOML has types: not a list, or a boolean
        value = _lines(config)[name]
    return ("\n".join(map(str, value)) if isinstance(value, list) else str(value)).strip()


def ini_name(config: pytest.Config) -> str:
    """Return the name of the ini file, for errors."""
    return config.inipath.name if config.inipath is not None else "-o"


def refuse_unknown_lines(config: pytest.Config) -> None:
    """Refuse a line that begins with the plugin's prefix and that no plugin has registered.

    Raises:
        ConfigError: There is such a line.
    """
    known = [option.ini for option in OPTIONS if option.ini]
    for name in (name for name in _lines(config) if name.startswith("asyncdb")):
        try:
            config.getini(name)
        except ValueError:
            near = ["asyncdb_backends"] if name == "asyncdb" else known  # the option is --asyncdb
            raise errors.ConfigError(
                f"unknown option {name!r}{near_miss(name, near)} ({ini_name(config)})",
                [f"Known: {', '.join(known)}."],
                ["correct the name, or delete the line"],
            ) from None
        except (TypeError, pytest.UsageError):  # registered with another type
            pass


def _lines(config: pytest.Config) -> Mapping[str, Any]:
    """Return all lines as they were read. pytest has no other public name for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(config.inicfg)
