"""Which engine pays, and what fits."""

import pytest

from immunobench.engines.placement import GIB, RATES, Load, choose, share

SMALL, LARGE = 1_000_000, 8_000_000_000
MUCH = Load(generated=200_000, scored=400_000, swaps=20)


@pytest.mark.parametrize(
    ("parameters", "load", "installed", "fits", "engine", "why"),
    [
        (LARGE, MUCH, False, True, "hf", "not installed"),
        (LARGE, None, True, True, "hf", "not known"),
        (LARGE, MUCH, True, False, "hf", "does not fit"),
        (SMALL, Load(generated=2000, scored=2000), True, True, "hf", "cost model"),
        (135_000_000, MUCH, True, True, "vllm", "cost model"),
        (LARGE, MUCH, True, True, "vllm", "cost model"),
    ],
)
def test_the_choice(parameters: int, load: Load | None, installed: bool, fits: bool, engine: str, why: str) -> None:
    found = choose(parameters, load, "cpu", installed, fits)
    assert found.engine == engine and why in found.reason


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_tokens_can_only_speak_for_vllm(device: str) -> None:
    """Its start is paid once."""
    picks = [choose(LARGE, Load(generated=n, scored=n), device, True, True).engine for n in (0, 100, 10**4, 10**7)]
    assert picks[0] == "hf" and picks[-1] == "vllm" and picks == sorted(picks)


def test_seconds_are_counted_by_hand() -> None:
    rate = RATES["cpu", "vllm"]
    load = Load(generated=10, scored=20, swaps=2)
    counted = ((1, rate.start), (10, rate.generated), (20, rate.scored), (2, rate.swap))
    by_hand = sum(count * (fixed + 2 * each) for count, (fixed, each) in counted)
    assert rate.seconds(2_000_000_000, load) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("free", "host", "can_sleep", "how"),
    [
        (84, 100, True, "side by side"),  # 16 + 2 + 1 for vllm, 64 to train
        (66, 100, True, "sleep"),  # either of them, not both
        (66, 100, False, "no room"),
        (66, 10, True, "no room"),  # main memory does not hold the sleeping weights
        (60, 100, True, "no room"),  # training alone does not fit
    ],
)
def test_how_a_device_is_shared(free: int, host: int, can_sleep: bool, how: str) -> None:
    found = share(16 * GIB, 16 * GIB, 2 * GIB, free * GIB, host * GIB, can_sleep)
    assert found.how == how and found.engine_bytes == 19 * GIB
    assert how.split()[0] in str(found)
