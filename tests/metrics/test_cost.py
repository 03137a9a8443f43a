import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.utils import restricted_mean_survival_time

from immunobench.errors import UsageError
from immunobench.metrics.cost import (
    CostToBreak,
    area_under_curve,
    cost_to_break,
    kaplan_meier,
    restricted_mean,
)

RUNS = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=2, max_size=15)


def runs_of(pairs: list[tuple[int, bool]]) -> list[CostToBreak]:
    return [CostToBreak(float(value), censored) for value, censored in pairs]


def fitted(pairs: list[tuple[int, bool]]) -> KaplanMeierFitter:
    values, censored = zip(*pairs, strict=True)
    return KaplanMeierFitter().fit(values, event_observed=[not c for c in censored])


def test_least_cost_at_which_the_attack_recovers() -> None:
    assert cost_to_break([0, 10, 100], [0.1, 0.5, 0.9]) == CostToBreak(10.0, False)
    assert cost_to_break([100, 0, 10], [0.9, 0.1, 0.5]) == CostToBreak(10.0, False)
    assert cost_to_break([0, 10, 100], [0.6, 0.2, 0.9]) == CostToBreak(0.0, False)
    assert cost_to_break([0, 10, 100], [0.1, 0.2, 0.3]) == CostToBreak(100.0, True)
    assert cost_to_break([0, 10, 100], [0.1, math.nan, 0.9]) == CostToBreak(100.0, False)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_bar_costs_no_less(recovered: list[float], one: float, other: float) -> None:
    costs = range(len(recovered))
    low, high = (cost_to_break(list(costs), recovered, phi) for phi in sorted((one, other)))
    assert (low.value, low.censored) <= (high.value, high.censored)


@given(RUNS)
@settings(max_examples=40, deadline=None)
def test_kaplan_meier_agrees_with_lifelines(pairs: list[tuple[int, bool]]) -> None:
    ours, theirs = kaplan_meier(runs_of(pairs)), fitted(pairs)
    assert ours.unbroken == pytest.approx(theirs.survival_function_at_times(ours.costs).to_numpy())
    bounds = theirs.confidence_interval_.loc[ours.costs].to_numpy()
    inside = (ours.unbroken > 0) & (ours.unbroken < 1)
    assert ours.low[inside] == pytest.approx(bounds[inside, 0])
    assert ours.high[inside] == pytest.approx(bounds[inside, 1])


@given(RUNS)
@settings(max_examples=40, deadline=None)
def test_restricted_mean_agrees_with_lifelines(pairs: list[tuple[int, bool]]) -> None:
    horizon = float(max(value for value, _ in pairs))
    ours = restricted_mean(runs_of(pairs), horizon)
    assert ours.value == pytest.approx(restricted_mean_survival_time(fitted(pairs), t=horizon))
    assert 0 <= ours.low <= ours.value <= ours.high <= horizon


def test_variance_of_the_restricted_mean_without_censoring_is_that_of_a_mean() -> None:
    """Every run broke, so RMST is the mean of min(cost, horizon) and Greenwood's variance is their spread / n."""
    costs = np.array([2.0, 3.0, 5.0, 9.0, 14.0, 20.0])
    estimate = restricted_mean([CostToBreak(c, False) for c in costs], 10.0)
    cut = np.minimum(costs, 10.0)
    assert estimate.value == pytest.approx(cut.mean())
    assert estimate.value - estimate.low == pytest.approx(1.959964 * math.sqrt(cut.var() / len(cut)))


def test_area_is_the_mean_recovery_over_the_budget() -> None:
    assert area_under_curve([0, 10, 20], [0, 1, 1]) == pytest.approx(0.75)
    assert area_under_curve([20, 0, 10], [1, 0, 1]) == pytest.approx(0.75)
    assert area_under_curve([0, 5], [0.3, 0.3]) == pytest.approx(0.3)
    assert math.isnan(area_under_curve([5], [0.3])) and math.isnan(area_under_curve([0, 5], [0.3, math.nan]))


def test_bad_input_is_told() -> None:
    with pytest.raises(UsageError, match="checkpoint"):
        cost_to_break([], [])
    with pytest.raises(UsageError, match="at least 0"):
        cost_to_break([-1], [0.5])
    with pytest.raises(UsageError, match="one entry an item"):
        cost_to_break([0, 1], [0.5])
    with pytest.raises(UsageError, match="at most 3"):
        restricted_mean([CostToBreak(3, True)], 10)
    with pytest.raises(UsageError, match="positive"):
        restricted_mean([CostToBreak(3, True)], 0)
    assert not restricted_mean([], 10).defined
