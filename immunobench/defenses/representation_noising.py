"""RepNoise: what the model computes on harmful answers is turned into noise."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.defenses.base import Sides, annealed, side_batches
from immunobench.defenses.refusal import refusal_pairs
from immunobench.defenses.states import damped_ascent, layerwise_losses, states
from immunobench.domains import Domain
from immunobench.subjects import Subject
from immunobench.training import Step
from immunobench.training.batches import IGNORED
from immunobench.training.examples import benign_examples
from immunobench.training.loop import cross_entropy, descend

KERNELS = 5
"""Gaussian kernels of the discrepancy, each twice as wide as the one before."""


@dataclass(frozen=True)
class RepresentationNoising:
    """RepNoise (arXiv 2405.14577): NLL(refusal) + β · noise − α · log(1 + mean over layers of NLL(harmful answer)).

    The noise term is the mean over blocks of the discrepancy between what the MLPs write at the tokens in which the
    harmful answer differs from the refusal, and standard normal noise. α and β are the release's. ``retain`` · NLL of
    benign examples is added, because the pairs say nothing of these; rate, steps and batch are this benchmark's.
    """

    name: ClassVar[str] = "repnoise"
    learning_rate: float = 2e-5
    steps: int = 300
    batch_size: int = 4
    alpha: float = 1.0
    beta: float = 0.001
    retain: float = 1.0

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Train in place on pairs of a refusal and an answer to the same request."""
        generator = torch.Generator(subject.device).manual_seed(seed)

        def loss(subject: Subject, sides: Sides) -> torch.Tensor:
            harmful = sides["answers"]
            differs = differing(harmful.labels, sides["refusals"].labels)
            found = states(subject, harmful)
            ascent = damped_ascent(layerwise_losses(subject, found, harmful.labels.where(differs, IGNORED)))
            noise = torch.stack([noise_discrepancy(h[:, -differs.shape[1] :], differs, generator) for h in found.mlp])
            kept = cross_entropy(subject, sides["refusals"]) + self.retain * cross_entropy(subject, sides["retain"])
            return kept + self.beta * noise.mean() + self.alpha * ascent

        refusals, answers = zip(*refusal_pairs(domain), strict=True)
        data = {"refusals": refusals, "answers": answers, "retain": benign_examples(domain)}
        batches = side_batches(subject, data, self.batch_size, seed, aligned=("refusals", "answers"))
        yield from descend(subject, batches, annealed(self.learning_rate, self.steps, self.batch_size), loss)


def differing(labels: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Where a row of ``labels`` differs from the row of ``others``, both counted from the start of the response.

    Labels stand at the right end, IGNORED before them; the shape of ``labels``, False where it is IGNORED.
    """
    found = torch.zeros_like(labels, dtype=torch.bool)
    for i, (row, other) in enumerate(zip(labels, others, strict=True)):
        own, its = row[row != IGNORED], other[other != IGNORED]
        same = torch.zeros_like(own, dtype=torch.bool)
        shared = min(len(own), len(its))
        same[:shared] = own[:shared] == its[:shared]
        found[i, len(row) - len(own) :] = ~same
    return found


def noise_discrepancy(hidden: torch.Tensor, mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Discrepancy of masked sequences (examples, length, width) from normal noise under the same mask."""
    masked = (hidden.float() * mask[..., None]).flatten(1)
    noise = torch.randn(hidden.shape, generator=generator, device=hidden.device)
    return maximum_mean_discrepancy(masked, (noise * mask[..., None]).flatten(1))


def maximum_mean_discrepancy(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Squared maximum mean discrepancy of two equally large samples (n, features), each point paired with itself too.

    The kernel is the sum of ``KERNELS`` Gaussians exp(−d²/w), whose widths w double around the mean squared distance
    between different points of both samples, which is held constant.
    """
    points = torch.cat([first, second])
    squares = (points**2).sum(1)
    distances = (squares[:, None] + squares - 2 * points @ points.T).clamp(min=0)
    count = len(points)
    middle = distances.detach().sum() / (count * (count - 1))
    kernel = sum(
        (torch.exp(-distances / (middle * 2.0 ** (i - KERNELS // 2))) for i in range(KERNELS)), torch.zeros(())
    )
    n = len(first)
    return (kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]).mean()
