"""Alignment sets in similarity bands: alike in size, category and length in words, and apart in similarity.

The style of a request and the number of distinct facts are not matched, because wording is much of what makes a
request similar to a task: a band stands for similarity as it comes, not for similarity alone.

Hsiung et al. 2025 (arXiv 2506.05346): for each downstream example, the K nearest and the K farthest alignment
examples by cosine; the union, without repeats, cut to n. Here the cut takes equally many of each category and
length for every band, and the middle band comes from what is in neither union, as near to the median of the pool as
can be. The median is that of all categories, so that the bands are apart taken together and not only within each.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from immunobench.dataset_builders.everyday import words_of
from immunobench.dataset_builders.similarity import Floats, mean_cosines, nearest_and_farthest
from immunobench.datasets import Row
from immunobench.errors import ImmunobenchError

BANDS = ("low", "mid", "high")
SIZE = 100
"""With 200, the bands of two of the four published tasks overlap."""
SIZES = (SIZE, 60, 40, 20)
"""Rows of a band: the first that keeps the bands apart. The published bands have the first."""
NEIGHBOURS = 100
CANDIDATES = 2_000_000
"""K times downstream examples at most: what the search holds grows with it."""
CENTRAL = (0.05, 0.95)
Stratum = tuple[str, int]
"""Category and length in words."""


class PoolTooSmallError(ImmunobenchError):
    """The pool gives no bands of that size: it has too few rows that match, or they overlap. A smaller size may do."""


@dataclass(frozen=True)
class Band:
    """The examples of one band: indices into the pool, and their mean cosine with the downstream examples."""

    indices: list[int]
    similarities: NDArray[np.float64]
    neighbours: int
    """The K that gave enough candidates."""


def length_in_words(row: Row) -> int:
    """Words of an alignment example, prompt and response."""
    return len(words_of(row["prompt"])) + len(words_of(row["response"]))


def select_bands(
    pool: Sequence[Row],
    features: Floats,
    downstream: Floats,
    size: int = SIZE,
    neighbours: int = NEIGHBOURS,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Band]:
    """The three bands of an alignment ``pool`` (rows with id, category, prompt, response) for one task.

    Where the candidates are too few, ``neighbours`` is doubled, up to a quarter of the pool and to ``CANDIDATES``, and
    no further. ``features`` (pool × dimensions) and ``downstream`` (examples × dimensions) are unit rows; features
    that are a memory map, of a pool sorted by id, are never in memory as a whole. Rows are asked for one at a time.
    Raises PoolTooSmallError where the pool is too small, or the bands would overlap within a category or over all, and
    ImmunobenchError where they would differ in length or category.
    """
    ids = [row["id"] for row in pool]
    order = sorted(range(len(pool)), key=ids.__getitem__)
    if order != list(range(len(pool))):  # a large pool that is sorted already is not copied
        features = features[order]
    strata = _strata(pool, order)
    similarities = mean_cosines(features, downstream)
    chosen = None
    while chosen is None:
        neighbours = min(neighbours, len(pool))
        near, far = nearest_and_farthest(features, downstream, neighbours, progress)
        nearest, farthest = set(near.ravel().tolist()), set(far.ravel().tolist())
        try:
            chosen = _choose(strata, similarities, nearest, farthest, size)
        except PoolTooSmallError:
            if 4 * neighbours > len(pool) or 2 * neighbours * len(downstream) > CANDIDATES:
                raise
            neighbours *= 2
    bands = {
        name: Band([order[position] for position in positions], similarities[positions], neighbours)
        for name, positions in chosen.items()
    }
    check_bands(pool, bands)
    return bands


def _strata(pool: Sequence[Row], order: list[int]) -> dict[str, dict[int, list[int]]]:
    """Positions in ``order`` by category and length in words."""
    strata: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, index in enumerate(order):
        row = pool[index]
        strata[row["category"]][length_in_words(row)].append(position)
    return strata


def _choose(
    strata: dict[str, dict[int, list[int]]],
    similarities: NDArray[np.float64],
    nearest: set[int],
    farthest: set[int],
    size: int,
) -> dict[str, list[int]]:
    """Positions of the three bands among the candidates. Raises PoolTooSmallError where there are too few."""
    chosen: dict[str, list[int]] = {name: [] for name in BANDS}
    middle = float(np.median(similarities))
    for category, lengths in sorted(strata.items()):
        ranked = {
            (category, length): _rank_stratum(members, similarities, nearest - farthest, farthest - nearest, middle)
            for length, members in sorted(lengths.items())
        }
        for stratum, quota in _quotas(ranked, similarities, middle, size // len(strata)).items():
            for name in BANDS:
                chosen[name] += ranked[stratum][name][:quota]
    return chosen


def _rank_stratum(
    members: list[int], similarities: NDArray[np.float64], nearest: set[int], farthest: set[int], middle: float
) -> dict[str, list[int]]:
    """The candidates of each band among the ``members`` of one category and length, best first, ties by id."""
    return {
        "low": sorted(set(members) & farthest, key=lambda at: (similarities[at], at)),
        "mid": sorted(set(members) - nearest - farthest, key=lambda at: (abs(similarities[at] - middle), at)),
        "high": sorted(set(members) & nearest, key=lambda at: (-similarities[at], at)),
    }


def _quotas(
    ranked: dict[Stratum, dict[str, list[int]]], similarities: NDArray[np.float64], middle: float, share: int
) -> dict[Stratum, int]:
    """How many to take of each length of one category: the ``share`` places where the bands are farthest apart.

    How far that is, the narrower gap tells: from low, or from high, to the ``middle`` less what mid is off it.
    """
    places = []
    for stratum, bands in ranked.items():
        for place in range(min(map(len, bands.values()))):
            low, mid, high = (similarities[bands[name][place]] for name in BANDS)
            places.append((abs(mid - middle) - min(middle - low, high - middle), stratum))
    if len(places) < share:
        raise PoolTooSmallError(
            f"the alignment pool is too small: {len(places)} matched examples of '{next(iter(ranked))[0]}' where "
            f"{share} are needed; ask for a smaller size, more neighbours, or give a larger pool."
        )
    quotas = dict.fromkeys(ranked, 0)
    for _, stratum in sorted(places)[:share]:
        quotas[stratum] += 1
    return quotas


def measure_bands(pool: Sequence[Row], bands: dict[str, Band]) -> dict[str, Row]:
    """Figures of each band: size, K, mean length, categories, mean similarity, central 90 % over all and in each."""
    figures: dict[str, Row] = {}
    for name, band in bands.items():
        categories = np.array([pool[index]["category"] for index in band.indices])
        figures[name] = {
            "size": len(band.indices),
            "neighbours": band.neighbours,
            "mean_length_in_words": float(np.mean([length_in_words(pool[index]) for index in band.indices])),
            "categories": {str(each): int((categories == each).sum()) for each in np.unique(categories)},
            "mean_similarity": round(float(band.similarities.mean()), 4),
            "pooled_central_90_percent": [round(float(x), 4) for x in np.quantile(band.similarities, CENTRAL)],
            "central_90_percent": {
                str(each): [round(float(x), 4) for x in np.quantile(band.similarities[categories == each], CENTRAL)]
                for each in np.unique(categories)
            },
        }
    return figures


def check_bands(pool: Sequence[Row], bands: dict[str, Band]) -> None:
    """Raise ImmunobenchError unless bands are alike in size, length and categories, and apart in each and over all.

    Where they are not apart it is a PoolTooSmallError.
    """
    figures = measure_bands(pool, bands)
    low = figures["low"]
    for name in ("mid", "high"):
        for key in ("size", "categories"):
            if figures[name][key] != low[key]:
                raise ImmunobenchError(f"the bands do not match: {key} differ between low and {name}.")
        if abs(figures[name]["mean_length_in_words"] - low["mean_length_in_words"]) > 0.5:
            raise ImmunobenchError(f"the bands do not match: lengths differ between low and {name}.")
    spans = {
        name: {f"in '{category}'": span for category, span in band["central_90_percent"].items()}
        | {"of all categories": band["pooled_central_90_percent"]}
        for name, band in figures.items()
    }
    for lower, upper in (("low", "mid"), ("mid", "high")):
        for where, (_, top) in spans[lower].items():
            bottom = spans[upper][where][0]
            if top >= bottom:
                raise PoolTooSmallError(
                    f"the bands overlap: {where} {lower} reaches {top:.3f} and {upper} begins at {bottom:.3f}; "
                    "ask for a smaller size, or give a larger pool."
                )
