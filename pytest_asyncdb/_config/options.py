"""Options, environment and ini, in this order, to ``Settings``; every value knows its source.

``OPTIONS`` is the reference: the options of pytest, the documentation's table and its test
are made from it. Nothing here imports SQLAlchemy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytest_asyncdb import errors
from pytest_asyncdb._config import messages
from pytest_asyncdb._config.urls import add_url
from pytest_asyncdb._databases.fingerprint import files_in
from pytest_asyncdb.abc import BackendSpec, Sourced

if TYPE_CHECKING:
    import pytest

    from pytest_asyncdb._config.registry import Registry

ISOLATIONS = ("rollback", "reset", "copy")
_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")
PROVIDERS = ("auto", "url", "container", "local")


class Option(NamedTuple):
    """One setting: its words on the command line, in the environment and in the ini file."""

    name: str
    help: str
    default: str = ""
    flag: str | None = None
    env: str | None = None
    ini: str | None = None
    metavar: str | None = None
    #: ``store``, ``append`` or ``store_true``, as in argparse.
    action: str = "store"


OPTIONS = (
    Option(
        name="backends",
        flag="--asyncdb",
        env="ASYNCDB_BACKENDS",
        ini="asyncdb_backends",
        metavar="SPECS",
        default="sqlite",
        help="the backends that database tests run on: backend[+driver][@version], "
        "comma-separated, or all",
    ),
    Option(
        name="urls",
        flag="--asyncdb-url",
        env="ASYNCDB_<BACKEND>_URL",
        ini="asyncdb_urls",
        metavar="[BACKEND=]URL",
        action="append",
        help="a server that is already there; repeatable",
    ),
    Option(
        name="allow_hosts",
        flag="--asyncdb-allow-hosts",
        env="ASYNCDB_ALLOW_HOSTS",
        ini="asyncdb_allow_hosts",
        metavar="HOSTS",
        help="hosts of URLs that are for tests although they are neither this machine nor named "
        "so; comma-separated, * stands for anything",
    ),
    Option(
        name="server",
        flag="--asyncdb-server",
        env="ASYNCDB_SERVER",
        ini="asyncdb_server",
        metavar="[BACKEND=]PROVIDER",
        default="auto",
        help="where servers come from: auto, url, container or local; comma-separated",
    ),
    Option(
        name="isolation",
        flag="--asyncdb-isolation",
        env="ASYNCDB_ISOLATION",
        ini="asyncdb_isolation",
        metavar="STRATEGY",
        default="rollback",
        help="how tests are kept apart: rollback, reset or copy",
    ),
    Option(
        name="missing",
        flag="--asyncdb-missing",
        env="ASYNCDB_MISSING",
        ini="asyncdb_missing",
        metavar="error|skip",
        default="error",
        help="what happens to tests whose backend cannot be had",
    ),
    Option(
        name="reuse",
        flag="--asyncdb-reuse",
        env="ASYNCDB_REUSE",
        ini="asyncdb_reuse",
        action="store_true",
        default="false",
        help="keep servers, and the databases that others are copied from, for the next run",
    ),
    Option(
        name="keep",
        flag="--asyncdb-keep",
        action="store_true",
        default="false",
        help="keep the databases of failed tests, and print the commands that open them",
    ),
    Option(
        name="report",
        flag="--asyncdb-report",
        metavar="FILE",
        help="write the outcomes of database tests by backend, as .json or .html; with "
        "--asyncdb-doctor what it found, as .json",
    ),
    Option(
        name="doctor",
        flag="--asyncdb-doctor",
        action="store_true",
        default="false",
        help="say what is there, what is missing, what is wrong; run no test",
    ),
    Option(
        name="stats",
        flag="--asyncdb-stats",
        action="store_true",
        default="false",
        help="say at the end how long servers, schemas, set-up and teardown took",
    ),
    Option(
        name="metadata",
        ini="asyncdb_metadata",
        help="the tables: module:attribute of a MetaData or declarative base; several with commas",
    ),
    Option(
        name="migrations",
        ini="asyncdb_migrations",
        help="the configuration of Alembic, which builds the tables instead of create_all: "
        "an alembic.ini or a pyproject.toml",
    ),
    Option(
        name="inputs",
        ini="asyncdb_inputs",
        help="files and folders that asyncdb_migrate and asyncdb_seed read or import, as patterns "
        "relative to rootdir: when one changes, --asyncdb-reuse builds the databases again",
    ),
    Option(
        name="app_engines",
        ini="asyncdb_app_engines",
        help="the application's own engines, which lead to the test's database during a test: "
        "module:attribute of an AsyncEngine, an async_sessionmaker or a function that returns one; "
        "several with commas, foreign ones with - before them",
    ),
)


class Settings(NamedTuple):
    """The run's settings, checked, each with its source."""

    specs: tuple[BackendSpec, ...]
    #: By backend, or backend and version: ``postgres``, ``postgres@16``.
    urls: Mapping[str, Sourced[str]]
    #: Provider by backend; the key ``*`` is for all others.
    providers: Mapping[str, Sourced[str]]
    allow_hosts: Sourced[str]
    isolation: Sourced[str]
    missing: Sourced[str]
    reuse: bool
    #: Keep the databases of failed tests?
    keep: bool
    metadata: Sourced[str]
    #: The absolute path of Alembic's configuration, or None.
    migrations: Sourced[Path | None]
    #: The files that ``asyncdb_inputs`` names.
    inputs: tuple[Path, ...]
    app_engines: Sourced[str]
    #: Run the doctor instead of the tests?
    doctor: bool
    #: Where to write its findings, or the outcomes of tests; or an empty text.
    report: Sourced[str]
    #: Show all times at the end?
    stats: bool

    def provider(self, backend: str) -> Sourced[str]:
        """Which provider the user wants for *backend*: a name, or ``auto``."""
        return self.providers.get(backend, self.providers["*"])

    def url(self, spec: BackendSpec) -> Sourced[str] | None:
        """The URL that the user gave for *spec*: for its version, else for its backend."""
        return self.urls.get(f"{spec.backend}@{spec.version}", self.urls.get(spec.backend))


def add_options(parser: pytest.Parser) -> None:
    """Register :data:`OPTIONS` with pytest."""
    group = parser.getgroup("asyncdb", "async databases (pytest-asyncdb)")
    for option in OPTIONS:
        if option.flag is not None:
            keywords: dict[str, Any] = {"action": option.action, "help": option.help}
            keywords["dest"] = f"asyncdb_{option.name}"
            keywords["default"] = None
            if option.metavar is not None:
                keywords["metavar"] = option.metavar
            group.addoption(option.flag, **keywords)
        if option.ini is not None:
            # "args" is text or, in TOML, a list.
            kind: Literal["args", "string"] = "args" if option.name == "inputs" else "string"
            parser.addini(option.ini, option.help, type=kind, default="")


def read_settings(
    config: pytest.Config, registry: Registry, environment: Mapping[str, str]
) -> Settings:
    """Read and check every setting.

    Args:
        environment: The run's; in a worker on another host that is not the process's own.

    Raises:
        ConfigError: A value is wrong, or two contradict each other.
    """
    raw = {
        option.name: _read(config, option, environment)
        for option in OPTIONS
        if option.action != "append"
    }
    settings = Settings(
        specs=parse_specs(raw["backends"], registry),
        urls=_urls(config, registry, environment),
        providers=_providers(raw["server"], registry),
        isolation=_one_of("isolation strategy", raw["isolation"], ISOLATIONS),
        missing=_one_of("answer to a missing backend", raw["missing"], ("error", "skip")),
        reuse=_truth("--asyncdb-reuse", raw["reuse"]),
        keep=raw["keep"].value == "true",
        metadata=raw["metadata"],
        allow_hosts=raw["allow_hosts"],
        migrations=_migrations(config, raw["migrations"]),
        inputs=_inputs(config, raw["inputs"]),
        app_engines=raw["app_engines"],
        doctor=raw["doctor"].value == "true",
        report=raw["report"],
        stats=raw["stats"].value == "true",
    )
    _check_contradictions(settings)
    _check_report(settings)
    if not settings.doctor and settings.missing.value == "error":
        for spec in settings.specs:
            registry.driver(spec)
    return settings


def _check_report(settings: Settings) -> None:
    name, source = settings.report.value, settings.report.source
    if settings.doctor and name and not name.endswith(".json"):
        raise errors.ConfigError(
            f"the doctor writes JSON only ({source})", [], ["give a name that ends in .json"]
        )
    if name and not name.endswith((".json", ".html")):
        raise errors.ConfigError(
            f"a report is JSON or HTML ({source})", [], ["give a name that ends in .json or .html"]
        )


def parse_specs(written: Sourced[str], registry: Registry) -> tuple[BackendSpec, ...]:
    """Parse ``backend[+driver][@version]``, comma-separated.

    Raises:
        ConfigError: An unknown backend or driver, or nothing at all.
    """
    specs: list[BackendSpec] = []
    words = [word.strip() for word in re.split(r"[,\n]", written.value) if word.strip()]
    for word in words:
        if word == "all":
            specs += [_parse_spec(name, written.source, registry) for name in registry.backends]
        else:
            specs.append(_parse_spec(word, written.source, registry))
    if not specs:
        raise errors.ConfigError(
            f"no backend is named ({written.source})", [], ["name one, such as --asyncdb=sqlite"]
        )
    return tuple(dict.fromkeys(specs))


def _parse_spec(word: str, source: str, registry: Registry) -> BackendSpec:
    rest, _, version = word.partition("@")
    name, _, driver = rest.partition("+")
    allowed = ["all", *registry.backends]
    try:
        backend = registry.backend(name)
    except KeyError:
        raise messages.unknown_word("backend", name, source, allowed) from None
    drivers = [d.name for d in backend.drivers]
    if driver and driver not in drivers:
        raise messages.unknown_word(f"driver for {backend.label}", driver, source, drivers)
    if re.search(r"[^\w.+@-]", word):
        raise errors.ConfigError(
            f"the backend {word!r} holds characters that cannot stand in a test id ({source})",
            [],
            ["write backend[+driver][@version] with letters, digits, '.', '_' and '-'"],
        )
    return BackendSpec(backend.name, driver or None, version or None, word, source)


def _read(config: pytest.Config, option: Option, environment: Mapping[str, str]) -> Sourced[str]:
    """The value of a setting with its source: command line, environment, ini, default."""
    if option.flag is not None:
        value = config.getoption(f"asyncdb_{option.name}")
        if value is not None:
            if option.action == "store_true":
                return Sourced("true", option.flag)
            return Sourced(value, f"{option.flag}={value}")
    if option.env is not None and option.env in environment:
        value = environment[option.env]
        return Sourced(value.strip(), f"{option.env}={value}")
    if option.ini is not None:
        value = config.getini(option.ini)
        value = (" ".join(value) if isinstance(value, list) else str(value)).strip()
        if value:
            return Sourced(value, f"{option.ini} in {_ini_name(config)}")
    return Sourced(option.default, "default")


def _ini_name(config: pytest.Config) -> str:
    return config.inipath.name if config.inipath is not None else "-o"


def _one_of(what: str, value: Sourced[str], allowed: Sequence[str]) -> Sourced[str]:
    if value.value not in allowed:
        raise messages.unknown_word(what, value.value, value.source, allowed)
    return value


def _truth(what: str, value: Sourced[str]) -> bool:
    """Yes or no, in the words that pytest's own ini options take."""
    word = value.value.lower()
    if word not in (*_YES, *_NO, ""):
        raise messages.unknown_word(f"answer for {what}", value.value, value.source, (*_YES, *_NO))
    return word in _YES


def _providers(written: Sourced[str], registry: Registry) -> dict[str, Sourced[str]]:
    """Parse ``[BACKEND=]PROVIDER``, comma-separated."""
    providers = {"*": Sourced("auto", "default")}
    allowed = list(dict.fromkeys([*PROVIDERS, *registry.providers]))
    for word in filter(None, (w.strip() for w in written.value.split(","))):
        name, _, provider = word.rpartition("=")
        if provider not in allowed:
            raise messages.unknown_word("server provider", provider, written.source, PROVIDERS)
        key = "*"
        if name:
            key = _parse_spec(name, written.source, registry).backend
        providers[key] = Sourced(provider, written.source)
    return providers


def _inputs(config: pytest.Config, written: Sourced[str]) -> tuple[Path, ...]:
    """The files that match the patterns of ``asyncdb_inputs``."""
    found: list[Path] = []
    for pattern in written.value.split():
        matches = sorted(config.rootpath.glob(pattern))
        if not matches:
            raise errors.ConfigError(
                f"no file matches {pattern!r} ({written.source})",
                [f"Patterns are relative to {config.rootpath}."],
                ["name files or folders, such as schema/*.sql or migrations"],
            )
        found += files_in(matches)
    return tuple(found)


def _migrations(config: pytest.Config, written: Sourced[str]) -> Sourced[Path | None]:
    """Find Alembic's configuration: relative to the ini file's folder."""
    if not written.value:
        return Sourced(None, written.source)
    folder = config.inipath.parent if config.inipath is not None else config.rootpath
    path = folder / written.value
    if not path.is_file():
        raise messages.no_migrations_file(written.value, path, written.source)
    return Sourced(path, written.source)


def _urls(
    config: pytest.Config, registry: Registry, environment: Mapping[str, str]
) -> dict[str, Sourced[str]]:
    """The URLs that the user gave, by backend."""
    urls: dict[str, Sourced[str]] = {}
    for line in str(config.getini("asyncdb_urls")).split():
        add_url(urls, line, f"asyncdb_urls in {_ini_name(config)}", None, registry)
    for name in registry.backends:
        variable = f"ASYNCDB_{name.upper()}_URL"
        if environment.get(variable):
            add_url(urls, environment[variable], variable, name, registry)
    for word in config.getoption("asyncdb_urls") or ():
        add_url(urls, word, "--asyncdb-url", None, registry)
    return urls


def check_hosts(settings: Settings, environment: Mapping[str, str]) -> None:
    """Refuse the URLs of servers that may be somebody's real ones. For the owner of the
    servers: whether an address is this machine's own, a worker elsewhere cannot tell.

    Raises:
        ConfigError: This run would use such a URL.
    """
    specs = [s for s in settings.specs if settings.provider(s.backend).value in ("auto", "url")]
    for url in dict.fromkeys(url for spec in specs if (url := settings.url(spec)) is not None):
        from pytest_asyncdb._config.hosts import check_host

        check_host(url, settings.allow_hosts.value, environment)


def _check_contradictions(settings: Settings) -> None:
    """Refuse settings of the command line that cannot both hold.

    What the environment or an ini file says about a backend that this run does not use is
    left alone: it is there for other runs.
    """
    backends = {spec.backend for spec in settings.specs}
    for written, url in settings.urls.items():
        name = written.partition("@")[0]
        provider = settings.provider(name)
        if url.source == "--asyncdb-url" and name not in backends:
            raise errors.ConfigError(
                f"a URL for {name}, which is not a backend of this run (--asyncdb-url)",
                [
                    f"The run's backends: {', '.join(map(str, settings.specs))} "
                    f"({settings.specs[0].source})."
                ],
                [f"add it: --asyncdb={','.join([*map(str, settings.specs), name])}"],
            )
        if url.source == "--asyncdb-url" and provider.value not in ("auto", "url"):
            raise errors.ConfigError(
                f"a URL for {name} (--asyncdb-url), but {provider.source}",
                [f"The provider {provider.value!r} starts a server and uses no URL."],
                ["leave out one of the two options"],
            )
    for spec in settings.specs:
        name = spec.backend
        provider = settings.provider(name)
        if provider.value == "url" and settings.url(spec) is None and name != "sqlite":
            raise errors.ConfigError(
                f"no URL for {name}, but {provider.source}",
                [],
                [
                    f"give one: --asyncdb-url={name}=…://user:password@host/name",
                    f"or set ASYNCDB_{name.upper()}_URL",
                ],
            )
