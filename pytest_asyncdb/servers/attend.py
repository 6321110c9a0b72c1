"""Lets a container live and end as a program does.

Run as ``python -I -S attend.py ENGINE NAME`` by ``supervisor.py``, never imported; it uses the
standard library and ``docker_api.py``. It starts a container that has been made, ends when that has
ended, and removes it then, and when it is told to end by SIGTERM.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

#: Seconds after which an engine that has nothing to say is asked again, and after which one that
#: does not answer is.
_ASK = 60.0
_AGAIN = 1.0


def main(engine: str, name: str) -> int:
    """Returns when the container has ended."""

    def end(*_: object) -> None:
        sys.exit()

    # Another one may be chosen meanwhile by ``docker context use``.
    os.environ["DOCKER_HOST"] = engine
    asked: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("docker_api.py")))
    signal.signal(signal.SIGTERM, end)
    try:
        status, body = asked["call"]("POST", f"/containers/{name}/start")
        if status not in (204, 304):
            sys.stdout.write(body.decode(errors="replace"))
            return 1
        _wait(asked["call"], name)
        with contextlib.suppress(OSError, http.client.HTTPException):
            _, log = asked["call"]("GET", f"/containers/{name}/logs?stdout=1&stderr=1&tail=40")
            sys.stdout.write(_text(log))
            sys.stdout.flush()
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        asked["remove_container"](name)


def _wait(call: Any, name: str) -> None:
    """Also where the engine is started anew meanwhile."""
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, _ = call("POST", f"/containers/{name}/wait", _ASK)
            if status in (200, 404):  # it has ended, or is not there any more
                return
        time.sleep(_AGAIN)


def _text(log: bytes) -> str:
    """What the engine hands on in pieces, each behind eight bytes: two outputs become one."""
    text = b""
    while log:
        end = 8 + int.from_bytes(log[4:8], "big")
        text, log = text + log[8:end], log[end:]
    return text.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
