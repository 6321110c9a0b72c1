"""What the providers share: describe a server, wait until it is ready, check its version.

A server is ready when it answers a query over the real driver. This module does not know how it is
started.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterator

from pytest_asyncdb._engines import selector_loop
from pytest_asyncdb._engines.build_engine import OURS, build_engine
from pytest_asyncdb.abc import Backend, Candidate, Driver, Server, Show

#: Seconds after which the user is shown what the run waits for.
_PATIENCE = 3.0
#: Seconds between two checks of a server while an attempt hangs.
_CHECK = 0.5


class NotReady(Exception):
    """The server did not answer.

    Args:
        seconds: How long the server was asked.
        error: The error of the last attempt.
    """

    def __init__(self, seconds: float, error: BaseException) -> None:
        what = f"no answer to a query within {seconds:.1f} s"
        if _is_answer(error):
            what = "it refused a statement, perhaps of a listener on the class Engine"
        super().__init__(f"{what}; {describe(error)}")
        self.seconds = seconds
        self.error = error


def _is_answer(error: BaseException) -> bool:
    """Return whether the server has answered, although not to the plugin's query."""
    from sqlalchemy.exc import ProgrammingError

    return isinstance(error, ProgrammingError)


def wait_until_ready(
    server: Server,
    backend: Backend,
    driver: Driver,
    seconds: float,
    check: Callable[[], None] = lambda: None,
    final: Callable[[BaseException], bool] = lambda error: False,
    pause: float = 0.03,
) -> tuple[str, str]:
    """Ask until the server answers.

    Runs an event loop of its own in the calling thread.

    Args:
        seconds: How long to ask.
        check: Called after each attempt and during long ones. It raises if more attempts are
            useless.
        final: Returns whether an error means that more attempts are useless.
        pause: Seconds between two attempts.

    Returns:
        What the server reports as its version, and ``behind_pooler`` of :class:`Server`.

    Raises:
        NotReady: There was no answer in time, or a final error.
    """
    from sqlalchemy import exc, pool, text

    try:
        engine = build_engine(
            backend.url(server, driver.name, None),
            poolclass=pool.NullPool,
            connect_args=dict(driver.pooler_arguments),  # there may be a pooler
            execution_options={OURS: True},  # tests of another backend may run meanwhile
        )
    except (ImportError, exc.ArgumentError) as error:
        raise NotReady(0.0, error) from error

    def useless(error: BaseException) -> bool:
        # The RuntimeError names a package that a driver needs for some ways to log in.
        missing = isinstance(error, RuntimeError) and "cryptography" in str(error)
        never = missing or isinstance(error, (ImportError, exc.ArgumentError))
        return never or _is_answer(error) or final(error)

    async def attempt() -> tuple[str, str]:
        async with engine.connect() as connection:
            version, *session = (await connection.execute(text(backend.version_query()))).one()
            told = driver.session_id((await connection.get_raw_connection()).driver_connection)
            # A pooler reports an id of its own to each client, to know which statement a client
            # cancels.
            pooler = bool(session) and told is not None and told != session[0]
            return str(version), (session[1] or "a Unix socket") if pooler else ""

    async def attempts() -> tuple[str, str]:
        began = (clock := asyncio.get_running_loop().time)()
        task: asyncio.Task[tuple[str, str]] | None = None
        last: BaseException = TimeoutError("the connection hangs")
        try:
            while (left := began + seconds - clock()) > 0:
                if task is None:
                    task = asyncio.create_task(attempt())
                    # Otherwise asyncio reports an error after the last look as never retrieved.
                    task.add_done_callback(lambda task: task.cancelled() or task.exception())
                # Another program on the port may accept the connection and never answer.
                await asyncio.wait([task], timeout=min(left, _CHECK))
                error = task.exception() if task.done() else None
                if task.done() and error is None:
                    return task.result()
                check()
                if error is not None:
                    last, task = error, None
                    if useless(error):
                        break
                    await asyncio.sleep(pause)
            raise NotReady(clock() - began, last)
        finally:
            if task is not None and task.cancel():
                await asyncio.wait([task], timeout=_CHECK)
            await engine.dispose()

    return selector_loop.run(attempts())


def managed_server(found: Candidate, backend: Backend, password: str) -> Server:
    """Return the server that a provider is about to start. Its host and port are not known yet."""
    return Server(
        backend=backend.name,
        version=found.version or "",
        provider=found.provider,
        reason=found.reason,
        managed=True,
        user=backend.user,
        password=password,
        maintenance=backend.maintenance,
        tuning=found.tuning,
    )


def describe(error: BaseException) -> str:
    """Return the driver's own error on one line, without SQLAlchemy's text around it."""
    original = getattr(error, "orig", None) or error
    # SQLAlchemy's adapters put the class of the driver's error into the text.
    text = re.sub(r"^<class '[\w.]+'>: ", "", " ".join(str(original).split()))
    return f"{type(original).__name__}: {text}" if text else type(original).__name__


def fits(version: str, wanted: str | None) -> bool:
    """Return whether *version* belongs to the version that was asked for: ``17.11`` to ``17``, but
    not to ``1``."""
    return wanted is None or f"{version}.".startswith(f"{wanted}.")


def too_old(version: str, oldest: str) -> bool:
    """Return whether *version* is older than the oldest one that works, such as ``9.6.24`` than
    ``14``."""
    numbers, needed = ([int(n) for n in re.findall(r"\d+", words)] for words in (version, oldest))
    return bool(numbers) and numbers[: len(needed)] < needed


@contextlib.contextmanager
def patience(progress: Show, line: str) -> Iterator[None]:
    """Show the user *line* if the block takes long."""
    timer = threading.Timer(_PATIENCE, progress, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
