"""Blockwise search gives what the full matrix gives; bands match in all but similarity, or are refused."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunobench.dataset_builders import similarity
from immunobench.dataset_builders.bands import BANDS, Band, check_bands, length_in_words, select_bands
from immunobench.dataset_builders.similarity import full_matrix, mean_cosines, nearest_and_farthest, unit_rows
from immunobench.errors import ImmunobenchError


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(8, 120),
    queries=st.integers(1, 30),
    k=st.integers(1, 8),
    pool_rows=st.integers(1, 50),
    query_rows=st.integers(1, 12),
    repeated=st.booleans(),
)
def test_tiles_agree_with_the_full_matrix(seed, rows, queries, k, pool_rows, query_rows, repeated) -> None:
    rng = np.random.default_rng(seed)
    pool = unit_rows(rng.normal(size=(rows, 16)))
    if repeated:
        pool = pool[rng.integers(0, max(2, rows // 3), size=rows)]
    anchors = unit_rows(rng.normal(size=(queries, 16)))
    before = similarity.POOL_ROWS, similarity.QUERY_ROWS
    similarity.POOL_ROWS, similarity.QUERY_ROWS = pool_rows, query_rows
    try:
        found = nearest_and_farthest(pool, anchors, k)
        means = mean_cosines(pool, anchors)
    finally:
        similarity.POOL_ROWS, similarity.QUERY_ROWS = before
    for ours, plain in zip(found, full_matrix(pool, anchors, k), strict=True):
        np.testing.assert_array_equal(ours, plain)
    np.testing.assert_allclose(means, (pool.astype(float) @ anchors.T.astype(float)).mean(1), atol=1e-6)


def test_ties_go_to_the_smaller_index() -> None:
    pool = unit_rows(np.ones((20, 4)))
    near, far = nearest_and_farthest(pool, pool[:1], 3)
    assert near.tolist() == far.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("k", [0, 21])
def test_k_out_of_range(k: int) -> None:
    pool = unit_rows(np.ones((20, 4)))
    with pytest.raises(ValueError, match="the pool has 20 rows"):
        nearest_and_farthest(pool, pool, k)


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        unit_rows(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="finite"):
        unit_rows(np.zeros((1, 3)))


def make_pool(count: int, spread: float, seed: int = 0) -> tuple[list[dict], np.ndarray, np.ndarray]:
    """A pool whose similarity to the anchors varies with ``spread`` and not with length or category."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-spread, spread, size=count)
    features = unit_rows(np.stack([np.cos(1.5 + angles), np.sin(1.5 + angles)], axis=1))
    rows = [
        {
            "id": f"{number:05}",
            "category": "ab"[number % 2],
            "prompt": " ".join(["word"] * int(rng.integers(5, 12))),
            "response": "no",
        }
        for number in range(count)
    ]
    return rows, features, unit_rows(np.array([[1.0, 0.0], [1.0, 0.02]]))


def test_bands_match_and_do_not_depend_on_the_order_of_the_pool() -> None:
    pool, features, anchors = make_pool(3000, 0.8)
    bands = select_bands(pool, features, anchors, size=40, neighbours=400)
    counted = {
        name: sorted((pool[index]["category"], length_in_words(pool[index])) for index in band.indices)
        for name, band in bands.items()
    }
    assert counted["low"] == counted["mid"] == counted["high"]
    assert all(len(set(bands[name].indices)) == 40 for name in BANDS)
    assert bands["low"].similarities.max() < bands["mid"].similarities.min()
    assert bands["mid"].similarities.max() < bands["high"].similarities.min()
    shuffled = np.random.default_rng(1).permutation(len(pool))
    again = select_bands([pool[index] for index in shuffled], features[shuffled], anchors, 40, 400)
    for name in BANDS:
        assert {pool[shuffled[index]]["id"] for index in again[name].indices} == {
            pool[index]["id"] for index in bands[name].indices
        }


def test_bands_that_overlap_are_refused() -> None:
    pool, features, anchors = make_pool(400, 0.8)
    features[:] = features[0]
    with pytest.raises(ImmunobenchError, match=r"overlap|too small"):
        select_bands(pool, features, anchors, size=40, neighbours=100)
    rows = [{"id": str(n), "category": "a", "prompt": "x y", "response": "no"} for n in range(9)]
    values = np.array([0.0, 0.1, 0.5])
    bands = {name: Band(list(range(3 * n, 3 * n + 3)), values + 0.2 * n, 100) for n, name in enumerate(BANDS)}
    with pytest.raises(ImmunobenchError, match="bands overlap: in 'a' low reaches"):
        check_bands(rows, bands)


def test_bands_that_overlap_only_over_all_categories_are_refused() -> None:
    """Apart in each of two categories, of which one is nearer to the task than the other by more than a band."""
    rows = [{"id": str(n), "category": "ab"[n % 2], "prompt": "x y", "response": "no"} for n in range(12)]
    values = np.array([0.0, 0.5, 0.0, 0.5])
    bands = {name: Band(list(range(4 * n, 4 * n + 4)), values + 0.2 * n, 100) for n, name in enumerate(BANDS)}
    with pytest.raises(ImmunobenchError, match="bands overlap: of all categories low reaches"):
        check_bands(rows, bands)


@pytest.mark.parametrize(("key", "value"), [("prompt", "one two three four five six"), ("category", "b")])
def test_bands_that_do_not_match_are_refused(key: str, value: str) -> None:
    rows = [{"id": str(n), "category": "a", "prompt": "x y", "response": "no"} for n in range(9)]
    bands = {name: Band(list(range(3 * n, 3 * n + 3)), np.full(3, 0.2 * n), 100) for n, name in enumerate(BANDS)}
    check_bands(rows, bands)
    for row in rows[6:]:
        row[key] = value
    with pytest.raises(ImmunobenchError, match="do not match"):
        check_bands(rows, bands)


def test_a_pool_that_is_too_small_is_refused() -> None:
    pool, features, anchors = make_pool(60, 0.8)
    with pytest.raises(ImmunobenchError, match="alignment pool is too small"):
        select_bands(pool, features, anchors, size=60, neighbours=20)


class Rows(Sequence):
    """A pool whose rows are made when they are asked for, as those of a table on disk."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        if index >= self.count:
            raise IndexError(index)
        return {"id": f"{index:07}", "category": "ab"[index % 2], "prompt": "one two three", "response": "no"}


STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """The most memory this process had, MiB; unlike ``ru_maxrss`` without that of the process that started it."""
    return int(next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) // 1024


def peak_growth(file: str, released: bool) -> None:
    """Print by how many MiB the peak memory of this process grows when bands are chosen of a pool in a file."""
    if not released:
        similarity.release_pages = lambda pool: None
    pool, anchors = np.load(file, mmap_mode="r"), unit_rows(np.random.default_rng(1).normal(size=(20, 384)))
    select_bands(Rows(1000), pool[:1000], anchors, size=20, neighbours=20)  # what is loaded once is loaded
    before = peak_memory()
    bands = select_bands(Rows(len(pool)), pool, anchors, size=20, neighbours=50)
    assert all(len(band.indices) == 20 for band in bands.values())
    print(peak_memory() - before)


@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux tells the peak memory of a process by itself")
def test_a_pool_in_a_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """300 MB of features; without handing back pages the peak grows by all of them."""
    file, rng = tmp_path / "pool.npy", np.random.default_rng(0)
    pool = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(200_000, 384))
    for start in range(0, len(pool), 20_000):
        pool[start : start + 20_000] = unit_rows(rng.standard_normal((20_000, 384), dtype=np.float32))
    pool.flush()
    growth = {}
    for released in (True, False):
        code = f"from {__name__} import peak_growth; peak_growth({str(file)!r}, {released})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        growth[released] = int(done.stdout)
    assert growth[False] > 250, growth
    assert growth[True] < 150, growth


def test_pages_of_a_map_that_may_have_been_changed_are_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", np.ones((4, 4), np.float32))
    for mode in ("c", "r+", "r"):
        pool = np.load(tmp_path / "pool.npy", mmap_mode=mode)
        if mode != "r":
            pool[0] = 3
        similarity.release_pages(pool[:2])
        assert pool[0, 0] == 3
    similarity.release_pages(np.ones((2, 2), np.float32))


def test_neighbours_are_not_doubled_beyond_what_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, features, anchors = make_pool(2000, 0.8)
    bands = select_bands(pool, features, anchors, size=40, neighbours=20)
    assert bands["low"].neighbours > 40
    monkeypatch.setattr("immunobench.dataset_builders.bands.CANDIDATES", 80)
    asked = []

    def search(pool, queries, k, progress):
        asked.append(k)
        return nearest_and_farthest(pool, queries, k, progress)

    monkeypatch.setattr("immunobench.dataset_builders.bands.nearest_and_farthest", search)
    with pytest.raises(ImmunobenchError, match="alignment pool is too small"):
        select_bands(pool, features, anchors, size=40, neighbours=20)
    assert asked == [20, 40]
