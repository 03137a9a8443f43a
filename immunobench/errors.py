"""Errors a user can mend, each one sentence that says what to do.

The command line prints the sentence alone and leaves with ``exit_code``;
anything else that escapes is a bug and keeps its traceback.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path


class ImmunobenchError(Exception):
    """A run that failed for a reason outside the program. Exit code 1."""

    exit_code = 1


class UsageError(ImmunobenchError):
    """A request that cannot be right: an unknown name, a wrong value. Exit code 2."""

    exit_code = 2


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a ``name`` that is none of the ``known``, with the nearest right one.

    Example: ``unknown adversary 'quick-lora': did you mean 'lora-t-facts'?``
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"choose one of {', '.join(names)}."
    return UsageError(f"unknown {kind} '{name}': {hint}")


@contextlib.contextmanager
def disk_errors(path: Path, place: str = "another folder with --out") -> Iterator[None]:
    """Say of an OSError inside, where ``path`` is written, what to do. Raises ImmunobenchError for it.

    ``place`` is what the user may choose instead.
    """
    try:
        yield
    except OSError as error:
        raise ImmunobenchError(
            f"cannot write {path}: {error.strerror or error}; free space or choose {place}, "
            "then run the same command again."
        ) from error
