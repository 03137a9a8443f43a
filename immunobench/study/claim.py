"""Who runs a cell: one process at a time, among all that share a store.

A claim is a file under ``<root>/.claims`` that its owner holds locked. The system lets go of the lock when the owner
dies, however it dies, so no claim grows stale; what the owner wrote into it stays behind and says what it was at.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from immunobench.errors import disk_errors

FOLDER = ".claims"


@contextlib.contextmanager
def claimed(root: Path, cell_id: str, note: Mapping[str, Any]) -> Iterator[bool]:
    """Hold the cell inside, or yield False where another process, or thread, holds it. ``note`` says what for.

    Raises ImmunobenchError where the disk refuses.
    """
    path = root / FOLDER / f"{cell_id}.json"
    with disk_errors(path):
        path.parent.mkdir(exist_ok=True)
        handle = _lock(path)
    if handle is None:
        yield False
        return
    try:
        owner = {"host": socket.gethostname(), "process": os.getpid()}
        with disk_errors(path):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps({**note, "owner": owner}).encode())
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def abandoned(root: Path) -> list[dict[str, Any]]:
    """The notes of all claims whose owner is gone."""
    notes = []
    for path in sorted((root / FOLDER).glob("*.json")):
        handle = _lock(path, create=False)
        if handle is not None:
            with contextlib.suppress(ValueError):  # it died before its note was written
                notes.append(json.loads(path.read_text()))
            os.close(handle)
    return notes


def _lock(path: Path, create: bool = True) -> int | None:
    """An open file that nobody else has locked, or None where somebody has, or where there is none to open."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed the file between the two calls: then this lock is on nothing.
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return handle
        except (BlockingIOError, FileNotFoundError) as error:
            if isinstance(error, BlockingIOError):
                os.close(handle)
                return None
        os.close(handle)
