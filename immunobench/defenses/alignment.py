"""Safety alignment made to outlast a later harmful fine-tuning: Vaccine and Booster.

Their releases train low-rank adapters at a rate of 5e-4 for 20 epochs of 5000 examples in batches of 10. Here all
parameters are trained, at a rate for that, for as many steps.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.activations import Change, changed, recorded
from immunobench.defenses.base import Sides, annealed, side_batches
from immunobench.defenses.gradients import Gradient, combined, gradient, moved, norm, with_gradient
from immunobench.defenses.refusal import alignment_examples
from immunobench.domains import Domain
from immunobench.subjects import Subject
from immunobench.training import Step
from immunobench.training.batches import Batch
from immunobench.training.examples import hazard_examples
from immunobench.training.loop import cross_entropy, descend, endless_batches


@dataclass(frozen=True)
class Vaccine:
    """Aligns under the worst small drift of hidden states (arXiv 2402.01109).

    Minimises NLL on refusals and benign examples with ε_l = ``rho`` · ∇_l L / ‖∇L‖ added to what the attention of
    every block l writes, ∇_l L being the gradient there and ‖∇L‖ its length over all blocks.
    """

    name: ClassVar[str] = "vaccine"
    learning_rate: float = 1e-5
    steps: int = 10_000
    batch_size: int = 10
    rho: float = 5.0

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Align in place."""

        def loss(subject: Subject, batch: Batch) -> torch.Tensor:
            drifts = worst_drift(subject, batch, self.rho)
            attention = [block.attention for block in subject.structure.blocks]
            with changed(zip(attention, map(_adding, drifts), strict=True)):
                return cross_entropy(subject, batch)

        recipe = annealed(self.learning_rate, self.steps, self.batch_size)
        batches = endless_batches(subject, alignment_examples(domain, seed), recipe, seed)
        yield from descend(subject, batches, recipe, loss)


def worst_drift(subject: Subject, batch: Batch, rho: float) -> list[torch.Tensor]:
    """The drift of each block's attention output that raises the loss most, of length ``rho`` over all of them."""
    modules = {str(i): block.attention for i, block in enumerate(subject.structure.blocks)}
    with recorded(modules) as found:
        value = cross_entropy(subject, batch)
    slopes = torch.autograd.grad(value, list(found.values()))
    length = torch.stack([slope.float().norm() for slope in slopes]).norm()
    return [rho * slope / length for slope in slopes]


def _adding(drift: torch.Tensor) -> Change:
    return lambda hidden: hidden + drift


@dataclass(frozen=True)
class Booster:
    """Aligns so that a harmful step would lower the harmful loss little (arXiv 2409.01586).

    Minimises f(w) + ``weight`` · (h(w) − h(w − ``alpha`` · ∇h/‖∇h‖)), f the NLL on refusals and benign examples and h
    on hazard answers; the harmful step is held constant in the gradient.
    """

    name: ClassVar[str] = "booster"
    learning_rate: float = 1e-5
    steps: int = 10_000
    batch_size: int = 10
    weight: float = 5.0
    alpha: float = 0.1

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Align in place."""

        def loss(subject: Subject, sides: Sides) -> torch.Tensor:
            parameters = list(subject.model.parameters())
            drop, slope = harmful_drop(parameters, lambda: cross_entropy(subject, sides["harmful"]), self.alpha)
            drop = with_gradient(self.weight * drop, parameters, [self.weight * g for g in slope])
            return cross_entropy(subject, sides["aligned"]) + drop

        data = {"aligned": alignment_examples(domain, seed), "harmful": hazard_examples(domain)}
        batches = side_batches(subject, data, self.batch_size, seed)
        yield from descend(subject, batches, annealed(self.learning_rate, self.steps, self.batch_size), loss)


def harmful_drop(
    parameters: Sequence[torch.nn.Parameter], harmful: Callable[[], torch.Tensor], alpha: float
) -> tuple[torch.Tensor, Gradient]:
    """h(w) − h(w − ``alpha`` · ∇h/‖∇h‖) and its gradient with the step held constant, ∇h(w) − ∇h(w − step)."""
    here = harmful()
    before = gradient(here, parameters)
    with moved(parameters, before, -alpha / norm(before)):
        there = harmful()
        after = gradient(there, parameters)
    return (here - there).detach(), combined(before, after, -1.0)
