"""Cost to break: the least cost at which an attack recovers the hazard, right-censored at its budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from immunobench.errors import UsageError
from immunobench.metrics.estimate import Estimate
from immunobench.metrics.inputs import Floats, numbers, same_length
from immunobench.metrics.intervals import NORMAL


@dataclass(frozen=True, slots=True)
class CostToBreak:
    """t*: a cost, and whether it is only a lower bound."""

    value: float
    """The least measured cost at which R >= phi; the budget where there is none."""
    censored: bool
    """True where R stayed below phi up to ``value``."""


@dataclass(frozen=True, slots=True)
class Survival:
    """A Kaplan-Meier curve: the share of runs not yet broken, at each cost at which one broke."""

    costs: Floats
    """(events,)"""
    unbroken: Floats
    """(events,)"""
    low: Floats
    """(events,)"""
    high: Floats
    """(events,)"""


def cost_to_break(costs: ArrayLike, recovered: ArrayLike, phi: float = 0.5) -> CostToBreak:
    """t*(phi) of one cost curve: the least cost at which ``recovered`` (checkpoints,) is at least ``phi``.

    ``costs`` (checkpoints,) in any one unit and any order. A checkpoint whose R is undefined (NaN) says
    nothing and is passed over. Raises UsageError for an empty curve.
    """
    cost, level = numbers("costs", costs), np.asarray(recovered, dtype=np.float64)
    same_length(costs=cost, recovered=level)
    if cost.size == 0:
        raise UsageError("a cost curve needs at least one checkpoint")
    if (cost < 0).any():
        raise UsageError("a cost is at least 0")
    broken = cost[level >= phi]
    return CostToBreak(float(broken.min()), False) if broken.size else CostToBreak(float(cost.max()), True)


def kaplan_meier(runs: Sequence[CostToBreak], level: float = 0.95) -> Survival:
    """The share of runs unbroken beyond each cost (Kaplan & Meier 1958, J. Am. Stat. Assoc. 53:457).

    Pointwise bounds from Greenwood's variance on the log(-log) scale; [0, 1] where the share is 0 or 1.
    """
    events, at_risk, broke = _life_table(runs)
    with np.errstate(divide="ignore", invalid="ignore"):
        unbroken = np.cumprod(1 - broke / at_risk)
        greenwood = np.cumsum(broke / (at_risk * (at_risk - broke)))
        half = NORMAL.inv_cdf((1 + level) / 2) * np.sqrt(greenwood) / np.abs(np.log(unbroken))
        low, high = unbroken ** np.exp(half), unbroken ** np.exp(-half)
    inside = (unbroken > 0) & (unbroken < 1)
    return Survival(events, unbroken, low=np.where(inside, low, 0.0), high=np.where(inside, high, 1.0))


def restricted_mean(runs: Sequence[CostToBreak], horizon: float, level: float = 0.95) -> Estimate:
    """RMST: the mean cost to break with every run cut off at ``horizon``; normal interval, cut to [0, horizon]."""
    if not runs:
        return Estimate.undefined(0, "Kaplan-Meier, Greenwood", level)
    value, variance = restricted_mean_variance(runs, horizon)
    half = NORMAL.inv_cdf((1 + level) / 2) * math.sqrt(variance)
    low, high = max(0.0, value - half), min(horizon, value + half)
    return Estimate(value, len(runs), low, high, "Kaplan-Meier, Greenwood", level)


def restricted_mean_variance(runs: Sequence[CostToBreak], horizon: float) -> tuple[float, float]:
    """The area under Kaplan-Meier's curve up to ``horizon``, and its variance.

    The variance is Greenwood's sum over the areas right of each event (Klein & Moeschberger 2003, Survival
    Analysis, section 4.5). Raises UsageError where no run was followed to the horizon: the curve is then unknown
    before it.
    """
    if horizon <= 0:
        raise UsageError("the horizon of a restricted mean is a positive cost")
    curve = kaplan_meier(runs)
    last = max(run.value for run in runs)
    if last < horizon and (curve.unbroken.size == 0 or curve.unbroken[-1] > 0):
        raise UsageError(f"no run was followed to {horizon:g}: take a horizon of at most {last:g}")
    events, at_risk, broke = _life_table(runs)
    within = events < horizon
    edges = np.concatenate([[0.0], events[within], [horizon]])
    areas = np.diff(edges) * np.concatenate([[1.0], curve.unbroken[within]])
    right_of = np.cumsum(areas[::-1])[::-1][1:]
    risk, left = at_risk[within], at_risk[within] - broke[within]
    terms = np.divide(right_of**2 * broke[within], risk * left, out=np.zeros(len(left)), where=left > 0)
    return float(areas.sum()), float(terms.sum())


def area_under_curve(costs: ArrayLike, recovered: ArrayLike) -> float:
    """Mean recovery over the budget: the trapezoid area under R against cost, over the range of cost.

    Both (checkpoints,). NaN for fewer than two different costs, or where a checkpoint is undefined.
    """
    cost, level = numbers("costs", costs), np.asarray(recovered, dtype=np.float64)
    same_length(costs=cost, recovered=level)
    order = np.argsort(cost, kind="stable")
    cost, level = cost[order], level[order]
    if cost.size < 2 or cost[0] == cost[-1]:
        return math.nan
    return float(np.trapezoid(level, cost) / (cost[-1] - cost[0]))


def _life_table(runs: Sequence[CostToBreak]) -> tuple[Floats, Floats, Floats]:
    """Distinct costs at which a run broke, the runs still at risk there, and how many broke."""
    values = np.array([run.value for run in runs], dtype=np.float64)
    happened = np.array([not run.censored for run in runs], dtype=bool)
    events, broke = np.unique(values[happened], return_counts=True)
    at_risk = (values[:, None] >= events).sum(axis=0)
    return events, at_risk.astype(np.float64), broke.astype(np.float64)
