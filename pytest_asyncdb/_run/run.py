"""What one process of a test run holds: settings, servers, databases, strategies, its loop.

Made in ``pytest_configure``. It opens nothing before the first test needs it, and
:meth:`Run.close` closes everything in the opposite order.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_asyncdb import errors
from pytest_asyncdb._config.options import Settings, check_hosts, read_settings
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._record.timings import Timer, TimingTotals
from pytest_asyncdb._run.liveness import ServerProbe, Watchdog
from pytest_asyncdb._run.owned_servers import OwnedServers, ServerSource, print_progress
from pytest_asyncdb._run.redirect import Redirector, app_engines
from pytest_asyncdb._run.runs import new_id, prefix_of
from pytest_asyncdb._run.server_choice import ServerChoice, network
from pytest_asyncdb._run.worker_channel import ChannelServers, ServerClaims, worker_input

if TYPE_CHECKING:
    import pytest

    from pytest_asyncdb._databases.plan import SchemaPlan
    from pytest_asyncdb._databases.provisioner import Provisioner
    from pytest_asyncdb._databases.worker_databases import WorkerDatabase
    from pytest_asyncdb._engines.host_loop import HostLoop
    from pytest_asyncdb.abc import (
        Backend,
        BackendSpec,
        DatabaseRef,
        Driver,
        Isolation,
        Server,
        View,
        ViewRequest,
    )


class Run:
    """The run, as one process sees it.

    Args:
        config: pytest's; in a worker it carries the controller's ``workerinput``.
        registry: What there is, third parties' additions included.
    """

    def __init__(self, config: pytest.Config, registry: Registry) -> None:
        self.registry = registry
        given = worker_input(config)
        environment = os.environ if given is None else given.environment
        self.settings: Settings = read_settings(config, registry, environment)
        self.choice = ServerChoice(self.settings, registry)
        self.id: str
        self.worker: str = "main"
        self.workers: int = 1
        #: Is this process in the network of the process that owns the servers?
        self.here: bool = True
        #: The servers, if this process owns them.
        self.owned: OwnedServers | None = None
        self.servers: ServerSource
        if given is not None:
            self.id = given.run
            self.worker = config.workerinput["workerid"]  # type: ignore[attr-defined]
            self.workers = config.workerinput["workercount"]  # type: ignore[attr-defined]
            self.here = given.network == network()
            self.servers = ChannelServers(given.channel, self.here)
        else:
            check_hosts(self.settings, environment)
            self.id = new_id()
            self.servers = self.owned = OwnedServers(
                self.settings, registry, self.choice, print_progress, self.id
            )
        #: Unittest tests that ran on one backend of several.
        self.unparametrised: set[str] = set()
        written = self.settings.app_engines
        #: The application's engines that the ini file names.
        self.named_engines = app_engines(written.value, written.source)
        self.redirector = Redirector(self._is_on_our_loop)
        self._host: HostLoop | None = None
        self._strategies: dict[Any, Isolation] = {}
        self._databases: dict[Any, WorkerDatabase] = {}
        self._provisioners: dict[BackendSpec, Provisioner] = {}
        #: How long the plugin's own work takes in this process.
        self.timer = Timer(self.worker)
        #: How long it took in all processes, for the summary.
        self.timing_totals = TimingTotals()
        #: The rows of untouched databases, for reports, by URL.
        self.untouched: dict[Any, Any] = {}
        #: How many databases of failed tests this process has kept.
        self.kept = 0
        #: Notices when a server that this process uses no longer answers.
        self.watchdog = Watchdog()

    @property
    def host(self) -> HostLoop:
        """The plugin's own loop, made at first use."""
        if self._host is None:
            from pytest_asyncdb._engines.host_loop import HostLoop

            self._host = HostLoop()
        return self._host

    def backend(self, spec: BackendSpec) -> Backend:
        return self.registry.backend(spec.backend)

    def driver(self, spec: BackendSpec) -> Driver:
        return self.choice.driver(spec)

    def server(self, spec: BackendSpec) -> Server:
        """The server for *spec*; waits for it."""
        return self.servers.get(spec)

    def view(
        self,
        spec: BackendSpec,
        plan: SchemaPlan,
        engine_options: Mapping[str, Any],
        isolation: str,
        request: ViewRequest,
    ) -> View:
        """Open a test's view of its database.

        Tests with the same backend, plan, options and strategy share a database.
        """
        with self.watchdog.explaining(spec):
            options_key = tuple(sorted((key, id(value)) for key, value in engine_options.items()))
            key = (spec, plan, options_key, isolation)
            self.watchdog.current = spec, self.host.cancel_all
            if key not in self._strategies:
                strategy = self.registry.isolation(isolation)
                database = self._database(spec, plan, engine_options)
                self._databases[key] = database
                self._strategies[key] = strategy(database, self.host)
                database.prepare()
                self.timer.prepared()
            view = self._strategies[key].view(request)
        self.watchdog.current = spec, view.abort
        return view

    def _database(
        self, spec: BackendSpec, plan: SchemaPlan, engine_options: Mapping[str, Any]
    ) -> WorkerDatabase:
        from pytest_asyncdb._databases.worker_databases import WorkerDatabase

        return WorkerDatabase(self._provisioner(spec), plan, dict(engine_options))

    def _provisioner(self, spec: BackendSpec) -> Provisioner:
        if spec not in self._provisioners:
            from pytest_asyncdb._databases.connection_limit import idle_limit
            from pytest_asyncdb._databases.provisioner import Provisioner

            server, backend, driver = self.server(spec), self.backend(spec), self.driver(spec)
            if server.maintenance is not None:
                self.watchdog.add(spec, ServerProbe(server, backend, driver))
            provisioner = Provisioner(
                server,
                backend,
                driver,
                f"{prefix_of(self.id)}{self.worker}{_letter(len(self._provisioners))}",
                self.host,
                ServerClaims(self.servers, spec),
                idle_limit(server, backend.label, self.workers),
            )
            provisioner.built = self.timer.templates.setdefault(str(spec), [])
            self._provisioners[spec] = provisioner
        return self._provisioners[spec]

    def keep(self, kept: DatabaseRef | Exception, spec: BackendSpec, test: str) -> tuple[bool, str]:
        """Record that a failed test's database was kept.

        Returns:
            Whether it was kept, and the command that opens it, or why it was not.
        """
        from pytest_asyncdb._databases import kept_databases

        if isinstance(kept, Exception):
            return False, _in_short(kept)
        self.kept += 1
        server = self.server(spec)
        try:
            driver = self.driver(spec).name
            command = kept_databases.record(kept, test, self.id, server, self.backend(spec), driver)
        except (OSError, RuntimeError) as error:
            return False, _in_short(error)
        return True, command

    def why_not_kept(self, spec: BackendSpec) -> str | None:
        """Why no further database of *spec* can be kept; None: it can."""
        from pytest_asyncdb._databases.kept_databases import MOST

        server = self.server(spec)
        if not self.here:
            return "this worker is on another host"
        if self.kept >= MOST:
            return f"the first {MOST} of this process are"
        provider = self.registry.provider(server.provider)
        if server.managed and server.maintenance is not None and not provider.keeps:
            return (
                f"a server from {server.provider!r} ends with the run; "
                "one by URL, or by --asyncdb-server=local, can stay"
            )
        return None

    def guard(self, test: str) -> None:
        """Refuse connections of the application's engines that the ini file names."""
        self.redirector.guard(self.named_engines, test)

    def _is_on_our_loop(self) -> bool:
        return self._host is not None and self._host.runs_here

    def close(self) -> None:
        """Close connections, drop databases, stop servers. May be called twice.

        A step that fails does not prevent the later ones.
        """
        with contextlib.ExitStack() as stack:
            self.watchdog.progress()
            stack.callback(self.watchdog.close)
            stack.callback(self.servers.close)
            if self._host is not None:
                stack.callback(self._host.close)
            for provisioner in self._provisioners.values():
                stack.callback(provisioner.close)
            for database in self._databases.values():
                stack.callback(database.close)
            for strategy in self._strategies.values():
                stack.callback(strategy.close)
            stack.callback(self.redirector.close)
            self._strategies, self._databases, self._host = {}, {}, None
            self._provisioners = {}


def _letter(number: int) -> str:
    """A suffix of database names for each backend of a run: a to z, a1 to z1, a2, ..."""
    return f"{chr(ord('a') + number % 26)}{number // 26 or ''}"


def _in_short(error: BaseException) -> str:
    if isinstance(error, errors.AsyncdbError):
        return error.headline
    return f"{type(error).__name__}: {error}".partition("\n")[0]
