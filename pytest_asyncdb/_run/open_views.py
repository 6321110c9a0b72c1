"""Opens the views of a test: one for each database that ``asyncdb_metadata`` names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from pytest_asyncdb import errors
from pytest_asyncdb._databases import plan
from pytest_asyncdb._run import messages
from pytest_asyncdb._run.run import Run
from pytest_asyncdb.abc import View, ViewRequest
from pytest_asyncdb.values import BackendSpec

#: The value of ``asyncdb_metadata`` if no tables are named.
NOT_GIVEN = object()


def read_plans(
    run: Run,
    schema: bool,
    metadata: Any,
    migrate: Any,
    seed: Any,
    session_options: Mapping[str, Any],
) -> dict[str, plan.SchemaPlan]:
    """Return the plan of each of a test's databases, by name. The first is the database of the
    fixtures.

    Args:
        schema: False: the databases are empty.
        metadata: The value of the fixture ``asyncdb_metadata``. The next arguments are values of
            fixtures, too.

    Raises:
        AsyncdbError: One of the values is wrong.
    """
    names = [*map(str, metadata)] if isinstance(metadata, Mapping) and metadata else [plan.MAIN]
    for name, own in run.settings.databases.items():
        if name not in names:
            raise plan.unknown_database(name, names, own.source)
    if (bound := run.settings.databases.get(names[0])) is not None:
        raise errors.ConfigError(
            f"{names[0]!r} cannot have another backend ({bound.source})",
            ["It is the first database, whose backend is that of the test."],
            ["name another database first in asyncdb_metadata"],
        )
    extensions = run.settings.extensions
    if not schema:
        return {n: plan.SchemaPlan(empty=True, database=n, extensions=extensions) for n in names}
    if metadata is NOT_GIVEN and migrate is None:
        raise messages.no_metadata()
    given = plan.by_database(None if metadata is NOT_GIVEN else metadata, names, "asyncdb_metadata")
    migrations = plan.by_database(migrate, names, "asyncdb_migrate")
    seeds = plan.by_database(seed, names, "asyncdb_seed")
    plans = {}
    for name in names:
        builds: Callable[..., Any] | None = migrations.get(name)
        plan.refuse_generator(builds, "asyncdb_migrate")
        plans[name] = plan.SchemaPlan(
            plan.as_metadata(given[name], "the fixture asyncdb_metadata"),
            builds,
            plan.as_seeds(seeds.get(name)),
            database=name,
            inputs=(*run.settings.inputs, *chain.from_iterable(run.settings.seed.values())),
            extensions=extensions,
            session_options=session_options,
        )
    return plans


def open_views(
    run: Run,
    spec: BackendSpec,
    plans: Mapping[str, plan.SchemaPlan],
    engine_options: Mapping[str, Any],
    isolation: str,
    request: ViewRequest,
) -> dict[str, View]:
    """Open all views. If one fails, close the others and raise its error."""
    views: dict[str, View] = {}
    with contextlib.ExitStack() as stack:
        for name, one in plans.items():
            own = run.settings.databases.get(name, spec)
            # Arguments for the driver of one DBMS mean nothing to the driver of another.
            options = engine_options if own.backend == spec.backend else {}
            views[name] = run.view(own, one, options, isolation, request)
            stack.callback(views[name].close)
        stack.pop_all()
    return views
