"""The command line: one function a command, each of which parses, calls and prints."""

import os
import sys

if not sys.stderr.isatty():  # libraries read it when they are imported, and their bars would fill a log
    os.environ.setdefault("TQDM_DISABLE", "1")

from immunobench.cli import data, hub, models, studies  # noqa: F401  (each registers its commands)
from immunobench.cli.app import app
from immunobench.errors import ImmunobenchError


def main() -> None:
    """Run the command line; errors a user can mend are one sentence and an exit code."""
    try:
        app()
    except ImmunobenchError as error:
        print(f"immunobench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


__all__ = ["app", "main"]
