"""Mistakes in a conftest that its syntax tree shows. Nothing is imported or run.

``RULES`` says what is a mistake and what to write instead; the functions above it find it.
A rule that is not sure says nothing.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

_ENGINES = {"create_async_engine", "create_engine"}
_SESSIONS = {"AsyncSession", "Session", "async_sessionmaker", "sessionmaker"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Rule:
    """One mistake.

    Args:
        wrong: Tests are wrong with it, not only slow.
        find: The nodes of a module that make it.
    """

    name: str
    wrong: bool
    says: str
    instead: str
    find: Callable[[ast.Module], Iterator[ast.AST]]


@dataclasses.dataclass(frozen=True)
class Mistake:
    rule: Rule
    place: str


def mistakes(path: Path, shown: str) -> list[Mistake]:
    """The mistakes in one file.

    Args:
        shown: The file's name in places.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return []  # pytest itself says it
    return [
        Mistake(rule, f"{shown}:{getattr(node, 'lineno', 1)}")
        for rule in RULES
        for node in rule.find(tree)
    ]


def _functions(tree: ast.AST) -> Iterator[_Function]:
    return (node for node in ast.walk(tree) if isinstance(node, _Function))


def _calls(tree: ast.AST, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in names:
            yield node


def _name(node: ast.AST) -> str:
    """The last word of a dotted name."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def _fixture(function: _Function) -> ast.expr | None:
    """The decorator that makes a function a fixture."""
    for decorator in function.decorator_list:
        if _name(decorator.func if isinstance(decorator, ast.Call) else decorator) == "fixture":
            return decorator
    return None


def _is_per_test(decorator: ast.expr | None) -> bool:
    if decorator is None:
        return False
    scope = _keyword(decorator, "scope") if isinstance(decorator, ast.Call) else None
    return scope is None or (isinstance(scope, ast.Constant) and scope.value == "function")


def _target(node: ast.AST) -> tuple[str, ast.expr] | None:
    """``name = value``, ``name = await value``, ``with value as name``."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        name, value = _name(node.targets[0]), node.value
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        name, value = _name(node.optional_vars), node.context_expr
    else:
        return None
    return name, value.value if isinstance(value, ast.Await) else value


def _default_join(tree: ast.Module) -> Iterator[ast.AST]:
    """A session on a connection whose transaction the fixture began, with no mode given."""
    for function in _functions(tree):
        connections = {
            target[0]
            for node in ast.walk(function)
            if (target := _target(node)) is not None
            and isinstance(target[1], ast.Call)
            and _name(target[1].func) == "connect"
        }
        begun = {
            _name(call.func.value)
            for call in _calls(function, {"begin"})
            if isinstance(call.func, ast.Attribute)
        }
        if any(_calls(function, {"begin_nested"})):
            continue
        for call in _calls(function, _SESSIONS):
            bind = _keyword(call, "bind") or next(iter(call.args), None)
            unknown = any(keyword.arg is None for keyword in call.keywords)
            given = unknown or _keyword(call, "join_transaction_mode") is not None
            if bind is not None and _name(bind) in connections & begun and not given:
                yield call


def _sqlite_without_transactions(tree: ast.Module) -> Iterator[ast.AST]:
    """Savepoints on SQLite while the driver decides when a transaction begins."""
    strings = {
        target[0]: target[1].value
        for node in tree.body
        if (target := _target(node)) is not None and isinstance(target[1], ast.Constant)
    }
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    events = any(
        isinstance(argument, ast.Constant) and argument.value == "begin"
        for call in _calls(tree, {"listens_for", "listen"})
        for argument in call.args
    )
    savepoints = any(_calls(tree, {"begin_nested"})) or "create_savepoint" in words
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    if not savepoints or events or "autocommit" in words | keywords:
        return
    for call in _calls(tree, _ENGINES):
        url = next(iter(call.args), None)
        value = url.value if isinstance(url, ast.Constant) else strings.get(_name(url or call))
        if isinstance(value, str) and value.startswith("sqlite"):
            yield call


def _drop_all_at_the_end(tree: ast.Module) -> Iterator[ast.AST]:
    for function in _functions(tree):
        yields = [node.lineno for node in ast.walk(function) if isinstance(node, ast.Yield)]
        if not yields or not _is_per_test(_fixture(function)):
            continue
        for node in ast.walk(function):
            named = isinstance(node, ast.Attribute) and node.attr == "drop_all"
            if named and getattr(node, "lineno", 0) > min(yields):
                yield node


def _event_loop_override(tree: ast.Module) -> Iterator[ast.AST]:
    for function in _functions(tree):
        if function.name == "event_loop" and _fixture(function) is not None:
            yield function


def _static_pool(tree: ast.Module) -> Iterator[ast.AST]:
    for call in _calls(tree, {"create_async_engine"}):
        pool = _keyword(call, "poolclass")
        if pool is not None and _name(pool) == "StaticPool":
            yield call


def _engine_per_test(tree: ast.Module) -> Iterator[ast.AST]:
    for function in _functions(tree):
        if _is_per_test(_fixture(function)):
            yield from _calls(function, _ENGINES)


RULES = (
    Rule(
        "default join mode",
        True,
        "a session joins the fixture's transaction in the default mode: a rollback in the code "
        "undoes the whole transaction, with all that the fixture wrote",
        'give join_transaction_mode="create_savepoint", or use asyncdb_session',
        _default_join,
    ),
    Rule(
        "SQLite without real transactions",
        True,
        "savepoints on SQLite, whose driver begins a transaction only before it writes: "
        "what should be undone stays",
        "use asyncdb_engine, or give connect_args={'autocommit': False} (Python 3.12)",
        _sqlite_without_transactions,
    ),
    Rule(
        "event_loop override",
        True,
        "the fixture event_loop is overridden: since version 1 pytest-asyncio ignores it",
        "remove it, and set asyncio_default_fixture_loop_scope in the ini file",
        _event_loop_override,
    ),
    Rule(
        "StaticPool shared by tasks",
        False,
        "all sessions of an engine with StaticPool share one connection: tasks at once are in "
        "each other's transaction",
        "use asyncdb_engine, which lets them take turns",
        _static_pool,
    ),
    Rule(
        "drop_all at the end",
        False,
        "drop_all after each test builds every table anew, and waits for ever on a server "
        "where the test left a transaction open",
        "use asyncdb_session: the tables are built once, the data is undone",
        _drop_all_at_the_end,
    ),
    Rule(
        "an engine per test",
        False,
        "a fixture makes an engine for each test: each connects anew",
        "use asyncdb_engine: one for the run",
        _engine_per_test,
    ),
)
