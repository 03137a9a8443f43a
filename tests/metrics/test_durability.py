from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from immunobench.errors import UsageError
from immunobench.metrics.durability import durability_slope, exchange_slope, forecast


@given(st.integers(0, 1000), st.floats(-1e3, 1e3))
@settings(max_examples=25, deadline=None)
def test_slope_is_that_of_least_squares(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.random(15)
    loss = 0.3 * similarity + rng.normal(0, 0.1, 15)
    estimate = durability_slope(similarity + shift, loss, resamples=100)
    assert estimate.value == pytest.approx(linregress(similarity, loss).slope, rel=1e-6, abs=1e-9)
    assert estimate.low <= estimate.value <= estimate.high


def test_interval_covers_the_truth() -> None:
    """Three bands, ten runs each; of 300 intervals at 90 %, Monte-Carlo error 0.017, three allowed."""
    rng = np.random.default_rng(2)
    covered = 0
    similarity = np.repeat([0.2, 0.5, 0.8], 10)
    for trial in range(300):
        loss = 0.4 * similarity + rng.normal(0, 0.1, 30)
        estimate = durability_slope(similarity, loss, level=0.9, resamples=400, seed=trial)
        covered += estimate.low <= 0.4 <= estimate.high
    assert covered / 300 == pytest.approx(0.9, abs=0.051)


def test_one_similarity_has_no_slope() -> None:
    assert not durability_slope([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]).defined
    assert not durability_slope([], []).defined
    with pytest.raises(UsageError, match="one entry an item"):
        durability_slope([0.1, 0.2], [0.3])


THREE = np.array([0.1, 0.25, 0.3])


def exchanged(x: np.ndarray, y: np.ndarray) -> float:
    """The p-value by going through every order of every seed."""
    seen = abs(np.polyfit(np.tile(x, len(y)), y.ravel(), 1)[0])
    slopes = [
        abs(
            np.polyfit(np.tile(x, len(y)), np.concatenate([row[list(o)] for row, o in zip(y, orders, strict=True)]), 1)[
                0
            ]
        )
        for orders in product(permutations(range(len(x))), repeat=len(y))
    ]
    return float(np.mean(np.array(slopes) >= seen - 1e-9))


@pytest.mark.parametrize("draw", range(3))
def test_exchange_slope_is_that_of_least_squares_with_the_share_of_all_orders(draw: int) -> None:
    losses = 0.4 * THREE + np.random.default_rng(draw).normal(0, 0.05, (3, 3))
    found, p_value = exchange_slope(THREE, losses)
    assert found.value == pytest.approx(linregress(np.tile(THREE, 3), losses.ravel()).slope)
    assert p_value == pytest.approx(exchanged(THREE, losses))
    assert found.n == 9


@pytest.mark.parametrize("similarity", [[0.1, 0.25, 0.3], [0.1, 0.2, 0.3], [0.1, 0.1, 0.3]])
def test_the_interval_holds_the_slopes_that_the_test_does_not_refute(similarity: list[float]) -> None:
    x = np.array(similarity)
    losses = 0.4 * x + np.random.default_rng(4).normal(0, 0.05, (3, 3))
    found, _ = exchange_slope(x, losses)
    assert -np.inf < found.low < found.value < found.high < np.inf
    for slope in np.linspace(found.low - 1, found.high + 1, 60):
        refuted = exchange_slope(x, losses - slope * x)[1] <= 0.05
        assert refuted != (found.low <= slope <= found.high)


@pytest.mark.parametrize("heavy", [False, True])
def test_exchange_interval_covers_the_truth_with_three_seeds_of_three_bands(heavy: bool) -> None:
    """At least 95 % of 600, seeds apart; Monte-Carlo error 0.009, three allowed. Normal and heavy-tailed noise."""
    rng = np.random.default_rng(5)
    covered, tight = 0, 0
    for _ in range(600):
        noise = rng.standard_t(2, (3, 3)) if heavy else rng.normal(0, 1, (3, 3))
        estimate, _ = exchange_slope(THREE, 0.4 * THREE + 0.1 * noise + rng.normal(0, 0.3, (3, 1)))
        covered += estimate.low <= 0.4 <= estimate.high
        tight += estimate.high - estimate.low < np.inf
    assert 0.95 - 0.027 <= covered / 600 <= 0.99
    assert tight == 600


def test_one_seed_refutes_no_slope_and_many_are_refused() -> None:
    one, p_value = exchange_slope(THREE, [[0.1, 0.2, 0.3]])
    assert one.defined and (one.low, one.high) == (-np.inf, np.inf) and p_value >= 1 / 6
    flat, p_value = exchange_slope([0.2, 0.2], [[0.1, 0.3], [0.2, 0.1]])
    assert not flat.defined and p_value == 1
    with pytest.raises(UsageError, match="take fewer seeds"):
        exchange_slope(THREE, np.zeros((8, 3)))
    with pytest.raises(UsageError, match=r"\(seeds, sets\)"):
        exchange_slope(THREE, [0.1, 0.2, 0.3])


def test_forecast_interval_covers_the_next_run() -> None:
    """600 forecasts at 95 % of a tenth run from nine: Monte-Carlo error 0.009, three allowed."""
    rng = np.random.default_rng(6)
    x = np.tile(THREE, 3)
    covered = 0
    for _ in range(600):
        estimate = forecast(x, 0.4 * x + rng.normal(0, 0.1, 9), 0.2)
        covered += estimate.low <= 0.4 * 0.2 + rng.normal(0, 0.1) <= estimate.high
    assert covered / 600 == pytest.approx(0.95, abs=0.027)


def test_forecast_lies_on_the_line_and_widens_away_from_it() -> None:
    y = np.random.default_rng(7).random(3)
    line = np.polyfit(THREE, y, 1)
    near, far = forecast(THREE, y, 0.2), forecast(THREE, y, 2.0)
    assert near.value == pytest.approx(np.polyval(line, 0.2)) and far.value == pytest.approx(np.polyval(line, 2.0))
    assert near.high - near.low < far.high - far.low
    assert forecast(THREE[:2], y[:2], 0.2).high == np.inf
    assert not forecast([0.2, 0.2, 0.2], y, 0.2).defined
