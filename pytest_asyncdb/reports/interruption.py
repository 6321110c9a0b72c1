"""Shows where a run stood when the user interrupted it, for example with Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pytest_asyncdb._record.call_sites import lines_of, places_of_error
from pytest_asyncdb._run import unparametrised
from pytest_asyncdb._run.stash import ITEM, RUN, is_running, state_of
from pytest_asyncdb.reports.causes import chain

#: Number of tests of xdist's workers, and of lines of the user's code, that are shown.
_SHOWN, _PLACES = 10, 3
#: Parts of the paths of code that is not the user's.
_LIBRARIES = (str(Path(os.__file__).parent), "site-packages", "dist-packages")


def lines(config: pytest.Config, tests: Iterable[str], error: BaseException) -> Iterator[str]:
    """Yield the test, its lines of code, and the statements that it waited for.

    Args:
        tests: The node ids of the tests that have begun and not ended. There are several if this is
            the controller of xdist, which knows nothing else about them.
    """
    run, item = config.stash[RUN], config.stash.get(ITEM, None)
    waiting = item is not None and is_running(item) and [item.nodeid]  # it waits for its server
    tests = list(tests) or waiting or []
    for test in tests[:_SHOWN]:
        yield f"asyncdb: interrupted in {test}"
    if item is None or item.nodeid not in tests:
        return
    state, spec = state_of(item), unparametrised.backend_of(item)
    if spec and state.view is None and run.owned and run.owned.started(spec) is None:
        yield f"  It waited for the server: {run.backend(spec).label} was being started."
    found = [place for one in chain(error) for place in places_of_error(one)]
    own = [place for place in found if not any(part in place[0] for part in _LIBRARIES)]
    yield from (f"  at {line}" for line in lines_of(own[:_PLACES]))
    for view in state.views.values():
        yield from (f"  {line}" for line in view.waits())
