"""Reads ``Settings`` from command line, environment and ini file; the first that has a value
counts.

Every value knows its source, for errors. The options themselves are in ``option_table``. This
module does not import SQLAlchemy.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_asyncdb import errors
from pytest_asyncdb._config import specs
from pytest_asyncdb._config.option_table import OPTIONS, PROVIDERS, Option
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._config.server_options import parse_images, parse_server_settings
from pytest_asyncdb.values import BackendSpec, Sourced

#: The words that pytest's own ini options take for yes and no.
_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")


class Settings(NamedTuple):
    """The run's settings, checked, each with its source."""

    specs: tuple[BackendSpec, ...]
    #: By the name of a database: its backend, if it is not the test's.
    databases: Mapping[str, BackendSpec]
    #: By backend, or by backend and version: ``postgres``, ``postgres@16``.
    urls: Mapping[str, Sourced[str]]
    #: Provider by backend; the key ``*`` is for all others.
    providers: Mapping[str, Sourced[str]]
    #: Images that the user wants, by backend, or by backend and version.
    images: Mapping[str, Sourced[str]]
    #: By backend: settings, by name, of the servers that the run starts.
    server_settings: Mapping[str, Sourced[Mapping[str, str]]]
    #: Extensions that each database has (PostgreSQL).
    extensions: tuple[str, ...]
    allow_hosts: Sourced[str]
    isolation: Sourced[str]
    missing: Sourced[str]
    reuse: bool
    #: True if the databases of failed tests are kept.
    keep: bool
    metadata: Sourced[str]
    #: By database: the absolute path of Alembic's configuration. None stands for the first
    #: database.
    migrations: Sourced[Mapping[str | None, Path]]
    #: The files that ``asyncdb_inputs`` names.
    inputs: tuple[Path, ...]
    #: By database: the SQL files that ``asyncdb_seed`` names. None stands for the first database.
    seed: Mapping[str | None, tuple[Path, ...]]
    app_engines: Sourced[str]
    #: What happens when an engine connects to another database than the test's.
    other_engines: Sourced[str]
    #: True if the doctor runs instead of the tests.
    doctor: bool
    #: The file for the outcomes of tests; empty: none.
    report: Sourced[str]
    #: True if all times are shown at the end.
    stats: bool
    #: Which statements the report of a failed test shows: ``no``, ``short`` or ``all``.
    sql: Sourced[str]

    @property
    def all_specs(self) -> tuple[BackendSpec, ...]:
        """The backends of the tests, and those of databases that have another one."""
        words = [str(spec) for spec in self.specs]
        others = {str(spec): spec for spec in self.databases.values()}
        return (*self.specs, *(spec for word, spec in others.items() if word not in words))

    @property
    def compares(self) -> bool:
        """Whether the outcomes of tests are collected."""
        return len(self.specs) > 1 or bool(self.report.value)

    def provider(self, backend: str) -> Sourced[str]:
        """Return the provider that the user wants for *backend*: a name, or ``auto``."""
        return self.providers.get(backend, self.providers["*"])

    def url(self, spec: BackendSpec) -> Sourced[str] | None:
        """Return the URL that the user gave for *spec*: for its version, else for its backend."""
        return self.urls.get(specs.versioned(spec), self.urls.get(spec.backend))

    def image(self, spec: BackendSpec) -> Sourced[str] | None:
        """Return the image that the user gave for *spec*: for its version, else for its backend."""
        return self.images.get(specs.versioned(spec), self.images.get(spec.backend))


def read_settings(config: pytest.Config, registry: Registry) -> Settings:
    """Read and check every setting.

    Raises:
        ConfigError: A value is wrong, or two contradict each other.
    """
    _refuse_unknown_lines(config)
    _warn_of_variables(config, registry)
    values: dict[str, Any] = {}
    for option in OPTIONS:
        if not option.repeated:
            value = _read(config, option)
            values[option.name] = value.value.lower() in _YES if option.is_switch else value
    backends = specs.parse_specs(values.pop("backends"), registry)
    databases = specs.parse_databases(values.pop("databases"), registry)
    settings = Settings(
        specs=backends,
        databases=databases,
        images=parse_images(values.pop("image"), (*backends, *databases.values()), registry),
        server_settings=parse_server_settings(values.pop("server_settings"), registry),
        extensions=tuple(values.pop("extensions").value.replace(",", " ").split()),
        urls=dict(_urls(config, registry)),
        providers=_providers(values.pop("server"), registry),
        migrations=_migrations(config, values.pop("migrations")),
        inputs=tuple(chain.from_iterable(_files(config, values.pop("inputs")).values())),
        seed=_files(config, values.pop("seed")),
        **values,
    )
    report = settings.report
    if report.value and not report.value.endswith((".json", ".html")):
        remedy = "give a name that ends in .json or .html"
        raise errors.ConfigError(f"a report is JSON or HTML ({report.source})", [], [remedy])
    _check_contradictions(settings)
    if not settings.doctor and settings.missing.value == "error":
        for spec in settings.all_specs:
            if spec.source != "default":  # else the first database test finds out
                registry.driver(spec)
    return settings


def check_hosts(settings: Settings) -> None:
    """Refuse the URLs of servers that may hold real data.

    Raises:
        ConfigError: This run would use such a URL.
    """
    used = [s for s in settings.all_specs if settings.provider(s.backend).value in ("auto", "url")]
    for url in dict.fromkeys(url for spec in used if (url := settings.url(spec)) is not None):
        from pytest_asyncdb._config.urls import check_host

        check_host(url, settings.allow_hosts.value)


def _read_line(config: pytest.Config, name: str) -> str:
    """Return the line *name* as text; empty if there is none. Values of a list are on separate
    lines."""
    try:
        value = config.getini(name)
    except (TypeError, pytest.UsageError):  # TOML has types: not a list, or a boolean
        value = _lines(config)[name]
    return ("\n".join(map(str, value)) if isinstance(value, list) else str(value)).strip()


def _ini_name(config: pytest.Config) -> str:
    """Return the name of the ini file, for errors."""
    return config.inipath.name if config.inipath is not None else "-o"


def _refuse_unknown_lines(config: pytest.Config) -> None:
    """Refuse a line that begins with the plugin's prefix and that no plugin has registered.

    Raises:
        ConfigError: There is such a line.
    """
    known = [option.ini for option in OPTIONS if option.ini]
    for name in (name for name in _lines(config) if name.startswith("asyncdb")):
        try:
            config.getini(name)
        except ValueError:
            from pytest_asyncdb._system.messages import near_miss

            near = ["asyncdb_backends"] if name == "asyncdb" else known  # the option is --asyncdb
            raise errors.ConfigError(
                f"unknown option {name!r}{near_miss(name, near)} ({_ini_name(config)})",
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


def _warn_of_variables(config: pytest.Config, registry: Registry) -> None:
    """Warn of environment variables that look like a misspelt one of the plugin."""
    known = [one.env for one in OPTIONS if one.env and not one.repeated]
    known += [f"ASYNCDB_{name.upper()}_URL" for name in registry.backends]
    words = [name.removeprefix("ASYNCDB_") for name in known]
    others = () if hasattr(config, "workerinput") else sorted(os.environ.keys() - known)
    for name in (name for name in others if name.startswith("ASYNCDB")):
        word = "BACKENDS" if name == "ASYNCDB" else name.removeprefix("ASYNCDB_")
        if close := difflib.get_close_matches(word, words, n=1):
            text = f"{name} is not a variable of asyncdb (did you mean ASYNCDB_{close[0]}?)"
            config.issue_config_time_warning(pytest.PytestConfigWarning(text), stacklevel=2)


def _read(config: pytest.Config, option: Option) -> Sourced[str]:
    """Return the value of a setting with its source: command line, environment, ini, default."""
    value = Sourced(option.default, "default")
    if option.flag and (given := config.getoption(f"asyncdb_{option.name}")) is not None:
        source = option.flag if given is True else f"{option.flag}={given}"
        value = Sourced(str(given), source)
    elif option.env is not None and (word := os.environ.get(option.env)) is not None:
        value = Sourced(word.strip(), f"{option.env}={word}")
    elif option.ini and (written := _read_line(config, option.ini)):
        value = Sourced(written, f"{option.ini} in {_ini_name(config)}")
    word, allowed = value.value, option.choices
    if option.is_switch:
        word, allowed = word.lower(), (*_YES, *_NO)
    if allowed and word not in (*allowed, option.default):
        what = f"value of asyncdb_{option.name}"
        raise specs.unknown_word(what, value.value, value.source, allowed)
    return value


def _providers(written: Sourced[str], registry: Registry) -> dict[str, Sourced[str]]:
    """Parse ``[BACKEND=]PROVIDER``, separated by commas."""
    providers = {"*": Sourced("auto", "default")}
    allowed = list(dict.fromkeys([*PROVIDERS, *registry.providers]))
    for word in specs.split_words(written.value):
        name, _, provider = word.rpartition("=")
        if provider not in allowed:
            raise specs.unknown_word("server provider", provider, written.source, PROVIDERS)
        key = specs.parse_spec(name, written.source, registry).backend if name else "*"
        providers[key] = Sourced(provider, written.source)
    return providers


def _files(config: pytest.Config, written: Sourced[str]) -> dict[str | None, tuple[Path, ...]]:
    """Return the files that match each database's patterns; those of one pattern in the order of
    names."""
    found: dict[str | None, tuple[Path, ...]] = {}
    for word in written.value.replace(",", " ").split():
        from pytest_asyncdb._databases.fingerprint import files_in
        from pytest_asyncdb._system.import_string import split_name

        name, pattern = split_name(word)
        if not (matches := sorted(config.rootpath.glob(pattern))):
            raise errors.ConfigError(
                f"no file matches {pattern!r} ({written.source})",
                [f"Patterns are relative to {config.rootpath}."],
                ["name files or folders, such as schema/*.sql or migrations"],
            )
        found[name] = (*found.get(name, ()), *files_in(matches))
    return found


def _migrations(config: pytest.Config, written: Sourced[str]) -> Sourced[Mapping[str | None, Path]]:
    """Return the paths of Alembic's configurations, which are relative to the ini file's folder."""
    folder = config.inipath.parent if config.inipath is not None else config.rootpath
    found: dict[str | None, Path] = {}
    for one in specs.split_words(written.value):
        from pytest_asyncdb._system.import_string import split_name

        name, word = split_name(one)
        if name in found:
            what = f"one database has two files: {found[name].name!r}, {word!r} ({written.source})"
            remedies = ["name one of them", "run both in a function: the fixture asyncdb_migrate"]
            raise errors.ConfigError(what, [], remedies)
        found[name] = folder / word
        if not found[name].is_file():
            raise errors.ConfigError(
                f"there is no file {word!r} ({written.source})",
                [f"Looked for {found[name]}."],
                ["name an alembic.ini or pyproject.toml, relative to the ini file's folder"],
            )
    return Sourced(found, written.source)


def _urls(config: pytest.Config, registry: Registry) -> Iterator[tuple[str, Sourced[str]]]:
    """Yield the URLs that the user gave, by backend. The command line overrides the environment."""
    lines = _read_line(config, "asyncdb_urls").split()
    found = [(line, f"asyncdb_urls in {_ini_name(config)}", "") for line in lines]
    for name in registry.backends:
        variable = f"ASYNCDB_{name.upper()}_URL"
        if (url := os.environ.get(variable)) is not None:
            if not url.strip():
                remedies = [f"give a URL, or unset it: unset {variable}"]
                raise errors.ConfigError(f"{variable} is empty", [], remedies)
            found.append((url, variable, name))
    found += [(word, "--asyncdb-url", "") for word in config.getoption("asyncdb_urls") or ()]
    for one in found:
        from pytest_asyncdb._config.urls import parse_url

        yield parse_url(*one, registry)


def _check_contradictions(settings: Settings) -> None:
    """Refuse options of the command line that contradict each other.

    A URL in the environment or the ini file is not refused: it may be for a backend of other runs.
    """
    words = ",".join(map(str, settings.specs))
    for key in (key for key, url in settings.urls.items() if url.source == "--asyncdb-url"):
        name = key.partition("@")[0]
        provider = settings.provider(name)
        if name not in {spec.backend for spec in settings.all_specs}:
            seen = f"The run's backends: {words} ({settings.specs[0].source})."
            remedy = f"add it: --asyncdb={words},{name}"
        elif provider.value not in ("auto", "url"):
            seen = f"The provider {provider.value!r} uses no URL ({provider.source})."
            remedy = "leave out one of the two options"
        else:
            continue
        text = f"a URL for {name}, which this run does not use (--asyncdb-url)"
        raise errors.ConfigError(text, [seen], [remedy])
