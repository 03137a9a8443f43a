"""Optimizers against their formulas, written out for one number at a time."""

import math
from collections.abc import Callable

import pytest
import torch

from immunobench.errors import UsageError
from immunobench.training.optimizers import OPTIMIZERS, ScheduleFreeAdamW, optimizer

RATES = [0.05, 0.1, 0.1, 0.02, 0.1, 0.1]
DECAY = 0.1
START = [1.5, -0.3, 0.02]


def gradient(x: float) -> float:
    """Of x⁴/4 - x."""
    return x**3 - 1


def lion(x: float) -> list[float]:
    m, path = 0.0, []
    for rate in RATES:
        g = gradient(x)
        c = 0.9 * m + 0.1 * g
        x = x - rate * (math.copysign(1, c) + DECAY * x)
        m = 0.99 * m + 0.01 * g
        path.append(x)
    return path


def schedule_free_adamw(x: float) -> list[float]:
    z, v, weights, path = x, 0.0, 0.0, []
    for t, rate in enumerate(RATES, start=1):
        y = 0.1 * z + 0.9 * x
        g = gradient(y)
        v = 0.999 * v + 0.001 * g * g
        gamma = rate * math.sqrt(1 - 0.999**t)
        z = z - gamma * g / (math.sqrt(v) + 1e-8) - gamma * DECAY * y
        weights += gamma**2
        c = gamma**2 / weights
        x = (1 - c) * x + c * z
        path.append(x)
    return path


def adadelta(x: float) -> list[float]:
    """Zeiler 2012 with ρ = 0.9, ε = 1e-6 and a learning rate; decay is added to the gradient."""
    squares, updates, path = 0.0, 0.0, []
    for rate in RATES:
        g = gradient(x) + DECAY * x
        squares = 0.9 * squares + 0.1 * g * g
        delta = math.sqrt(updates + 1e-6) / math.sqrt(squares + 1e-6) * g
        updates = 0.9 * updates + 0.1 * delta * delta
        x = x - rate * delta
        path.append(x)
    return path


def adamw(x: float) -> list[float]:
    """Loshchilov & Hutter 2019, algorithm 2, with β = (0.9, 0.999), ε = 1e-8."""
    m, v, path = 0.0, 0.0, []
    for t, rate in enumerate(RATES, start=1):
        g = gradient(x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - rate * DECAY * x - rate * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        path.append(x)
    return path


def sgd_nesterov(x: float) -> list[float]:
    """Momentum 0.9, looked ahead: the step is along g + 0.9·m; decay is added to the gradient."""
    m, path = 0.0, []
    for rate in RATES:
        g = gradient(x) + DECAY * x
        m = 0.9 * m + g
        x = x - rate * (g + 0.9 * m)
        path.append(x)
    return path


REFERENCES = {
    "adadelta": adadelta,
    "adamw": adamw,
    "lion": lion,
    "schedule-free-adamw": schedule_free_adamw,
    "sgd-nesterov": sgd_nesterov,
}


@pytest.mark.parametrize(("name", "reference"), REFERENCES.items())
def test_equals_its_formula_one_number_at_a_time(name: str, reference: Callable[[float], list[float]]) -> None:
    parameter = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    stepper = optimizer(name, [parameter], RATES[0], DECAY)
    path = []
    for rate in RATES:
        stepper.param_groups[0]["lr"] = rate
        if isinstance(stepper, ScheduleFreeAdamW):
            stepper.go_to_gradient_point()
        parameter.grad = parameter.detach() ** 3 - 1
        stepper.step()
        path.append(parameter.tolist())
    expected = zip(*map(reference, START), strict=True)
    assert [pytest.approx(list(row), abs=1e-12) for row in expected] == path


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finds_a_minimum(name: str) -> None:
    parameter = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    target = torch.tensor([1.0, 0.5])
    rate = {"adadelta": 10.0, "sgd": 0.1, "sgd-nesterov": 0.02, "lion": 0.01}.get(name, 0.1)
    stepper = optimizer(name, [parameter], rate, 0.0)
    for _ in range(600):
        if isinstance(stepper, ScheduleFreeAdamW):
            stepper.go_to_gradient_point()
        stepper.zero_grad()
        (parameter - target).square().sum().backward()
        stepper.step()
    assert (parameter - target).abs().max() < 0.05


def test_an_unknown_optimizer_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'adamw'"):
        optimizer("adam", [], 1.0, 0.0)
