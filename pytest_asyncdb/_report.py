"""What the plugin prints: the header, and notes at the end. Reads, never acts.

Passwords never get here: a server's is not part of any line.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from pytest_asyncdb import errors

if TYPE_CHECKING:
    from pytest_asyncdb._run import Run
    from pytest_asyncdb._types import BackendSpec


def header(run: Run) -> list[str]:
    """One line for each backend: version, driver, provider and why, strategy."""
    return [_line(run, spec) for spec in run.settings.specs]


def _line(run: Run, spec: BackendSpec) -> str:
    assert run.owned is not None
    backend = run.backend(spec)
    try:
        driver = run.driver(spec)
        provider, found = run.owned.find(spec)
    except errors.AsyncdbError as error:
        return f"asyncdb: {spec}: {error.headline}"
    version = f" {found.version}" if found.version else ""
    driver_version = importlib.metadata.version(driver.module)
    return (
        f"asyncdb: {spec}: {backend.label}{version}, {driver.name} {driver_version}, "
        f"{provider.name} ({found.reason}), {run.settings.isolation.value}"
    )


def notes(run: Run) -> list[str]:
    """Lines for the end of the run."""
    if not run.unparametrised:
        return []
    return [
        f"asyncdb: {len(run.unparametrised)} unittest tests ran on "
        f"{run.settings.specs[0]} only: pytest cannot parametrise unittest classes"
    ]
