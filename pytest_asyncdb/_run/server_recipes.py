"""Puts the images and settings that the user wants into the recipes of the run's backends.

So providers, and the keys of servers that are kept, see nothing but recipes.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_asyncdb._config.options import Settings
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb.abc import LocalPlace, LocalRecipe


def configure(settings: Settings, registry: Registry) -> None:
    """Give the backends of this run the recipes that its options ask for."""
    for name in dict.fromkeys(spec.backend for spec in settings.all_specs):
        backend = registry.backend(name)
        given = settings.server_settings.get(name)
        values = given.value.items() if given is not None else ()
        arguments = [word for key, value in values for word in backend.set_at_start(key, value)]
        if arguments and backend.local is not None:
            backend.local = _with_arguments(backend.local, arguments)
        if backend.container is not None:
            command = (*backend.container.command, *arguments)
            images = {
                key.partition("@")[2]: image.value
                for key, image in settings.images.items()
                if key.partition("@")[0] == name
            }
            backend.container = backend.container._replace(command=command, images=images)


def _with_arguments(recipe: LocalRecipe, arguments: Sequence[str]) -> LocalRecipe:
    def serve(place: LocalPlace, port: int) -> list[str]:
        return [*recipe.serve(place, port), *arguments]

    return recipe._replace(serve=serve)
