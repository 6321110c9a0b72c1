"""Parses the images and settings of the servers that the run starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pytest_asyncdb import errors
from pytest_asyncdb._config.registry import Registry
from pytest_asyncdb._config.specs import parse_spec, split_words, versioned
from pytest_asyncdb.values import BackendSpec, Sourced, is_tagged

#: A comma after which the next setting begins. Other commas are part of a value.
_NEXT = r",\s*(?=[\w.-]+\s*=)"


def parse_images(
    written: Sourced[str], specs: Sequence[BackendSpec], registry: Registry
) -> dict[str, Sourced[str]]:
    """Parse ``[BACKEND[@VERSION]=]IMAGE``, separated by commas.

    Returns:
        The image by backend, or by backend and version.

    Raises:
        ConfigError: The backend is unknown, has no image, or is not named.
    """
    images: dict[str, Sourced[str]] = {}
    source = written.source
    for word in split_words(written.value):
        name, _, image = word.rpartition("=")
        key = parse_spec(name, source, registry) if name else _only(word, source, specs, registry)
        backend = registry.backend(key.backend)
        if backend.container is None:
            text = f"{backend.label} has no image ({source})"
            raise errors.ConfigError(text, [], ["name a backend that runs in a container"])
        images[versioned(key)] = Sourced(image, source)
    for spec in specs:
        given = images.get(spec.backend)
        if spec.version and given and is_tagged(given.value) and versioned(spec) not in images:
            raise errors.ConfigError(
                f"{given.value} is one version, and the run asks for {spec} ({given.source})",
                [f"The version was asked for by: {spec.source}"],
                [
                    f"say that it is this version: {versioned(spec)}={given.value}",
                    f"or leave out the tag, which then is {spec.version}",
                ],
            )
    return images


def _only(word: str, source: str, specs: Sequence[BackendSpec], registry: Registry) -> BackendSpec:
    """Return the only backend of the run that runs in a container."""
    names = {spec.backend for spec in specs if registry.backend(spec.backend).container}
    if len(names) != 1:
        seen = f"The run's backends: {', '.join(map(str, specs))} ({specs[0].source})."
        remedy = f"name the backend of the image: --asyncdb-image=postgres={word}"
        raise errors.ConfigError(
            f"no backend is named for the image {word} ({source})", [seen], [remedy]
        )
    return BackendSpec(names.pop())


def parse_server_settings(
    written: Sourced[str], registry: Registry
) -> dict[str, Sourced[Mapping[str, str]]]:
    """Parse ``BACKEND: NAME=VALUE, NAME=VALUE; BACKEND: …``. A line break separates like ``;``.

    Raises:
        ConfigError: The backend is unknown, or something is not a setting.
    """
    found: dict[str, dict[str, str]] = {}
    for part in filter(None, map(str.strip, re.split(r"[;\n]", written.value))):
        name, colon, settings = part.partition(":")
        if not colon or "=" in name:
            raise _no_setting(part, written.source)
        backend = registry.backend(parse_spec(name.strip(), written.source, registry).backend)
        for setting in filter(None, map(str.strip, re.split(_NEXT, settings.strip().rstrip(",")))):
            key, equals, value = map(str.strip, setting.partition("="))
            if not equals or not re.fullmatch(r"[\w.-]+", key):
                raise _no_setting(setting, written.source)
            if key.replace("-", "_") in backend.own_settings:
                raise errors.ConfigError(
                    f"{key} is set by the plugin itself ({written.source})",
                    ["It decides where the server listens and keeps its data."],
                    ["leave it out"],
                )
            if backend.local is None:
                text = f"{backend.label} has no server: {key!r} cannot be set ({written.source})"
                raise errors.ConfigError(text, [], ["set it in a connect listener of your engine"])
            found.setdefault(backend.name, {})[key] = value
    return {backend: Sourced(values, written.source) for backend, values in found.items()}


def _no_setting(word: str, source: str) -> errors.ConfigError:
    example = "asyncdb_server_settings = postgres: timezone=UTC; mysql: sql_mode=ANSI"
    text = f"{word!r} is not a setting of a server ({source})"
    return errors.ConfigError(text, [], [f"write the backend first: {example}"])
