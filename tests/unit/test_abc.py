"""``pytest_asyncdb.abc`` is complete: an extension imports nothing private."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from pytest_asyncdb import abc

TREE = ast.parse(Path(abc.__file__).read_text(encoding="utf-8"))


def public_classes() -> dict[str, type]:
    names = [node.name for node in TREE.body if isinstance(node, ast.ClassDef)]
    return {name: getattr(abc, name) for name in names if not name.startswith("_")}


def test_every_class_of_a_signature_is_in_abc() -> None:
    """Or comes from a library that is not ours; a private module of the package would be an
    import that an extension must not have."""
    imported = {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(TREE)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    private = {name for name, module in imported.items() if module.startswith("pytest_asyncdb._")}
    assert private == {"HostLoop", "StatementLog"}
    for name in private:
        assert inspect.isclass(getattr(abc, name)), name
    with pytest.raises(AttributeError, match="no attribute 'NoSuchThing'"):
        abc.NoSuchThing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", sorted(public_classes()))
def test_every_class_says_what_it_is(name: str) -> None:
    """And every method of a contract what it promises."""
    found = public_classes()[name]
    assert inspect.getdoc(found)
    for method, value in vars(found).items():
        if inspect.isfunction(value) and not method.startswith("_"):
            assert value.__doc__ or name == "Closing", f"{name}.{method}"
