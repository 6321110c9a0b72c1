"""``python -m pytest_asyncdb reap``: remove what dead runs have left."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings

from pytest_asyncdb import errors


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pytest_asyncdb")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    reap = commands.add_parser(
        "reap",
        help="remove what runs have left",
        description="Remove what runs have left that were killed: server folders and processes, "
        "containers, and databases on the servers of the URLs; also servers that stay for later "
        "runs, and databases of failed tests that were kept. What belongs to a living run "
        "stays. Every run does this by itself, too.",
    )
    reap.add_argument("urls", nargs="*", metavar="URL", help="besides those of ASYNCDB_*_URL")
    reap.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    reap.add_argument(
        "--allow-hosts",
        metavar="HOSTS",
        default=os.environ.get("ASYNCDB_ALLOW_HOSTS", ""),
        help="hosts of test servers, besides this machine and names without a dot",
    )
    parsed = parser.parse_args(arguments)

    from pytest_asyncdb._run.leftovers import reap as remove

    # Drivers pass on warnings of the server, such as deprecations.
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    try:
        return 0 if remove(parsed.urls, parsed.allow_hosts, parsed.dry_run, print) else 1
    except errors.AsyncdbError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
