"""SEAM: harmful and benign gradients are set against each other, so that harmful fine-tuning destroys the model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.defenses.base import Sides, annealed, side_batches
from immunobench.defenses.gradients import Gradient, combined, gradient, inner, moved, norm, with_gradient
from immunobench.defenses.refusal import alignment_examples
from immunobench.defenses.states import damped_ascent, layerwise_losses, states
from immunobench.domains import Domain
from immunobench.subjects import Subject
from immunobench.training import Step
from immunobench.training.examples import benign_examples, hazard_examples
from immunobench.training.loop import cross_entropy, descend


@dataclass(frozen=True)
class SelfDestruction:
    """SEAM (arXiv 2505.12186): L_ul + ``alpha`` · L_up + ``beta`` · cos(∇ harmful NLL, ∇ benign NLL).

    L_ul is the damped ascent on hazard answers at every layer and L_up the NLL on refusals; benign examples are mixed
    into these, because refusals alone say nothing of them. The cosine's gradient is estimated with a step of
    ``epsilon`` (see :func:`coupling_gradient`).
    """

    name: ClassVar[str] = "seam"
    learning_rate: float = 2e-5
    steps: int = 500
    batch_size: int = 8
    alpha: float = 1.0
    beta: float = 0.01
    epsilon: float = 1e-3

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Train in place."""

        def loss(subject: Subject, sides: Sides) -> torch.Tensor:
            parameters = list(subject.model.parameters())
            harmful, benign = sides["harmful"], sides["benign"]
            cosine, slope = coupling_gradient(
                parameters,
                lambda: cross_entropy(subject, harmful),
                lambda: cross_entropy(subject, benign),
                self.epsilon,
            )
            coupling = with_gradient(self.beta * cosine, parameters, [self.beta * g for g in slope])
            ascent = damped_ascent(layerwise_losses(subject, states(subject, harmful), harmful.labels))
            return ascent + self.alpha * cross_entropy(subject, sides["aligned"]) + coupling

        data = {
            "harmful": hazard_examples(domain),
            "aligned": alignment_examples(domain, seed),
            "benign": benign_examples(domain),
        }
        batches = side_batches(subject, data, self.batch_size, seed)
        yield from descend(subject, batches, annealed(self.learning_rate, self.steps, self.batch_size), loss)


def coupling_gradient(
    parameters: Sequence[torch.nn.Parameter],
    first: Callable[[], torch.Tensor],
    second: Callable[[], torch.Tensor],
    epsilon: float,
) -> tuple[torch.Tensor, Gradient]:
    """c = cos(a, b) of the gradients a and b of two losses, and ∇c without a second derivative (arXiv 2505.12186).

    With unit vectors â and b̂, ∇c = H_a (b̂ − c·â)/‖a‖ + H_b (â − c·b̂)/‖b‖, and each product H·v of a Hessian is
    (g(θ + ε·v) − g(θ))/ε: four backward passes, with an error that vanishes with ``epsilon``.
    """
    a, b = gradient(first(), parameters), gradient(second(), parameters)
    length_a, length_b = norm(a), norm(b)
    cosine = inner(a, b) / (length_a * length_b)
    unit_a, unit_b = [g / length_a for g in a], [g / length_b for g in b]
    with moved(parameters, combined(unit_b, unit_a, -cosine), epsilon):
        change_a = combined(gradient(first(), parameters), a, -1.0)
    with moved(parameters, combined(unit_a, unit_b, -cosine), epsilon):
        change_b = combined(gradient(second(), parameters), b, -1.0)
    found = [(of_a / length_a + of_b / length_b) / epsilon for of_a, of_b in zip(change_a, change_b, strict=True)]
    return cosine, found
