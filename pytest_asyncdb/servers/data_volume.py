"""A volume with the data folder of a container, as its image filled it, for later runs.

An image's script fills an empty folder in up to five seconds. It runs the server's program several
times, the last time as process 1. The plugin puts a script of the same name first on PATH. In
process 1 this script copies the folder to the volume. Until then only the image's own script has
used the folder. The copy is complete or absent, because it is made under another name and then
renamed. If there is no copy, the image starts as usual.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
from collections.abc import Sequence
from typing import Any

from pytest_asyncdb._system.cache_dir import key_of

#: The label of the volumes. Its value is the password in the data. Everyone who can read it can
#: also read the variables of every container.
_LABEL = "org.pytest-asyncdb.data"
#: The path of the volume in a container.
_FOLDER = "/asyncdb-cache"
#: The age at which a volume that no container uses is removed.
_TOO_OLD = datetime.timedelta(days=30)
#: The arguments are the data folder, the server's program, and the image's own entry point and
#: command.
_ENTRYPOINT = (
    f"cache={_FOLDER} bin=/asyncdb-bin"
    r"""
if [ -e $cache/data ]; then
    cp -a $cache/data/. "$0" || { rm -rf $cache/data; find "$0" -mindepth 1 -delete; }
elif chmod 777 $cache && mkdir $bin; then
    cat > "$bin/$1" <<END
#!/bin/sh
PATH=\${PATH#*:}
[ \$\$ != 1 ] || { cp -a $0/. $cache/\$HOSTNAME && mv -T $cache/\$HOSTNAME $cache/data; }
exec $1 "\$@"
END
    chmod 755 "$bin/$1"
    PATH=$bin:$PATH
fi
shift
exec "$@"
"""
)


class DataVolume:
    """A volume of the Docker engine. It is created if it does not exist.

    Args:
        client: A client of the package ``docker``.
        words: Everything that decides what the folder holds.

    Raises:
        docker.errors.DockerException: The engine refused.
    """

    def __init__(self, client: Any, words: Sequence[str]) -> None:
        from docker.errors import NotFound

        self.name = f"pytest-asyncdb-{words[0]}-{key_of(words)}"
        volumes = client.volumes
        try:
            found = volumes.get(self.name)
        except NotFound:
            _remove_old(volumes)
            volumes.create(self.name, labels={_LABEL: secrets.token_hex(16)})
            found = volumes.get(self.name)  # another run may have created it
        self.password: str = found.attrs["Labels"][_LABEL]

    def arguments(self, image: Any, folder: str) -> dict[str, Any]:
        """Return the arguments of ``docker`` that create a container with the volume.

        Args:
            image: The image, of the package ``docker``.
            folder: The server's data folder in the container.
        """
        from docker.types import Mount

        own = image.attrs["Config"]
        if not own["Cmd"]:  # the server's program, to which the entry point adds the arguments
            return {}
        start = ["sh", "-c", _ENTRYPOINT, folder, own["Cmd"][0], *(own["Entrypoint"] or ())]
        # The labels are needed if another run has just removed the volume.
        mount = Mount(_FOLDER, self.name, "volume", labels={_LABEL: self.password})
        return {"entrypoint": start, "mounts": [mount]}


def _remove_old(volumes: Any) -> None:
    """Remove old volumes that no container uses. A run that needs one fills it again."""
    from docker.errors import APIError

    for volume in volumes.list(filters={"label": _LABEL}):
        made = datetime.datetime.fromisoformat(volume.attrs["CreatedAt"])
        if datetime.datetime.now(datetime.UTC) - made > _TOO_OLD:
            with contextlib.suppress(APIError):
                volume.remove()
