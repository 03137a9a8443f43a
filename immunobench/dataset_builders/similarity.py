"""The nearest and farthest rows of a large pool, for each of many queries, in bounded memory.

The cosine matrix is never held: it is computed in tiles in single precision, and only pairs that may be among
the K best or worst of their query are scored again, in double precision and in one order of summation. The
result is therefore the same for every tile size, and the same as that of the full matrix.
"""

import mmap
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

POOL_ROWS = 8192
QUERY_ROWS = 2048
GATHERED = 3
"""How many times K rows a query may be gathered, on average, before they are cut to K."""
PAIRS = 512
"""Pairs scored exactly at a time, and rows read out of order before their pages are given back."""
MARGIN = np.float32(1e-4)
"""Wider than the rounding of a single-precision product of two unit vectors."""
DECIMALS = 10
"""Similarities that agree to here are a tie, which the smaller index wins."""


def unit_rows(features: NDArray[np.floating]) -> Floats:
    """Rows scaled to length one, single precision. Raises ValueError for a zero or non-finite row."""
    rows = np.asarray(features, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise ValueError("features must be finite and not all zero in any row")
    return np.asarray(rows / norms[:, None], dtype=np.float32)


def exact_cosines(left: Floats, right: Floats) -> NDArray[np.float64]:
    """Cosine of each row of ``left`` with the same row of ``right`` (both unit rows), in double precision."""
    products = left.astype(np.float64) * right
    return np.round(products.sum(axis=1), DECIMALS)


def release_pages(pool: Floats) -> None:
    """Give back the pages of the file that were read of a ``pool`` that is a memory map; an array stays as it is.

    They would otherwise count as memory of the process until the whole file is in it. A copy-on-write map is left
    alone, because its changes would be lost, and so is every map where the system knows no ``madvise``.
    """
    file = getattr(pool, "_mmap", None)
    if file is not None and getattr(pool, "mode", "c") != "c" and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


class _Best:
    """The K highest-scored pool rows of each query of a tile, found so far.

    Single-precision scores only decide what may matter; from time to time what was gathered is scored again in
    double precision and cut to K a query.
    """

    def __init__(self, queries: Floats, k: int, sign: float) -> None:
        self.queries, self.k, self.sign = queries, k, np.float32(sign)
        self.floors = np.full(len(queries), -np.inf, dtype=np.float32)
        self.found: list[tuple[Indices, Indices]] = []
        self.kept_queries = self.kept_rows = np.empty(0, dtype=np.int64)
        self.kept_scores = np.empty(0)

    def add(self, cosines: Floats, pool: Floats, start: int) -> None:
        """Take in a tile (queries × pool rows) whose first row is row ``start`` of the pool."""
        if np.isinf(self.floors).any() and cosines.shape[1] > self.k:
            signed = cosines * self.sign
            place = cosines.shape[1] - self.k
            self.floors = np.maximum(self.floors, np.partition(signed, place, axis=1)[:, place] - MARGIN)
        bounds = (self.floors * self.sign)[:, None]
        queries, columns = np.nonzero(cosines >= bounds if self.sign > 0 else cosines <= bounds)
        self.found.append((queries, columns + start))
        if sum(len(each) for each, _ in self.found) > GATHERED * self.k * len(self.queries):
            self.cut(pool)

    def cut(self, pool: Floats) -> None:
        """Score what was gathered exactly, and keep the K best of each query, best first, ties by row."""
        if not self.found:
            return
        new_queries, new_rows = (np.concatenate(each) for each in zip(*self.found, strict=True))
        self.found = []
        new_scores = np.empty(len(new_rows))
        for start in range(0, len(new_rows), PAIRS):
            part = slice(start, start + PAIRS)
            new_scores[part] = self.sign * exact_cosines(self.queries[new_queries[part]], pool[new_rows[part]])
            release_pages(pool)
        queries = np.concatenate([self.kept_queries, new_queries])
        rows = np.concatenate([self.kept_rows, new_rows])
        scores = np.concatenate([self.kept_scores, new_scores])
        order = np.lexsort((rows, -scores, queries))
        counts = np.bincount(queries, minlength=len(self.queries))
        ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = order[ranks < self.k]
        self.kept_queries, self.kept_rows, self.kept_scores = queries[order], rows[order], scores[order]
        full = np.flatnonzero(counts >= self.k)
        worst = np.searchsorted(self.kept_queries, full, side="right") - 1
        self.floors[full] = self.kept_scores[worst].astype(np.float32) - MARGIN


def nearest_and_farthest(
    pool: Floats, queries: Floats, k: int, progress: Callable[[float], None] | None = None
) -> tuple[Indices, Indices]:
    """Indices (queries × k) of the k nearest and the k farthest pool rows of each query, best first.

    ``pool`` (rows × dimensions, may be a memory map) and ``queries`` are unit rows. Ties go to the smaller
    index. Beside a pool that is an array, memory is bounded by the tile and by queries × k, whatever the pool's
    size. Raises ValueError where the pool has fewer than ``k`` rows.
    """
    if not 0 < k <= len(pool):
        raise ValueError(f"k is {k}, the pool has {len(pool)} rows")
    tiles = [queries[start : start + QUERY_ROWS] for start in range(0, len(queries), QUERY_ROWS)]
    nearest = [_Best(tile, k, 1.0) for tile in tiles]
    farthest = [_Best(tile, k, -1.0) for tile in tiles]
    for start in range(0, len(pool), POOL_ROWS):
        block = np.asarray(pool[start : start + POOL_ROWS])
        for tile, near, far in zip(tiles, nearest, farthest, strict=True):
            cosines = tile @ block.T
            near.add(cosines, pool, start)
            far.add(cosines, pool, start)
        release_pages(pool)
        if progress:
            progress(min(1.0, (start + len(block)) / len(pool)))
    for best in (*nearest, *farthest):
        best.cut(pool)
    near_rows, far_rows = (
        np.concatenate([best.kept_rows.reshape(-1, k) for best in side]) for side in (nearest, farthest)
    )
    return near_rows, far_rows


def full_matrix(pool: Floats, queries: Floats, k: int) -> tuple[Indices, Indices]:
    """The same by the plain way, for comparison: the whole matrix in double precision, sorted."""
    cosines = np.round(queries.astype(np.float64) @ pool.T.astype(np.float64), DECIMALS)
    indices = np.broadcast_to(np.arange(len(pool)), cosines.shape)
    nearest = np.lexsort((indices, -cosines), axis=1)[:, :k]
    farthest = np.lexsort((indices, cosines), axis=1)[:, :k]
    return nearest, farthest


def mean_cosines(pool: Floats, queries: Floats) -> NDArray[np.float64]:
    """Mean cosine of each pool row with all queries: its product with their mean, block by block."""
    centre = queries.mean(axis=0, dtype=np.float64)
    blocks = []
    for start in range(0, len(pool), POOL_ROWS):
        blocks.append(np.asarray(pool[start : start + POOL_ROWS], dtype=np.float64) @ centre)
        release_pages(pool)
    return np.round(np.concatenate(blocks), DECIMALS)
