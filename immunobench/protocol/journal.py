"""The journal of a search on disk: one entry a line, each with a checksum that covers all before it.

Optuna's own file backend takes whatever reads as JSON, so that a flipped bit may change a result in silence.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from immunobench.errors import ImmunobenchError, disk_errors

MARK = 16
"""Hex digits of the SHA-256 of a line's text and of all marks before it, which stand before the text."""


class JournalError(ImmunobenchError):
    """The journal cannot be read or written, so that the search cannot go on."""


class CheckedJournal(BaseJournalBackend):
    """Entries in ``path``, for one process at a time: the search's claim keeps others away.

    A last line that a crash cut off is dropped; what is damaged elsewhere raises JournalError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[dict[str, Any]] = []
        self._mark = ""
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content.rfind(b"\n") + 1
            for line in content[:whole].splitlines(keepends=True):
                self._entries.append(self._checked(line))
            if whole < len(content):
                os.truncate(path, whole)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from that number on."""
        return iter(self._entries[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries to disk, all of them or, where the disk refuses or the user stops it, none."""
        lines, before = [], (len(self._entries), self._mark)
        mark = self._mark
        for entry in logs:
            text = json.dumps(entry, separators=(",", ":"))
            mark = _mark(mark, text.encode())
            lines.append(f"{mark} {text}\n")
        content = "".join(lines).encode()
        # Unbuffered: what a buffer still held would be written behind the cut when the file is closed.
        with self._told(), open(self._path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                self._entries += logs
                self._mark = mark
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except BaseException:  # Ctrl-C may come between the write and what is known of it
                del self._entries[before[0] :]
                self._mark = before[1]
                with contextlib.suppress(OSError):
                    os.truncate(self._path, size)
                raise

    def _checked(self, line: bytes) -> dict[str, Any]:
        mark, text = line[:MARK], line[MARK + 1 : -1]
        self._mark = _mark(self._mark, text)
        if mark != self._mark.encode() or line[MARK : MARK + 1] != b" ":
            raise JournalError(
                f"'{self._path}' is damaged in line {len(self._entries) + 1}: remove the file and run the same command "
                "again, which searches anew."
            )
        entry: dict[str, Any] = json.loads(text)
        return entry

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            with disk_errors(self._path):
                yield
        except JournalError:
            raise
        except ImmunobenchError as error:
            raise JournalError(str(error)) from error


def _mark(before: str, text: bytes) -> str:
    return hashlib.sha256(before.encode() + text).hexdigest()[:MARK]
