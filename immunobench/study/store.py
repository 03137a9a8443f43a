"""The cell store: one folder a cell, written so that a crash at any moment loses nothing that was done.

``<root>/<cell_id>/`` holds items.parquet, transcripts.parquet and cell.json. A cell is written under a temporary
name, flushed to disk and renamed as a whole, so that it is there with all its files or not at all; cell.json holds
the hashes of the others. A cell that is done is never replaced: of two writers the first one wins.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from immunobench.errors import ImmunobenchError, disk_errors
from immunobench.files import flush_folder, temporary_name, try_to_write, write_file, write_flushed
from immunobench.protocol.adversary import fingerprint
from immunobench.study.cell import Cell

UNFINISHED = ".unfinished"
"""Folder of cells that are being written, so that no pattern for cells finds them."""
LEFT_AFTER = 86_400
"""Age in seconds from which a temporary file or folder was left by a crash."""


class Store:
    """Cells under ``root``, which is made where it does not exist unless the store is ``read_only``.

    A store that is read only may lack transcripts, which publications withhold.
    Raises ImmunobenchError where the folder is to be written and cannot be.
    """

    def __init__(self, root: Path, read_only: bool = False) -> None:
        self.root = root
        self.read_only = read_only
        if read_only:
            return
        with disk_errors(root):
            (root / UNFINISHED).mkdir(parents=True, exist_ok=True)
            try_to_write(root)
        _sweep(root / UNFINISHED)

    def read(self, cell_id: str) -> Cell | None:
        """The cell called ``cell_id``, done or failed, or None.

        Raises ImmunobenchError for a cell that claims to be done and is damaged: it is never repaired
        in silence, because a damaged result may have been cited.
        """
        cell, damage = self.inspect(cell_id)
        if damage:
            raise ImmunobenchError(
                f"cell {cell_id} is damaged ({damage}): remove the folder {self.root / cell_id} "
                "and run the same command again."
            )
        return cell

    def inspect(self, cell_id: str) -> tuple[Cell | None, str]:
        """The cell called ``cell_id``, None where there is none that reads, and what is damaged in it."""
        file = self.root / cell_id / "cell.json"
        if not file.is_file():
            return None, ""
        try:
            cell = Cell.model_validate_json(file.read_bytes())
        except ValidationError:
            return None, "cell.json does not read"
        if cell.cell_id != cell_id or fingerprint(cell.identity) != cell_id:
            return cell, "cell.json does not match its identity"
        if cell.content_sha256() != cell.sha256:
            return cell, "cell.json does not match its own hash"
        for name, sha256 in (("items", cell.items_sha256), ("transcripts", cell.transcripts_sha256)):
            path = self._file(cell_id, name)
            withheld = self.read_only and name == "transcripts" and not path.exists()
            if cell.status != "done" or withheld:
                continue
            if not path.is_file() or _sha256(path.read_bytes()) != sha256:
                return cell, f"{path.name} does not match its hash"
        return cell, ""

    def write(self, cell: Cell, items: pa.Table, transcripts: pa.Table) -> Cell:
        """Store a finished cell and return it with the hashes of its files.

        Where another writer was first and its cell is done, that one is kept and returned. Raises ImmunobenchError
        where the disk refuses, and where the cell that is there is damaged.
        """
        contents = {"items": parquet(items), "transcripts": parquet(transcripts)}
        cell = cell.model_copy(update={f"{name}_sha256": _sha256(content) for name, content in contents.items()})
        cell = cell.model_copy(update={"sha256": cell.content_sha256()})
        unfinished = self.root / UNFINISHED
        folder, made = self.root / cell.cell_id, unfinished / temporary_name(cell.cell_id)
        with disk_errors(folder):
            try:
                made.mkdir(parents=True)
                for name, content in contents.items():
                    write_flushed(made / f"{name}.parquet", content)
                write_flushed(made / "cell.json", cell.model_dump_json(indent=1).encode())
                flush_folder(made)
                with locked(self.root / ".lock"):
                    there = self.read(cell.cell_id)
                    if there is not None and there.status == "done":
                        return there
                    if folder.exists():
                        os.rename(folder, unfinished / temporary_name(f"{cell.cell_id}.old"))
                    os.rename(made, folder)
                flush_folder(self.root)
            finally:
                for left in (made, *unfinished.glob(f".{cell.cell_id}.old.*")):
                    shutil.rmtree(left, ignore_errors=True)
        return cell

    def items(self, cell_id: str) -> pa.Table:
        """Measurements of a done cell."""
        return pq.read_table(self._file(cell_id, "items"))

    def transcripts(self, cell_id: str) -> pa.Table:
        """Requests and answers of a done cell."""
        return pq.read_table(self._file(cell_id, "transcripts"))

    def size(self, cell_id: str) -> int:
        """Bytes that a cell takes on disk."""
        return sum(path.stat().st_size for path in (self.root / cell_id).iterdir())

    def _file(self, cell_id: str, name: str) -> Path:
        return self.root / cell_id / f"{name}.parquet"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` alone among all processes. The system lets go of it when a process dies."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON, whole or not at all. Raises ImmunobenchError where the disk refuses."""
    write_file(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def _sweep(folder: Path) -> None:
    """Remove what crashed writers left."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_AFTER:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def parquet(table: pa.Table) -> bytes:
    """``table`` as it is stored."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
