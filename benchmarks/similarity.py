"""Time, memory and growth of the search for nearest and farthest rows, against the plain full matrix.

    python benchmarks/similarity.py --rows 20000 80000    # growth, and the plain way as far as it fits
    python benchmarks/similarity.py --rows 1000000 --queries 10000

Prints a row of the table in docs/datasets.md for each. ``bands`` is the whole choice of similarity bands, ``tiles`` its
search alone, and ``full matrix`` that search the plain way, which must find the same. Each runs in a process of its
own, so that its peak memory is its own. The pool is a memory map on disk, and its rows are made as they are asked for.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from immunobench.dataset_builders.bands import select_bands
from immunobench.dataset_builders.similarity import full_matrix, nearest_and_farthest, unit_rows

DIMENSIONS = 384
NEIGHBOURS = 100
WAYS = ("bands", "tiles", "full matrix")


class Rows(Sequence):
    """Rows of a pool, alike in category and length."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, str]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return {"id": f"{index:08}", "category": "all", "prompt": "one two three", "response": "no"}


def make_pool(path: Path, rows: int) -> None:
    """Random unit rows in a file, written in blocks."""
    rng = np.random.default_rng(0)
    pool = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, DIMENSIONS))
    for start in range(0, rows, 50_000):
        pool[start : start + 50_000] = unit_rows(rng.normal(size=(min(50_000, rows - start), DIMENSIONS)))
    pool.flush()


def measure(way: str, path: Path, queries: int) -> dict[str, object]:
    """Seconds and peak memory (MiB, all of the process, pages of the pool in use included) of one search."""
    pool = np.load(path, mmap_mode="r")
    anchors = unit_rows(np.random.default_rng(1).normal(size=(queries, DIMENSIONS)))
    start = time.perf_counter()
    last = start

    def progress(share: float) -> None:
        nonlocal last
        if time.perf_counter() - last > 30:
            last = time.perf_counter()
            print(f"  {share:.0%} after {last - start:.0f} s", file=sys.stderr, flush=True)

    if way == "bands":
        bands = select_bands(Rows(len(pool)), pool, anchors, neighbours=NEIGHBOURS, progress=progress)
        found = [np.array(band.indices) for band in bands.values()]
    else:
        search = nearest_and_farthest if way == "tiles" else full_matrix
        found = list(search(pool, anchors, NEIGHBOURS))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    checksum = hashlib.sha256(b"".join(each.tobytes() for each in found)).hexdigest()
    return {
        "row": f"| {len(pool):,} × {queries:,} | {way} | {seconds:,.1f} | {peak:,.0f} MiB |",
        "checksum": checksum,
    }


def main() -> None:
    """Run the sizes asked for, one process each. Raises SystemExit where two searches differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[20_000, 40_000, 80_000])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--plain-up-to", type=int, default=20_000, help="rows up to which the plain way runs too")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one and options.one[0] == "pool":
        make_pool(Path(options.one[1]), options.rows[0])
        return
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]), options.queries)))
        return
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pool.npy"
            subprocess.run([sys.executable, __file__, "--one", "pool", str(path), "--rows", str(rows)], check=True)
            checksums = {}
            for way in WAYS if rows <= options.plain_up_to else WAYS[:2]:
                command = [sys.executable, __file__, "--one", way, str(path), "--queries", str(options.queries)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                measured = json.loads(done.stdout)
                checksums[way] = measured["checksum"]
                print(measured["row"], flush=True)
            if checksums["tiles"] != checksums.get("full matrix", checksums["tiles"]):
                sys.exit(f"tiles and full matrix differ at {rows} rows")


if __name__ == "__main__":
    main()
