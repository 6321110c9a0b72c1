"""Prints the modules of ours that were first imported in another thread than the main one."""

from __future__ import annotations

import sys
import threading

_FOUND: list[str] = []


class _Finder:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        other = threading.current_thread() is not threading.main_thread()
        if other and name.partition(".")[0] == "pytest_asyncdb":
            _FOUND.append(name)


sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]


def pytest_unconfigure() -> None:
    print("imported in threads:", *_FOUND)
