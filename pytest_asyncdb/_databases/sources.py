"""The files that a template was built from, and whether they are still the same.

A template that stays for later runs is known by what its plan says, which is not all that shapes
it: functions call others, which import others and read files. So what a build has read is noted
with it: the modules of its functions with all that they import of the project, the scripts of a
migration, and every other file that was opened meanwhile.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import os
import site
import stat
import sys
import sysconfig
import time
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_asyncdb._databases.began import BEGAN

#: Path to time of the last change, size and hash; what :func:`stamps` gives.
Stamps = Mapping[str, Sequence[Any]]

_READS = ("open", "os.listdir", "os.scandir")
#: Folders whose files are nobody's sources.
_SYSTEM = ("/proc/", "/dev/", "/sys/", "/run/")
#: What is being read at the moment, by whoever listens.
_listeners: list[set[str]] = []


@contextlib.contextmanager
def reading() -> Iterator[set[str]]:
    """The paths of files and folders that this process reads meanwhile, in whatever thread."""
    _listen()
    found: set[str] = set()
    began = time.time()
    _listeners.append(found)
    try:
        yield found
    finally:
        _listeners.remove(found)
        # What was written meanwhile is no source.
        found.intersection_update([path for path in found if _is_source(path, began)])


@functools.cache
def _listen() -> None:
    """Such a hook cannot be taken off again."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if _listeners and event in _READS:
            path, flags = arguments[0], arguments[2] if event == "open" else 0
            if isinstance(path, (str, os.PathLike)) and not (flags or 0) & _WRITES:
                for found in _listeners:
                    found.add(os.path.abspath(path))  # noqa: PTH100  # fewer calls in a hook

    sys.addaudithook(hook)


_WRITES = os.O_WRONLY | os.O_RDWR


def _is_source(path: str, began: float) -> bool:
    if path.startswith(_SYSTEM):
        return False
    with contextlib.suppress(OSError):
        status = Path(path).stat()
        return stat.S_ISDIR(status.st_mode) or status.st_mtime < began
    return False


def sources(functions: Iterable[Any], files: Iterable[str]) -> set[str]:
    """The files that decide what *functions* do, as far as they can be found.

    Args:
        files: Files and folders that are sources for certain.
    """
    found: set[str] = set()
    waiting = [(code.co_filename, package) for code, package in _codes(functions, set())]
    waiting += [(_source(path), "") for path in files]
    while waiting:
        path, package = waiting.pop()
        if path in found or not os.path.exists(path):  # noqa: PTH110  # "<string>" among them
            continue
        found.add(path)
        if path.endswith(".py") and _is_project(path):
            waiting += _imported(path, package)
    return found


def stamps(paths: Iterable[str]) -> dict[str, list[Any]] | None:
    """What tells later whether files have changed; see :func:`unchanged`.

    None: one of them has changed since this process began, and what of it was in force nobody
    knows.
    """
    made: dict[str, list[Any]] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = Path(path).stat()
            folder = stat.S_ISDIR(status.st_mode)
            if not folder and status.st_mtime >= BEGAN:
                return None
            made[path] = [*_size(status), _content(path)]
    return made


def unchanged(before: Stamps) -> bool:
    """Do the files hold what they held then?"""
    try:
        return all(
            _size(Path(path).stat()) == size or _content(path) == content
            for path, (*size, content) in before.items()
        )
    except (OSError, ValueError):
        return False


def _size(status: os.stat_result) -> list[int]:
    """Time of the last change, and size; of a folder they say nothing, so that they are of now."""
    if stat.S_ISDIR(status.st_mode):
        return [time.time_ns(), -1]
    return [status.st_mtime_ns, status.st_size]


def _content(path: str) -> str:
    if Path(path).is_dir():
        names = sorted(one.name for one in Path(path).iterdir())
        listed = [name for name in names if not name.startswith((".", "__pycache__"))]
        return hashlib.sha256("\0".join(listed).encode()).hexdigest()
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _source(path: str) -> str:
    """Of compiled code the source."""
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError):
            return importlib.util.source_from_cache(path)
    return path


def _codes(values: Iterable[Any], seen: set[int]) -> Iterator[tuple[types.CodeType, str]]:
    """The code of functions and of what they enclose, each with its package."""
    for value in values:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, types.FunctionType):
            yield value.__code__, str(value.__globals__.get("__package__") or "")
            cells = [_cell(cell) for cell in value.__closure__ or ()]
            kept = (value.__kwdefaults__ or {}).values()
            yield from _codes([*cells, *(value.__defaults__ or ()), *kept], seen)
        elif isinstance(value, types.MethodType):
            yield from _codes([value.__func__], seen)
        elif hasattr(value, "func") and hasattr(value, "keywords"):  # functools.partial
            yield from _codes([value.func, *value.args, *value.keywords.values()], seen)


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _imported(path: str, package: str) -> Iterator[tuple[str, str]]:
    """The files of the modules that a file imports anywhere, each with its package."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [base])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            for number in range(1, len(parts) + 1):
                module = sys.modules.get(".".join(parts[:number]))
                file = getattr(module, "__file__", None)
                if file and not _is_standard(file):
                    yield file, str(getattr(module, "__package__", None) or "")


def _is_project(path: str) -> bool:
    return not _is_standard(path) and not path.startswith(_installed())


def _is_standard(path: str) -> bool:
    return path.startswith(_standard()) and not path.startswith(_installed())


@functools.cache
def _standard() -> tuple[str, ...]:
    return tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib"))


@functools.cache
def _installed() -> tuple[str, ...]:
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return tuple(f"{place}{os.sep}" for place in [*places, *site.getsitepackages()])
