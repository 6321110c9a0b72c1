"""A machine on which the package cryptography is not installed."""

from __future__ import annotations

import sys


class _Finder:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
