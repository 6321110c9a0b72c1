"""Every error of the plugin. Each takes objects and makes its own text and remedy.

The form: one line that says what failed and where the value came from, then what was seen
or tried, then ``To fix this:`` with the exact option, command or code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from pytest_asyncdb._secrets import masked


class AsyncdbError(Exception):
    """The base of all errors of this package.

    Args:
        headline: What failed, with the value and its source.
        seen: What was seen or tried, one per line.
        remedies: What to do; one suffices.
        seen_title: The line above *seen*; none: *seen* stands by itself.
    """

    def __init__(
        self,
        headline: str,
        seen: Sequence[str] = (),
        remedies: Sequence[str] = (),
        seen_title: str = "",
    ) -> None:
        super().__init__(_text(headline, seen, remedies, seen_title))
        self.headline = headline


class ConfigError(AsyncdbError):
    """A value from the command line, the environment, an ini file or a fixture."""


class MarkerError(AsyncdbError):
    """A mistake in ``@pytest.mark.asyncdb``."""


class ProviderUnavailable(AsyncdbError):
    """A provider cannot give this server; the text fits behind ``container: ``."""


class ServerUnavailable(AsyncdbError):
    """No provider could give the server."""


class ServerStartError(AsyncdbError):
    """A provider was chosen, and its server did not come up."""


class DriverMissing(AsyncdbError):
    """The driver's package is not installed."""


class MetadataError(AsyncdbError):
    """``asyncdb_metadata`` does not lead to tables."""


class SchemaError(AsyncdbError):
    """Building the schema or filling the database failed."""


class LoopError(AsyncdbError):
    """The test runs on something that the drivers do not know."""


class IsolationBreach(AsyncdbError):
    """A test got around its isolation, or would have."""

    #: What a test did could not be undone: no news where its server is gone.
    not_undone = False


class IsolationConflict(AsyncdbError):
    """Units of work that cannot share one connection overlap."""


class StatementBlocked(AsyncdbError):
    """A statement waited too long for a lock, and was cancelled."""


def _text(headline: str, seen: Sequence[str], remedies: Sequence[str], seen_title: str) -> str:
    parts = [headline]
    if seen:
        lines = [f"  - {line}" for line in seen] if seen_title else list(seen)
        parts.append("\n".join([seen_title, *lines] if seen_title else lines))
    if len(remedies) == 1:
        parts.append(f"To fix this: {remedies[0]}")
    elif remedies:
        parts.append("To fix this, do one of:\n" + "\n".join(f"  - {r}" for r in remedies))
    return "\n\n".join(parts)


def near_miss(word: str, allowed: Iterable[str]) -> str:
    """`` (did you mean 'postgres'?)`` where a word is close to an allowed one, else ````."""
    close = difflib.get_close_matches(word, list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown_word(
    what: str, word: str, source: str, allowed: Sequence[str], hint: str = ""
) -> ConfigError:
    """An unknown word for an option.

    Args:
        what: What the word should have been, such as ``backend``.
        hint: What to write instead where the near miss says too little.
    """
    return ConfigError(
        f"unknown {what} {word!r}{near_miss(word, allowed)} ({source})",
        [f"Known: {', '.join(allowed)}."],
        [hint or f"use one of the known words in {source}"],
    )


def driver_missing(driver: str, extra: str, label: str, source: str) -> DriverMissing:
    """The driver that was asked for, or every driver of a backend, is not installed."""
    return DriverMissing(
        f"the driver {driver} for {label} is not installed ({source})",
        [],
        [f'pip install "pytest-asyncdb[{extra}]"'],
    )


def not_a_test_server(host: str, source: str, allowed: Sequence[str]) -> ConfigError:
    """A URL leads to what may be somebody's real server.

    Args:
        host: What it leads to, and what would have to be allowed.
        allowed: What is allowed already.
    """
    return _refused_host(
        host,
        source,
        "Databases of a run's own would be made and dropped there.",
        [
            f"if it is for tests, say so: --asyncdb-allow-hosts={','.join([*allowed, host])}",
            f"or in the ini file: asyncdb_allow_hosts = {', '.join([*allowed, host])}",
            f"or leave {source} out and let a server be started",
        ],
    )


def not_to_be_reaped(host: str, source: str, allowed: Sequence[str]) -> ConfigError:
    """The same where what dead runs have left is to be removed."""
    return _refused_host(
        host,
        source,
        "Databases that dead runs have left would be dropped there.",
        [
            f"if it is for tests, say so: --allow-hosts={','.join([*allowed, host])}",
            f"or export ASYNCDB_ALLOW_HOSTS={','.join([*allowed, host])}",
        ],
    )


def _refused_host(host: str, source: str, danger: str, remedies: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"{host} is not known as a test server ({source})",
        [
            f"Nothing was sent to it. {danger}",
            "Known are this machine, names such as postgres, mysql or db without a dot, and "
            "names with the word test or ci.",
        ],
        remedies,
    )


def may_not_create(
    label: str, user: str | None, source: str, error: BaseException, grant: str
) -> ServerUnavailable:
    """The account of a URL has no right to make databases.

    Args:
        grant: What gives it that right.
    """
    return ServerUnavailable(
        f"the account {user!r} may not create databases ({source})",
        [_said(error)],
        [
            f"let an administrator of the {label} server run: {grant}",
            "use only the database in the URL, one that is empty: add asyncdb_database=only to "
            "the URL's parameters",
            f"or leave {source} out and let a server be started",
        ],
    )


def single_in_use(name: str, source: str) -> ServerUnavailable:
    """Another run has the one database that may be used."""
    return ServerUnavailable(
        f"another run uses the database {name!r} ({source})",
        ["The URL says asyncdb_database=only, so the two cannot be kept apart."],
        ["wait for the other run to end, or give each run a database of its own"],
    )


def single_not_empty(
    name: str, source: str, things: Sequence[str], shown: int
) -> ServerUnavailable:
    """The one database that may be used holds what may be somebody's.

    Args:
        things: What it holds.
        shown: How many of them are told.
    """
    more = [f"and {len(things) - shown} more"] if len(things) > shown else []
    return ServerUnavailable(
        f"the database {name!r} is not empty ({source})",
        [*things[:shown], *more],
        [
            "drop what is in it, or give another one in the URL",
            "or give it a name that begins with asyncdb_: what such a database holds is ours to "
            "drop",
        ],
        "It holds, and nothing of it was touched:",
    )


def single_not_emptied(name: str, source: str, error: BaseException) -> SchemaError:
    """What is in the one database that may be used could not be dropped."""
    return SchemaError(
        f"the database {name!r} could not be emptied ({source})",
        [_said(error)],
        ["look for what the account does not own, and for a connection that holds locks"],
    )


def needs_databases(what: str, source: str) -> ConfigError:
    """Something that one database cannot give.

    Args:
        what: An option, a call, or the run itself.
    """
    return ConfigError(
        f"{what} needs several databases ({source})",
        ["The URL says asyncdb_database=only."],
        [
            "leave it out, or run without xdist's workers",
            "or use an account that may create databases, without asyncdb_database=only",
        ],
    )


def no_room_for_workers(
    label: str, source: str, room: int, workers: int, minimum: int
) -> ServerUnavailable:
    """A server has too few connections for the run's workers.

    Args:
        room: How many it has room for.
        minimum: What each worker needs.
    """
    most = room // minimum
    fewer = f"run fewer workers: -n {most}" if most > 1 else "run without xdist's workers"
    return ServerUnavailable(
        f"{label} has room for {room} connections, {workers} workers need "
        f"{workers * minimum} ({source})",
        [
            f"Each worker needs {minimum}. Counted when the run began, without what others use "
            "and what is kept for administrators."
        ],
        [
            *([fewer] if workers > 1 else []),
            "raise max_connections of the server, or the limit of the account",
        ],
    )


def no_room_for_connection(
    label: str, source: str, used: int, room: int, workers: int
) -> IsolationConflict:
    """A test wants more connections than its worker may have.

    Args:
        used: How many this process has open, all of them in use.
        room: How many the server has room for.
    """
    return IsolationConflict(
        f"a connection too many for this worker's share of {label} ({source})",
        [
            f"The server has room for {room} connections, {workers} "
            f"worker{'s' * (workers > 1)}: {room // workers} each.",
            f"In use here: {used}, and 1 to spare. What was kept for later tests is closed.",
        ],
        [
            "open fewer at once in this test",
            "run fewer workers, or raise max_connections of the server",
        ],
    )


def out_of_reach(label: str, example: str, source: str, why: str, host: str) -> ServerUnavailable:
    """A worker of xdist on another host would need a server that is here only.

    Args:
        example: A URL as it would help.
        why: Why the server is here only.
        host: Where the worker runs.
    """
    return ServerUnavailable(
        f"a worker on another host cannot reach the {label} server ({source})",
        [f"worker on: {host}", f"controller: {why}"],
        [
            f"give the URL of a server that all hosts reach: --asyncdb-url={example}",
            "or run all workers on the controller's host: -n",
        ],
        "Seen:",
    )


def not_reached(label: str, source: str, address: str, host: str, said: str) -> ServerUnavailable:
    """The server answers the controller, but not a worker on another host.

    Args:
        address: Host and port.
        host: Where the worker runs.
        said: What the driver said there.
    """
    return ServerUnavailable(
        f"a worker on another host does not reach the {label} server ({source})",
        [f"worker on: {host}", f"tried: {address}", shorten(said, 200)],
        [
            "let that host's connections through to it, or give a name or address that means "
            "the same everywhere",
            "or run all workers on the controller's host: -n",
        ],
        "Seen:",
    )


def server_unavailable(
    label: str, source: str, tried: Sequence[tuple[str, str]], remedies: Sequence[str]
) -> ServerUnavailable:
    """No provider could give the server.

    Args:
        tried: Provider and reason, in the order of trying.
    """
    return ServerUnavailable(
        f"no {label} server could be had ({source})",
        [f"{provider}: {reason}" for provider, reason in tried],
        [*remedies, "or skip these tests: --asyncdb-missing=skip"],
        "Tried, in this order:",
    )


def server_start(label: str, provider: str, what: str, output: str) -> ServerStartError:
    """A server did not come up.

    Args:
        what: What was waited for, and how long.
        output: The end of what the server printed.
    """
    lines = output.strip().splitlines()[-20:] or ["(it printed nothing)"]
    other = "local" if provider == "container" else "container"
    return ServerStartError(
        f"the {label} server of provider {provider} did not start",
        [what, *(f"| {line}" for line in lines)],
        [f"read its output above, or take another provider: --asyncdb-server={other}"],
        "Seen:",
    )


def server_lost(label: str, provider: str, where: str, said: str) -> AsyncdbError:
    """A server does not answer any more.

    Args:
        said: What the last try said.
    """
    started = provider != "url"
    return AsyncdbError(
        f"the {label} server is gone (provider {provider}, {where})",
        [said],
        [
            "see what has ended it (the memory of the machine, the disk), then run the tests again"
            if started
            else "see that the server runs and can be reached, then run the tests again"
        ],
        "Seen:",
    )


def nowhere_to_keep(error: BaseException) -> ServerUnavailable:
    """The user's cache cannot be written to, by which later runs would find a server."""
    return ServerUnavailable(
        "no server can be kept for later runs (--asyncdb-reuse)",
        [f"{type(error).__name__}: {error}"],
        ["set XDG_CACHE_HOME to a folder that can be written to", "leave out --asyncdb-reuse"],
        "Seen:",
    )


def kept_lost(label: str, where: str, error: BaseException) -> ServerStartError:
    """A server that was kept for later runs does not let a run in."""
    return ServerStartError(
        f"the {label} server that was kept for later runs does not answer",
        [where, _said(error)],
        ["python -m pytest_asyncdb reap, then run the tests again"],
        "Seen:",
    )


def _at(place: Sequence[str]) -> list[str]:
    """Lines for a place in the user's code, the innermost last."""
    return [f"  at {line}" for line in place]


def _said(error: BaseException) -> str:
    """What the driver said, without what SQLAlchemy adds to it."""
    while isinstance(original := getattr(error, "orig", None), BaseException):
        error = original
    first = (str(error).splitlines() or [""])[0]
    return f"the driver said: {type(error).__name__}: {shorten(first, 200)}"


def lost_transaction(
    test: str, statement: str, label: str, place: Sequence[str]
) -> IsolationBreach:
    """The server ended the outer transaction by itself."""
    return IsolationBreach(
        "the test's outer transaction was ended under it",
        [
            f"test: {test}",
            f"statement: {_shown(statement)}",
            *_at(place),
            f"{label} committed what the test had written before; "
            "the database is rebuilt before the next test.",
        ],
        [
            "keep statements that commit by themselves out of this test, "
            'or mark it @pytest.mark.asyncdb(isolation="reset")'
        ],
    )


def lost_connection(
    test: str, statement: str, error: BaseException | None, place: Sequence[str]
) -> IsolationBreach:
    """The connection, and with it the outer transaction, is gone.

    Args:
        error: What the driver said; None: it was found out without an error.
    """
    said = [_said(error)] if error else []
    return IsolationBreach(
        "the test's connection was lost",
        [
            f"test: {test}",
            f"statement: {_shown(statement)}",
            *_at(place),
            *said,
            "What the test had done before is undone; "
            "the database is rebuilt before the next test.",
        ],
        [
            "find out who ended it: the server's log tells",
            "if the test ends it itself, to see what your code does: "
            '@pytest.mark.asyncdb(isolation="reset")',
        ],
    )


def undone_by_server(
    test: str, statement: str, error: BaseException, place: Sequence[str]
) -> IsolationConflict:
    """The server has rolled back the outer transaction, not only a unit of work."""
    return IsolationConflict(
        "the server undid the test's whole outer transaction",
        [
            f"test: {test}",
            f"statement: {_shown(statement)}",
            *_at(place),
            _said(error),
            "That undid also what other sessions had written or committed before; "
            "on connections of their own it would have survived.",
        ],
        ['mark the test @pytest.mark.asyncdb(isolation="reset")'],
    )


def refused_statement(
    statement: str, label: str, test: str, why: str, place: Sequence[str]
) -> IsolationBreach:
    """A statement that would have ended the outer transaction was not sent.

    Args:
        why: What the statement does, a clause.
    """
    return IsolationBreach(
        f"refused before it ran: {_shown(statement, 40)}",
        [
            f"test: {test}",
            *_at(place),
            f"On {label} {why}, and what the test wrote could not be undone.",
        ],
        [
            "use session.commit() and session.rollback() rather than their SQL text, "
            "keep DDL out of the test, "
            'or mark it @pytest.mark.asyncdb(isolation="reset")'
        ],
    )


def refused_call(what: str, test: str, why: str, place: Sequence[str]) -> IsolationBreach:
    """Something other than a statement would have ended the outer transaction.

    Args:
        what: The call, as the application wrote it.
        why: What it does, a clause.
    """
    return IsolationBreach(
        f"refused: {what}",
        [f"test: {test}", *_at(place), f"In the strategy 'rollback' {why}."],
        ['mark the test @pytest.mark.asyncdb(isolation="reset")'],
    )


def left_running(test: str, tasks: Mapping[str, Sequence[str]]) -> IsolationBreach:
    """Calls were under way when the test ended.

    Args:
        tasks: Where each task stands.
    """
    lines = [line for task, place in tasks.items() for line in (f"task: {task}", *_at(place))]
    return IsolationBreach(
        "the test ended while a task was still using its connection",
        [f"test: {test}", *lines],
        ["await or cancel the task before the test ends"],
    )


def teardown_stuck(test: str, seconds: float, error: BaseException) -> IsolationBreach:
    """The rollback itself failed or did not end in time."""
    return _not_undone(
        "the test's work could not be rolled back",
        [
            f"test: {test}",
            f"waited at most {seconds:g} s; {_said(error)}",
            "The connection was thrown away and the database is rebuilt before the next test.",
        ],
        ["look for a statement of this test that still runs or holds locks"],
    )


def _not_undone(headline: str, seen: Sequence[str], remedies: Sequence[str]) -> IsolationBreach:
    breach = IsolationBreach(headline, seen, remedies)
    breach.not_undone = True
    return breach


def left_connected(test: str, connections: Sequence[str]) -> IsolationBreach:
    """Connections that are not the test engine's were left in a transaction.

    Args:
        connections: The server's number of each, with its state and last statement.
    """
    return IsolationBreach(
        "the test left a connection in a transaction; it was ended",
        [f"test: {test}", *map(shorten, connections)],
        ["commit, roll back or close every connection of a test, and end its processes"],
    )


def checkpoint_behind_changes(test: str, changed: Sequence[str]) -> IsolationConflict:
    """A checkpoint in ``reset`` or ``copy`` where something is committed already.

    Args:
        changed: What differs from the template.
    """
    return IsolationConflict(
        "asyncdb.checkpoint() begins after something has been committed",
        [
            f"test: {test}",
            f"changed: {', '.join(changed)}",
            "With real commits a checkpoint leads back to the schema and seed only.",
        ],
        [
            "enter it first, put what it begins with into asyncdb_seed, "
            'or mark the test @pytest.mark.asyncdb(isolation="rollback")'
        ],
    )


def checkpoint_in_a_transaction(test: str, opened: Sequence[str]) -> IsolationConflict:
    """A checkpoint in ``rollback`` inside an open unit of work.

    Args:
        opened: Where that was opened: lines of the user's code, the innermost last.
    """
    return IsolationConflict(
        "asyncdb.checkpoint() begins while a transaction is open",
        [f"test: {test}", "It was opened at", *(f"  {line}" for line in opened)],
        ["end it before: await session.commit(), or await session.rollback()"],
    )


def checkpoint_lost(test: str, changed: Sequence[str]) -> IsolationConflict:
    """What happened since a checkpoint cannot be put back in the middle of a test.

    Args:
        changed: What differs.
    """
    return IsolationConflict(
        "asyncdb.checkpoint() cannot put the data back",
        [f"test: {test}", f"changed: {', '.join(changed)}"],
        ["keep DDL out of the checkpoint"],
    )


def needs_independent(what: str, test: str) -> IsolationConflict:
    """Something that one connection cannot give.

    Args:
        what: The call, as the test wrote it.
    """
    return IsolationConflict(
        f"{what} needs connections of their own, which 'rollback' does not have",
        [f"test: {test}"],
        ['mark the test @pytest.mark.asyncdb(isolation="reset")'],
    )


def second_connection(test: str, changed: Sequence[str]) -> IsolationBreach:
    """Another connection than the test's has committed to the test's database.

    Args:
        changed: What differs from the template.
    """
    return IsolationBreach(
        "another connection has committed to the test's database",
        [
            f"test: {test}",
            f"changed: {', '.join(changed)}",
            "The rollback of the test's own connection does not undo it; it was put back.",
        ],
        [
            "use asyncdb_engine or a redirected engine, "
            'or mark the test @pytest.mark.asyncdb(isolation="reset")'
        ],
    )


def not_dropped(test: str, database: str, error: BaseException) -> IsolationBreach:
    """A database that had to be thrown away is still there."""
    return _not_undone(
        "the test's database could not be dropped",
        [
            f"test: {test}",
            f"database: {database}",
            _said(error),
            "The next test gets another one; the end of the run tries again.",
        ],
        ["look for a connection to it that the server cannot end"],
    )


def after_the_test(test: str, place: Sequence[str]) -> IsolationConflict:
    """Something of an ended test is used again."""
    return IsolationConflict(
        "this connection belongs to a test that has ended",
        [f"test: {test}", *_at(place), "Nothing was sent to the database."],
        [
            "get sessions and engines anew in each test, "
            "and await or cancel every task of a test before it ends"
        ],
    )


def waited_for_turn(
    test: str,
    seconds: float,
    holder: str,
    opened: Sequence[str],
    waiter: str,
    waits: Sequence[str],
) -> IsolationConflict:
    """A unit of work waited in vain for another one to end.

    Args:
        holder: The task of the unit that has the connection.
        opened: Where that unit was opened: lines of the user's code, the innermost last.
        waiter: The task that waited.
        waits: Where it stands.
    """
    return IsolationConflict(
        f"waited {seconds:g} s for another unit of work on the test's one connection",
        [
            f"test: {test}",
            f"It is held by: {holder}, which opened its unit at",
            *(f"  {line}" for line in opened),
            f"It was waited for by: {waiter}, at",
            *(f"  {line}" for line in waits),
        ],
        [
            "end the other session first (commit, rollback or close), "
            'or mark the test @pytest.mark.asyncdb(isolation="reset")'
        ],
    )


def blocked(
    test: str, seconds: float, lines: Sequence[str], own: bool, outer: bool
) -> StatementBlocked:
    """A statement waited for a lock, without an end in sight.

    Args:
        lines: Who waited, where, for which statement; who holds the lock, where that stands and
            what it has run.
        own: That is the test itself.
        outer: Its lock is the outer transaction's.
    """
    if outer:
        remedies = [
            "let the other engine be asyncdb_engine, or name it in asyncdb_app_engines",
            'mark the test @pytest.mark.asyncdb(isolation="reset"): a commit then ends its locks',
        ]
    elif own:
        remedies = [
            "end the transaction that holds the lock before: commit, roll back or close its session"
        ]
    else:
        remedies = ["end the other session, or its transaction; it is none of the test's engine"]
    return StatementBlocked(
        f"waited {seconds:.0f} s for a lock that "
        f"{'the test itself' if own else 'another session'} holds",
        [
            f"test: {test}",
            *lines,
            "The statement that waited was cancelled.",
        ],
        remedies,
    )


def overlapping_units(test: str, what: str, place: Sequence[str]) -> IsolationConflict:
    """Two units of work ended in an order that savepoints cannot express."""
    return IsolationConflict(
        "units of work overlap in a way that one connection cannot keep apart",
        [f"test: {test}", *_at(place), what],
        ['mark the test @pytest.mark.asyncdb(isolation="reset")'],
    )


def _shown(statement: str, width: int = 80) -> str:
    return shorten(masked(statement)[0], width)


def shorten(text: str, width: int = 80) -> str:
    """*text* on one line of at most *width* characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def import_failed(
    kind: type[AsyncdbError], setting: str, word: str, source: str, error: BaseException
) -> AsyncdbError:
    """The user's own module raised while it was imported."""
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    return kind(
        f"{setting}={word!r}: importing it failed ({source})",
        [f"{type(error).__name__}: {error}", f"at {place}"],
        [f"make it importable: python -c 'import {word.partition(':')[0]}'"],
    )


def not_an_app_engine(word: str, source: str, found: str, sync: bool) -> ConfigError:
    """``asyncdb_app_engines`` leads to something that cannot be redirected.

    Args:
        found: The type of what was found.
        sync: It is of SQLAlchemy's sync API.
    """
    return ConfigError(
        f"asyncdb_app_engines={word!r} is not an AsyncEngine but {found} ({source})",
        ["Only engines of sqlalchemy.ext.asyncio can be redirected."] if sync else [],
        [
            "name an AsyncEngine, an async_sessionmaker, or a function that returns one; "
            "or leave it out"
        ],
    )


def app_engine_failed(word: str, source: str, error: BaseException) -> ConfigError:
    """A function that ``asyncdb_app_engines`` names raised."""
    return ConfigError(
        f"asyncdb_app_engines={word!r}: calling it failed ({source})",
        [f"{type(error).__name__}: {error}"],
        ["name a function that needs no arguments and returns the application's own engine"],
    )


def used_outside(word: str, url: str, where: str) -> IsolationBreach:
    """An engine that should be redirected connects where there is no test's database.

    Args:
        where: The test that runs, or what else is known.
    """
    return IsolationBreach(
        f"the application's engine connects outside of a database test ({word})",
        [where, f"Nothing was sent to {url}."],
        [
            "make it a database test: @pytest.mark.asyncdb on the function, class or module",
            "in a fixture of a wider scope: give it the scope of a function",
        ],
    )


def schema_failed(label: str, what: str, error: BaseException) -> SchemaError:
    """The schema could not be built on a backend.

    Args:
        what: ``create_all`` or ``the migration``.
    """
    if isinstance(error, AsyncdbError):
        return SchemaError(str(error))
    cure = f"make the models portable to {label}"
    if what == "the migration":
        cure = f"make the migrations run on {label}"
    return SchemaError(
        f"{what} failed on {label}",
        [f"{type(error).__name__}: {str(error).strip()}", *getattr(error, "__notes__", ())],
        [f"{cure}, or keep their tests off it: @pytest.mark.asyncdb(exclude=…)"],
    )


def alembic_missing(source: str) -> ConfigError:
    """Alembic is wanted and not installed."""
    return ConfigError(
        f"the package alembic is not installed ({source})",
        [],
        ['pip install "pytest-asyncdb[alembic]"'],
    )


def no_migrations_file(name: str, path: object, source: str) -> ConfigError:
    """``asyncdb_migrations`` names no file."""
    return ConfigError(
        f"there is no file {name!r} ({source})",
        [f"Looked for {path}."],
        ["name an alembic.ini or pyproject.toml, relative to the ini file's folder"],
    )


def alembic_unreadable(
    name: str, source: str, error: BaseException, place: str | None
) -> ConfigError:
    """Alembic cannot make anything of its configuration or of a revision.

    Args:
        place: The line of the user's own code that raised, if it was one.
    """
    return ConfigError(
        f"Alembic cannot read the migrations of {name!r} ({source})",
        [
            f"{type(error).__name__}: {str(error).strip()}",
            *([f"at {place}"] if place else []),
        ],
        [f"make this work first: alembic -c {name} history"],
    )


def no_revisions(name: str, source: str, where: str) -> ConfigError:
    """There is nothing to migrate to."""
    return ConfigError(
        f"the migrations of {name!r} have no revision ({source})",
        [f"Looked in {where}."],
        [
            f'write one: alembic -c {name} revision --autogenerate -m "first"',
            "leave asyncdb_migrations out: create_all builds the tables",
        ],
    )


def foreign_database(url: str, ours: str, source: str) -> ConfigError:
    """``env.py`` would have migrated another database than the test's.

    Args:
        url: Where an engine was about to connect, without its password.
        ours: Where it should have.
    """
    return ConfigError(
        f"refused: env.py connects to another database ({source})",
        [f"Nothing was sent to {url}.", f"The tests' database is {ours}."],
        [
            'take the URL that is set: config.get_main_option("sqlalchemy.url")',
            'take the connection that is given: config.attributes["connection"]',
            'set the URL only where none is given: if "connection" not in config.attributes: '
            'config.set_main_option("sqlalchemy.url", …)',
        ],
    )


def template_in_use(label: str, sessions: Sequence[tuple[object, ...]]) -> SchemaError:
    """Somebody is connected to the template, which then cannot be copied.

    Args:
        sessions: Number, user and application of each.
    """
    return SchemaError(
        f"the schema cannot be copied: connections to its database are open on {label}",
        [f"session {', '.join(str(word) for word in words if word)}" for words in sessions],
        [
            "close what asyncdb_migrate and asyncdb_seed open: await connection.close() and "
            "await engine.dispose()"
        ],
        "Connected:",
    )


def seed_failed(label: str, error: BaseException) -> SchemaError:
    """``asyncdb_seed`` raised."""
    return SchemaError(
        f"asyncdb_seed failed on {label}",
        [f"{type(error).__name__}: {str(error).strip()}"],
        [f"make the seed run on {label}; it gets a session on tables without rows"],
    )


def seed_reuses_object(label: str, model: str) -> SchemaError:
    """``asyncdb_seed`` adds an object that another database has stored already.

    Args:
        model: The object's class.
    """
    return SchemaError(
        f"asyncdb_seed adds the same {model} object to a second database, {label}",
        ["SQLAlchemy takes it for stored already, so it would be missing there."],
        ["create new objects in each call of the seed, not at import"],
    )


def no_metadata() -> ConfigError:
    """A database test, and nothing says what its tables are."""
    return ConfigError(
        "no tables are named for database tests (asyncdb_metadata is not set)",
        [],
        [
            "add to the ini file: asyncdb_metadata = app.models:Base",
            "or, with Alembic: asyncdb_migrations = alembic.ini",
            "override the fixture asyncdb_metadata or asyncdb_migrate in a conftest.py",
            "ask for an empty database: @pytest.mark.asyncdb(schema=False)",
        ],
    )


def nothing_to_compare() -> MetadataError:
    """The schema was to be compared, and nothing says what the models are."""
    return MetadataError(
        "asyncdb.schema_differences() compares the models with the database, "
        "and asyncdb_metadata is not set",
        [],
        ["add to the ini file: asyncdb_metadata = app.models:Base"],
    )


def no_backend_parameter(test: str, words: Sequence[str]) -> ConfigError:
    """A fixture was asked for by ``getfixturevalue``, so the test was not parametrised."""
    return ConfigError(
        "a database fixture was requested while the test ran, on several backends",
        [f"test: {test}", f"The run's backends: {', '.join(words)}."],
        ['name it before: @pytest.mark.usefixtures("asyncdb_backend") on the test'],
    )


def trio_backend(test: str) -> LoopError:
    """anyio runs the test on trio."""
    return LoopError(
        "the test runs on trio, which no async SQLAlchemy driver knows (anyio_backend)",
        [f"test: {test}"],
        ["keep database tests on asyncio: override anyio_backend to return 'asyncio'"],
    )


def statement_count(
    number: int, most: int | None, least: int | None, grouped: Sequence[str]
) -> str:
    """The text of a failed ``asyncdb.count()``, which is an assertion of the user's.

    Args:
        grouped: The statements, equal ones together.
    """
    allowed = f"at most {most}" if most is not None and number > most else f"at least {least}"
    return "\n".join([f"{number} statement{'s' * (number != 1)}, {allowed} expected", *grouped])
