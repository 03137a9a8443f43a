"""Optimizers by name: torch's own, and two that it does not have."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from immunobench.errors import unknown_name


class Lion(Optimizer):
    """Sign of an interpolated momentum (Chen et al., arXiv 2302.06675, algorithm 2).

    c = β1·m + (1-β1)·g;  θ ← θ - η·(sign(c) + λ·θ);  m ← β2·m + (1-β2)·g.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float = 0.0, betas: Any = (0.9, 0.99)
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group, parameter, state in _with_gradients(self):
            beta1, beta2 = group["betas"]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"]
            direction = momentum.lerp(parameter.grad, 1 - beta1).sign_()
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
            momentum.lerp_(parameter.grad, 1 - beta2)


class ScheduleFreeAdamW(Optimizer):
    """AdamW with an average of iterates instead of a schedule (Defazio et al., arXiv 2405.15682, algorithm 1).

    y = (1-β1)·z + β1·x;  g = ∇L(y);  v ← β2·v + (1-β2)·g²;  γ = η·√(1-β2^t);
    z ← z - γ·g/(√v + ε) - γ·λ·y;  x ← (1-c)·x + c·z with c = γ²/Σγ².

    Parameters hold x, which is what is measured; call :meth:`go_to_gradient_point` before each loss, so that
    the gradient is taken at y. Warm-up is that of the schedule.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float = 0.0, betas: Any = (0.9, 0.999)
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": 1e-8, "t": 0, "weights": 0.0}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def go_to_gradient_point(self) -> None:
        """Put y into every parameter; :meth:`step` takes it from there to the next x."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state |= {"x": parameter.clone(), "z": parameter.clone(), "v": torch.zeros_like(parameter)}
                state["x"].copy_(parameter)
                torch.lerp(state["z"], state["x"], group["betas"][0], out=parameter.data)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """From gradients at y to the next x."""
        for group in self.param_groups:
            beta2 = group["betas"][1]
            group["t"] += 1
            rate = group["lr"] * (1 - beta2 ** group["t"]) ** 0.5
            group["weights"] += rate**2
            for parameter in group["params"]:
                state = self.state[parameter]
                if parameter.grad is not None:
                    v = state["v"]
                    v.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
                    state["z"].addcdiv_(parameter.grad, v.sqrt().add_(group["eps"]), value=-rate)
                    state["z"].sub_(parameter, alpha=rate * group["weight_decay"])
                share = rate**2 / group["weights"] if group["weights"] else 0.0
                torch.lerp(state["x"], state["z"], share, out=parameter.data)


def _with_gradients(stepper: Optimizer) -> Iterable[tuple[dict[str, Any], Any, dict[str, Any]]]:
    """Group, parameter and state of every parameter that has a gradient."""
    for group in stepper.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield group, parameter, stepper.state[parameter]


Builder = Callable[[Iterable[torch.nn.Parameter], float, float], Optimizer]

OPTIMIZERS: dict[str, Builder] = {
    "adamw": lambda parameters, lr, decay: torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True),
    "sgd": lambda parameters, lr, decay: torch.optim.SGD(parameters, lr=lr, weight_decay=decay),
    "sgd-nesterov": lambda parameters, lr, decay: torch.optim.SGD(
        parameters, lr=lr, weight_decay=decay, momentum=0.9, nesterov=True
    ),
    "adadelta": lambda parameters, lr, decay: torch.optim.Adadelta(parameters, lr=lr, weight_decay=decay),
    "schedule-free-adamw": ScheduleFreeAdamW,
    "lion": Lion,
}


def optimizer(name: str, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
    """The optimizer called ``name`` over ``parameters``. Raises UsageError for an unknown name."""
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name](parameters, lr, weight_decay)
