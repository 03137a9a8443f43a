"""Files that are there whole or not at all, whatever moment a crash or a full disk comes at."""

import os
import uuid
from pathlib import Path

from immunobench.errors import disk_errors


def write_file(path: Path, content: bytes) -> None:
    """As :func:`write_atomically`. Raises ImmunobenchError, which names ``path``, where the disk refuses."""
    with disk_errors(path):
        write_atomically(path, content)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``path`` whole or not at all: temporary file, fsync, rename, fsync of the folder, which is made.

    A link stays, and what it leads to is replaced. Raises OSError where the disk refuses.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # a pipe or a device such as /dev/stdout, which must not be replaced
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    try:
        write_flushed(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def try_to_write(folder: Path) -> None:
    """Write in ``folder``, or where it would be made, and leave nothing; to be asked before work that ends there.

    Raises OSError where the disk refuses.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    probe = there / temporary_name("write-test")
    probe.touch()
    probe.unlink()


def temporary_name(name: str) -> str:
    """A hidden name that no other process takes, on this machine or another one that shares the disk."""
    return f".{name}.{uuid.uuid4().hex[:12]}.tmp"


def write_flushed(path: Path, content: bytes) -> None:
    """Write ``path`` and wait until it is on the disk. Raises OSError where the disk refuses."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Wait until the names in the folder ``path`` are on the disk. Raises OSError where the disk refuses."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
