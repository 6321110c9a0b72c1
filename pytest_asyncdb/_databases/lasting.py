"""Templates that stay for later runs, on a server that does.

They are told by files in the server's folder, which are gone with it: for a fingerprint, a note
with the template's name and what it was built from; for a name, a file on which every process that
uses the template has a shared lock. The kernel takes locks back however a process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pytest_asyncdb._databases.sources import Stamps, unchanged
from pytest_asyncdb._databases.templates import Claim
from pytest_asyncdb._system.file_lock import lock

#: How their names begin; no run's databases are called so.
PREFIX = "asyncdb_template_"
#: So many that nobody uses stay.
_KEPT = 8


class LastingTemplates:
    """The templates on one server, as one process sees them.

    Args:
        folder: The server's.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder, "templates")
        #: The files whose locks this process has.
        self._held: dict[str, int] = {}

    def claim(self, fingerprint: str) -> Claim:
        """The template for *fingerprint*; waits while any process builds it."""
        file = lock(self._folder / f"{fingerprint}.lock")
        assert file is not None
        try:
            while (note := self._read(fingerprint)) is not None:
                name, stamps = note
                self._hold(name)
                if self._read(fingerprint) == note:  # nobody has removed it meanwhile
                    if not unchanged(stamps):
                        os.close(self._held.pop(name))
                        break
                    os.close(file)
                    return Claim(name, mine=False)
        except BaseException:
            os.close(file)
            raise
        self._held[fingerprint] = file
        name = f"{PREFIX}{fingerprint[:8]}_{secrets.token_hex(4)}"
        self._hold(name)
        return Claim(name, mine=True)

    def settle(self, fingerprint: str, name: str, stamps: Stamps | None) -> None:
        """It is done, and was built from these files; None: it must not stay."""
        file = self._held.pop(fingerprint)
        try:
            if stamps is not None:
                new = self._folder / f"{name}.new"
                new.write_text(json.dumps({"name": name, "files": stamps}), encoding="utf-8")
                new.replace(self._folder / f"{fingerprint}.json")
        finally:
            os.close(file)

    def close(self) -> None:
        """Let go of all of them. May be called twice."""
        held, self._held = self._held, {}
        for file in held.values():
            os.close(file)

    def _hold(self, name: str) -> None:
        if name not in self._held:
            file = lock(self._folder / name, shared=True)
            assert file is not None
            os.utime(file)
            self._held[name] = file

    def _read(self, fingerprint: str) -> tuple[str, dict[str, Any]] | None:
        return _note(self._folder / f"{fingerprint}.json")


def _note(path: Path) -> tuple[str, dict[str, Any]] | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(path.read_text(encoding="utf-8"))
        return str(note["name"]), dict(note["files"])
    return None


def unused(folder: str, databases: Iterable[str]) -> Iterator[str]:
    """Those of the *databases* of a server that are templates which need not stay.

    Those that nobody can find any more, and of the others all that nobody uses but for the last
    few. Until the next one is asked for, nobody can begin to use it; then it must be dropped.
    """
    place = Path(folder, "templates")
    notes = {note[0]: path for path in place.glob("*.json") if (note := _note(path))}
    ours = sorted(
        (name for name in databases if name.startswith(PREFIX)),
        key=lambda name: _last_use(place / name),
        reverse=True,
    )
    stay = [name for name in ours if name in notes][:_KEPT]
    for name in ours:
        file = None if name in stay else lock(place / name, wait=False)
        if file is None:
            continue
        try:
            if name in notes:
                notes[name].unlink(missing_ok=True)
            yield name
            (place / name).unlink(missing_ok=True)
        finally:
            os.close(file)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
