"""What one process of a test run holds: settings, servers, databases, strategies, and the plugin's
loop.

It is created in ``pytest_configure``, and opens nothing before the first test needs it.
:meth:`Run.close` closes everything in the opposite order.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_asyncdb._config.options import Settings, check_hosts, read_settings
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._run.runs import CHANNEL, new_id, prefix_of

if TYPE_CHECKING:
    import pytest
    from sqlalchemy import MetaData

    from pytest_asyncdb import abc
    from pytest_asyncdb._databases.plan import SchemaPlan
    from pytest_asyncdb._databases.provisioner import Provisioner
    from pytest_asyncdb._databases.worker_databases import WorkerDatabase
    from pytest_asyncdb._engines.host_loop import HostLoop
    from pytest_asyncdb._record.timings import Timer
    from pytest_asyncdb._run.app_engines import AppEngine
    from pytest_asyncdb._run.liveness import Liveness
    from pytest_asyncdb._run.owned_servers import OwnedServers
    from pytest_asyncdb._run.redirect import Redirector
    from pytest_asyncdb._run.server_choice import ServerChoice
    from pytest_asyncdb._run.worker_channel import ChannelServers
    from pytest_asyncdb.values import BackendSpec


class Run:
    """The run, as one process sees it.

    Args:
        config: pytest's config. In a worker it has the controller's ``workerinput``.
        registry: The available backends, providers and strategies, including those of third
            parties.
        show_line: Shows the user a line, while pytest captures the output of tests, too.
    """

    def __init__(self, config: pytest.Config, registry: Registry, show_line: abc.Show) -> None:
        #: The start of the run, by :func:`time.perf_counter`.
        self.began = time.perf_counter()
        self.registry = registry
        self._show_line = show_line
        self.settings: Settings = read_settings(config, registry)
        xdist = getattr(config, "workerinput", {})
        self.worker: str = xdist.get("workerid", "main")
        self.workers: int = xdist.get("workercount", 1)
        #: In a worker: the channel on which it asks for the controller's servers.
        self._channel, self.id = xdist.get(CHANNEL, (None, ""))
        if self.owns_servers:
            check_hosts(self.settings)
            self.id = new_id()
        #: Tasks that were refused since the last report, because their tests had ended: the test,
        #: the task, its place.
        self.late: list[tuple[str, str, str]] = []
        #: Closes everything that this process has opened.
        self._stack = contextlib.ExitStack()
        self._strategies: dict[Any, tuple[abc.Isolation, WorkerDatabase]] = {}
        self._provisioners: dict[BackendSpec, Provisioner] = {}
        said = self.settings.metadata, self.settings.migrations, self.settings.other_engines
        if any(one.source != "default" for one in (self.settings.app_engines, *said)):
            self.redirector.active = True
        elif "pytest_asyncdb._run.redirect" in sys.modules:
            self.redirector.active = False  # a run around this one must not watch its engines
        #: The rows of untouched databases, for reports, by URL.
        self.untouched: dict[Any, Any] = {}
        #: Number of databases of failed tests that this process has kept.
        self.kept = 0
        self._process = os.getpid()
        #: In a forked child: what its parent has opened. Nothing may close it, not even the garbage
        #: collector, because the connections are the parent's.
        self._parents: dict[str, Any] | None = None
        self._options: list[Mapping[str, Any]] = []
        #: For each metadata: its tables when ``create_all`` built the first schema from it.
        self._tables: dict[MetaData, set[str]] = {}

    @property
    def owns_servers(self) -> bool:
        """False if the servers belong to the controller."""
        return self._channel is None

    # A run without database tests imports none of these modules.

    @functools.cached_property
    def choice(self) -> ServerChoice:
        from pytest_asyncdb._run.server_choice import ServerChoice

        return ServerChoice(self.settings, self.registry)

    @functools.cached_property
    def servers(self) -> OwnedServers | ChannelServers:
        servers: OwnedServers | ChannelServers
        if self._channel is None:
            from pytest_asyncdb._run.owned_servers import OwnedServers

            servers = OwnedServers(self.choice, self._show_line, self.id)
        else:
            from pytest_asyncdb._run.worker_channel import ChannelServers

            servers = ChannelServers(self._channel)
        self._stack.callback(servers.close)
        return servers

    @property
    def owned(self) -> OwnedServers | None:
        """The servers, if this process owns them."""
        return self.servers if self.owns_servers else None  # type: ignore[return-value]

    @functools.cached_property
    def named_engines(self) -> tuple[AppEngine, ...]:
        """The application's engines that the ini file names."""
        from pytest_asyncdb._run.app_engines import app_engines

        written = self.settings.app_engines
        return app_engines(written.value, written.source)

    @functools.cached_property
    def redirector(self) -> Redirector:
        """The redirector. It watches the engines of the process from the first access."""
        from pytest_asyncdb._run.other_engines import OtherEngines
        from pytest_asyncdb._run.redirect import Redirector

        return Redirector(
            self.named_engines,
            lambda: "host" in self.__dict__ and self.host.runs_here,
            OtherEngines(self.settings.other_engines, self.settings.app_engines.value),
        )

    @property
    def watches(self) -> bool:
        """Whether the :attr:`redirector` watches engines."""
        return "redirector" in self.__dict__

    @functools.cached_property
    def timer(self) -> Timer:
        """How long the plugin's own work takes in this process."""
        from pytest_asyncdb._record.timings import Timer

        return Timer(self.worker)

    @functools.cached_property
    def liveness(self) -> Liveness:
        from pytest_asyncdb._run.liveness import Liveness

        return Liveness()

    @functools.cached_property
    def host(self) -> HostLoop:
        """The plugin's own loop."""
        from pytest_asyncdb._engines.host_loop import HostLoop

        host = HostLoop()
        self._stack.callback(host.close)
        return host

    def backend(self, spec: BackendSpec) -> abc.Backend:
        return self.registry.backend(spec.backend)

    def driver(self, spec: BackendSpec) -> abc.Driver:
        return self.choice.driver(spec)

    def server(self, spec: BackendSpec) -> abc.Server:
        """Return the server for *spec*. Waits until it is ready."""
        return self.servers.get(spec)

    def view(
        self,
        spec: BackendSpec,
        plan: SchemaPlan,
        engine_options: Mapping[str, Any],
        isolation: str,
        request: abc.ViewRequest,
    ) -> abc.View:
        """Open a test's view of its database.

        Tests with the same backend, plan, options and strategy share a database. A child process
        that was forked for its test makes a database of its own.
        """
        from pytest_asyncdb._databases.worker_databases import WorkerDatabase
        from pytest_asyncdb._run.messages import not_through_pooler

        if os.getpid() != self._process:
            self._enter_child()
        with self.liveness.explaining(spec):
            if engine_options not in self._options:
                self._options.append(dict(engine_options))
            key = (spec, plan, self._options.index(engine_options), isolation)
            if key not in self._strategies:
                kind = self.registry.isolation(isolation)
                server = self.server(spec)
                if server.behind_pooler and not kind.one_connection:
                    raise not_through_pooler(isolation, self.backend(spec).label, server)
                database = WorkerDatabase(
                    self._provisioner(spec), plan, dict(engine_options), kind.one_connection
                )
                self._stack.callback(database.close)
                strategy = kind(database, self.host)
                self._stack.callback(strategy.close)
                for metadata in () if plan.migrate else plan.metadata:
                    self._tables.setdefault(metadata, {*metadata.tables})
                self._strategies[key] = strategy, database
                database.template  # noqa: B018
                self.timer.prepared()
            strategy, database = self._strategies[key]
            view = strategy.view(request)
            view.seeded = database.template.seeded
            return view

    def late_tables(self) -> list[str]:
        """Return the tables that the metadata got after the schema was built."""
        found = self._tables.items()
        return [t.name for one, names in found for key, t in one.tables.items() if key not in names]

    def _provisioner(self, spec: BackendSpec) -> Provisioner:
        if spec not in self._provisioners:
            from pytest_asyncdb._databases.connection_limit import idle_limit
            from pytest_asyncdb._databases.provisioner import Provisioner

            server, backend, driver = self.server(spec), self.backend(spec), self.driver(spec)
            if server.maintenance is not None:
                self.liveness.add(spec, server, backend, driver)
            provisioner = Provisioner(
                server,
                backend,
                driver,
                f"{prefix_of(self.id)}{self.worker}_{len(self._provisioners)}",
                self.host,
                None if self.is_child else self.servers.templates,
                idle_limit(server, backend.label, self.workers),
            )
            provisioner.built = self.timer.templates.setdefault(str(spec), [])
            if self.is_child and not provisioner.in_process:
                self._stack.callback(self._drop_databases, provisioner)
            self._stack.callback(provisioner.close)
            self._provisioners[spec] = provisioner
        return self._provisioners[spec]

    @property
    def is_child(self) -> bool:
        """Whether this process was forked for a test, as pytest-forked does."""
        return self._parents is not None

    def _enter_child(self) -> None:
        """Leave everything that the parent has opened to the parent."""
        self._process = os.getpid()
        self._parents = self.__dict__.copy()
        self._stack = contextlib.ExitStack()
        self._forget()
        self.worker = f"{self.worker}_{self._process}"

    def _forget(self) -> None:
        self._strategies, self._provisioners = {}, {}
        self.__dict__.pop("host", None)

    def _drop_databases(self, one: Provisioner) -> None:
        from pytest_asyncdb._databases.provisioner import drop_leftovers
        from pytest_asyncdb._engines import selector_loop

        selector_loop.run(drop_leftovers(one.server, one.backend, one.driver, one.prefix))

    def keep(
        self, kept: abc.DatabaseRef | Exception, spec: BackendSpec, test: str
    ) -> tuple[bool, str]:
        """Record that a failed test's database was kept.

        Returns:
            Whether it was kept, and the command that opens it, or the reason why it was not kept.
        """
        from pytest_asyncdb._databases import kept_databases
        from pytest_asyncdb._record.text import in_short

        if isinstance(kept, Exception):
            return False, in_short(kept)
        self.kept += 1
        server = self.server(spec)
        try:
            driver = self.driver(spec).name
            command = kept_databases.record(kept, test, self.id, server, self.backend(spec), driver)
        except (OSError, RuntimeError) as error:
            return False, in_short(error)
        return True, command

    def why_not_kept(self, spec: BackendSpec) -> str | None:
        """Return why no further database of *spec* can be kept; None if it can."""
        from pytest_asyncdb._databases.kept_databases import MOST

        server = self.server(spec)
        if self.kept >= MOST:
            return f"the first {MOST} of this process are"
        provider = self.registry.provider(server.provider)
        if server.managed and server.maintenance is not None and not provider.keeps:
            return (
                f"a server from {server.provider!r} ends with the run; "
                "one by URL, or by --asyncdb-server=local, can stay"
            )
        return None

    def close(self) -> None:
        """Close connections, drop databases, stop servers. May be called twice.

        A forked child calls this after its test, and leaves the servers to its parent. If a step
        fails, the later steps are done nevertheless.
        """
        if os.getpid() != self._process:
            return
        with self._stack.pop_all() as stack:
            if self.watches:
                stack.callback(self.redirector.close)
            self._forget()
