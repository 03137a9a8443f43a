"""Durability: how the loss of the guardrail depends on how similar the alignment data are to the task."""

import math
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike

from immunobench.errors import UsageError
from immunobench.metrics.estimate import Estimate
from immunobench.metrics.inputs import Floats, numbers, same_length
from immunobench.metrics.intervals import bootstrap


def durability_slope(
    similarity: ArrayLike,
    loss: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The least-squares slope of guardrail loss on similarity, with a bootstrap interval over (band, run) pairs.

    Both (pairs,): the similarity of the alignment set to the downstream task, and what the same benign fine-tuning
    then took from the guardrail. Above 0 where high similarity weakens it. Undefined for one similarity only.
    """
    x, y = numbers("similarity", similarity), numbers("loss", loss)
    same_length(similarity=x, loss=y)
    # Centred first: the slope does not change and the sums keep their digits.
    x, y = (values - values.mean() if values.size else values for values in (x, y))
    scale = float((x**2).mean()) if x.size else 0.0

    def slope(totals: Floats) -> Floats:
        n, sum_x, sum_y, sum_xx, sum_xy = np.moveaxis(totals, -1, 0)
        spread = sum_xx / n - (sum_x / n) ** 2
        defined = spread > 1e-12 * scale
        return np.where(defined, (sum_xy / n - sum_x * sum_y / n**2) / np.where(defined, spread, 1), np.nan)

    columns = [np.ones_like(x), x, y, x * x, x * y]
    return bootstrap(slope, columns, clusters, level=level, resamples=resamples, seed=seed)


MOST_EXCHANGES = 300_000
"""Exchanges of labels that an exact test goes through at most."""


def exchange_slope(similarity: ArrayLike, loss: ArrayLike, *, level: float = 0.95) -> tuple[Estimate, float]:
    """The least-squares slope of ``loss`` (seeds, sets) on ``similarity`` (sets,), and the p-value of none.

    For few seeds: exact whatever the losses' distribution, where without an effect every order of the sets within a
    seed is as likely. The p-value, two-sided, is the share of all orders whose slope is at least as large. The
    interval holds every slope that, taken off the losses, leaves a p-value above 1 - ``level``. It is infinite where
    even the clearest effect could not reach that, as with one seed. Raises UsageError for more than 300,000 orders,
    which three sets have from 8 seeds on.
    """
    x, y = numbers("similarity", similarity), numbers("loss", loss)
    if y.ndim != 2 or x.shape != y.shape[1:]:
        raise UsageError("'loss' has shape (seeds, sets) and 'similarity' (sets,)")
    seeds, sets = y.shape
    if math.factorial(sets) ** seeds > MOST_EXCHANGES:
        raise UsageError(f"{seeds} seeds of {sets} sets have too many orders for an exact test: take fewer seeds")
    x = x - x.mean() if sets else x
    spread = seeds * float(x @ x)
    if spread == 0:
        return Estimate.undefined(y.size, "exact exchange", level), 1.0
    slope = float((y @ x).sum()) / spread
    orders = np.array(list(permutations(range(sets))))
    # Of every order: what its losses, the slope taken off, and what its similarities have in common with x.
    left = _sums((y[:, orders] - slope * x[orders]) @ x)
    shared = _sums(np.tile(x[orders] @ x, (seeds, 1)))
    tolerance = 1e-9 * (np.abs(left).max() + abs(slope) * spread)
    p_value = float(np.mean(np.abs(left + slope * shared) >= abs(slope) * spread - tolerance))
    high = slope + _reach(left, shared, spread, 1 - level)
    low = slope - _reach(-left, shared, spread, 1 - level)
    return Estimate(slope, y.size, low, high, "exact exchange", level), p_value


def _sums(each: Floats) -> Floats:
    """Sums over seeds of every choice of one order a seed, from (seeds, orders)."""
    total = np.zeros(1)
    for row in each:
        total = np.add.outer(total, row).ravel()
    return total


def _reach(left: Floats, shared: Floats, spread: float, alpha: float) -> float:
    """How far above the slope a slope is still not refuted, from sums over orders (orders,).

    Of a slope d above it an order is as extreme as the one seen where |left - d shared| >= d spread: up to one d.
    """
    rounding = 1e-9 * (np.abs(left).max() + spread)
    left = np.where(np.abs(left) < rounding, 0.0, left)
    room = np.where(left > 0, spread + shared, spread - shared)
    # Of nothing left, the order seen and its reverse are as extreme at any distance.
    room[(left == 0) & (spread + shared < rounding)] = 0.0
    ends = np.full(len(left), math.inf)
    np.divide(np.abs(left), room, out=ends, where=room >= rounding)
    return float(np.sort(ends)[::-1][math.floor(alpha * len(ends) + 1e-9)])


def forecast(similarity: ArrayLike, loss: ArrayLike, at: float, *, level: float = 0.95) -> Estimate:
    """The loss of one more run at similarity ``at`` by the least-squares line through (runs,), with its interval.

    Student's prediction interval: it takes it that runs scatter about the line normally and evenly. Infinite for two
    runs; undefined for one similarity.
    """
    from scipy.special import stdtrit  # 0.1 s to import, wanted here only

    x, y = numbers("similarity", similarity), numbers("loss", loss)
    same_length(similarity=x, loss=y)
    n = len(x)
    centre = x.mean() if n else 0.0
    spread = float(((x - centre) ** 2).sum())
    if n < 2 or spread <= 1e-12 * float((x**2).sum()):
        return Estimate.undefined(n, "prediction, Student", level)
    slope = float(((x - centre) * (y - y.mean())).sum()) / spread
    value = float(y.mean()) + slope * (at - centre)
    if n == 2:
        return Estimate(value, n, -math.inf, math.inf, "prediction, Student", level)
    residuals = y - y.mean() - slope * (x - centre)
    scatter = math.sqrt(float((residuals**2).sum()) / (n - 2) * (1 + 1 / n + (at - centre) ** 2 / spread))
    half = float(stdtrit(n - 2, (1 + level) / 2)) * scatter
    return Estimate(value, n, value - half, value + half, "prediction, Student", level)
