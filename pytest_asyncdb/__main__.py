"""``python -m pytest_asyncdb reap``: removes what dead runs have left."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings

from pytest_asyncdb import errors


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pytest_asyncdb")
    command = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "reap",
        help="remove what killed runs have left",
        description="Remove what killed runs have left: server folders and processes, containers, "
        "and databases on the servers of the URLs. Also remove servers that stay for later runs "
        "and databases of failed tests that were kept. What a running test run uses is not "
        "touched. Every run removes leftovers on its own, too.",
    )
    command.add_argument("urls", nargs="*", metavar="URL", help="in addition to ASYNCDB_*_URL")
    command.add_argument("--dry-run", action="store_true", help="only report what would be removed")
    command.add_argument(
        "--allow-hosts",
        metavar="HOSTS",
        default=os.environ.get("ASYNCDB_ALLOW_HOSTS", ""),
        help="hosts of URLs that are for tests although they are not on this machine",
    )
    parsed = parser.parse_args(arguments)

    from pytest_asyncdb._run.leftovers import reap

    # Drivers report a server's warnings, for example about deprecated columns of its own tables.
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    try:
        return 0 if reap(parsed.urls, parsed.allow_hosts, parsed.dry_run, print) else 1
    except errors.AsyncdbError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
