"""Gradients as lists of tensors, for methods whose update is not the gradient of one loss at one point."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

Gradient = list[torch.Tensor]
"""One tensor a parameter, of its shape."""


def gradient(value: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> Gradient:
    """∇value, 0 for parameters that it does not depend on."""
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def inner(first: Gradient, second: Gradient) -> torch.Tensor:
    """Inner product over all parameters."""
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def norm(found: Gradient) -> torch.Tensor:
    """Euclidean length over all parameters."""
    return inner(found, found).sqrt()


def combined(first: Gradient, second: Gradient, weight: torch.Tensor | float) -> Gradient:
    """``first`` + ``weight`` · ``second``."""
    return [a + weight * b for a, b in zip(first, second, strict=True)]


@contextmanager
def moved(
    parameters: Sequence[torch.nn.Parameter], direction: Gradient, amount: torch.Tensor | float
) -> Iterator[None]:
    """Inside, parameters are θ + ``amount`` · ``direction``; afterwards they are θ to the last bit."""
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, step in zip(parameters, direction, strict=True):
                parameter.add_(amount * step)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def with_gradient(value: torch.Tensor, parameters: Sequence[torch.nn.Parameter], found: Gradient) -> torch.Tensor:
    """A scalar of this value whose gradient is ``found``, so that the training loop can descend along it."""
    linear = torch.stack([(p * g).sum() for p, g in zip(parameters, found, strict=True)]).sum()
    return value.detach() + (linear - linear.detach())
