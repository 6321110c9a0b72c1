"""How a backend's server is run, by programs and in a container: data, for the providers.

Apart from the values of ``_types``, which every run of pytest loads.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class LocalPlace:
    """Where a backend's server programs run; what a recipe makes its commands from.

    Args:
        programs: Name to path.
        data: The data folder; the programs create it.
        credentials: A file with the recipe's ``credentials``.
        root: Are we root? Some programs then want to be told.
        version: The programs'.
    """

    programs: Mapping[str, str]
    data: str
    credentials: str
    root: bool
    version: str


@dataclasses.dataclass(frozen=True)
class LocalRecipe:
    """How a backend's server programs are found and run; see ``servers/local.py``.

    Args:
        programs: Programs that belong together; the first is the server.
        folders: Glob patterns of the usual system folders.
        version_command: Arguments that make the server program print its version.
        initialise: The command that fills the data folder.
        serve: The command that runs the server on a port of 127.0.0.1.
        credentials: The text of a file for these commands, ``{password}`` standing for a
            random password.
        renew: The statement that gives the account another password, where the data folder
            holds it; None: the credentials are read at each start.
        stop: What ends the server at once, and makes it remove what is not in the folder.
        refuses_root: The programs refuse to run as root.
        user: The user that may create databases.
        maintenance: The database that exists from the start.
        tuning: The throw-away settings of ``serve``, in words.
        recognises: Given the version line, does it belong to this backend?
    """

    programs: tuple[str, ...]
    folders: tuple[str, ...]
    version_command: tuple[str, ...]
    initialise: Callable[[LocalPlace], list[str]]
    serve: Callable[[LocalPlace, int], list[str]]
    credentials: str
    renew: str | None
    stop: signal.Signals
    refuses_root: bool
    user: str
    maintenance: str
    tuning: str
    recognises: Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class ContainerRecipe:
    """How a backend's image is run; see ``servers/container.py``.

    Args:
        image: The image's name without tag.
        tag: The tag where no version is asked for.
        port: The port inside the container.
        environment: Variables for an image of a tag, ``{password}`` standing for a random
            password.
        command: Arguments after the image.
        data_folder: The folder that is kept in memory.
        user: The user that may create databases.
        maintenance: The database that exists from the start.
        tuning: The throw-away settings of ``command``, in words.
    """

    image: str
    tag: str
    port: int
    environment: Callable[[str], Mapping[str, str]]
    command: tuple[str, ...]
    data_folder: str
    user: str
    maintenance: str
    tuning: str
