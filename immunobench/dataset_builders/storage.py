"""Write configs as parquet with a manifest: the same rows give the same bytes."""

import json
import shutil
import tempfile
from pathlib import Path

from immunobench.datasets import MANIFEST, Row, fingerprint_rows, sha256_file
from immunobench.errors import UsageError, disk_errors
from immunobench.files import try_to_write, write_atomically

Configs = dict[str, dict[str, list[Row]]]


def check_free(out: Path) -> None:
    """Raise UsageError unless ``out`` is an empty folder or not there yet, ImmunobenchError where it cannot be written.

    To be asked before any work that ends there.
    """
    with disk_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is not an empty folder: remove it or choose another one with --out.")
        try_to_write(out.parent)


def write_new(out: Path, configs: Configs, facts: Row) -> Row:
    """As ``write_dataset``, all or nothing: in a folder beside ``out`` that takes its name at the end.

    Raises as :func:`check_free` does.
    """
    check_free(out)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            manifest = write_dataset(staging, configs, facts)
            staging.chmod(0o755)
            staging.replace(out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _parquet(rows: list[Row]) -> tuple[bytes, int]:
    """The rows as a parquet file, and their size in memory in bytes."""
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, sink, compression="zstd", compression_level=9, row_group_size=1000)
    return bytes(sink.getvalue()), table.nbytes


def write_dataset(out: Path, configs: Configs, facts: Row) -> Row:
    """Write ``out``/CONFIG/SPLIT.parquet for all configs and ``out``/manifest.json, and return the manifest.

    ``facts`` (name, version, seed, measured figures …) goes into the manifest as it is. The manifest is
    written last: a folder without one holds an unfinished dataset. Raises OSError where the disk refuses.
    """
    manifest: Row = {**facts, "configs": {}}
    for config, splits in configs.items():
        entry: Row = {"fingerprint": fingerprint_rows(splits), "splits": {}}
        for split, rows in splits.items():
            path = out / config / f"{split}.parquet"
            data, in_memory = _parquet(rows)
            write_atomically(path, data)
            entry["splits"][split] = {
                "file": f"{config}/{split}.parquet",
                "rows": len(rows),
                "bytes": len(data),
                "bytes_in_memory": in_memory,
                "sha256": sha256_file(path),
                "columns": list(rows[0]),
            }
        manifest["configs"][config] = entry
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    write_atomically(out / MANIFEST, text.encode())
    return manifest
