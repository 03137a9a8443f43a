"""Gaussian noise on weights: a guardrail more brittle than the knowledge under it falls first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline
from immunobench.domains import Domain
from immunobench.edits import restored
from immunobench.engines.base import Artifact
from immunobench.structure import weight_of
from immunobench.subjects import Subject


@dataclass(frozen=True)
class WeightNoise:
    """Adds Gaussian noise to every block linear, of each of ``scales`` times the standard deviation of its weight.

    The same draw at every scale. Uninformed perturbation: Łucki et al. (arXiv 2409.18025). Costs no data. Leaves
    changed weights.
    """

    scales: tuple[float, ...] = (0.03, 0.1, 0.3)
    access: ClassVar[Access] = "weights"
    leaves: ClassVar[Leaves] = ("weights",)

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(self.scales), len(self.scales))

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint a scale."""
        weights = [weight_of(linear) for linear in subject.structure.linears.values()]
        for scale in self.scales:
            generator = torch.Generator().manual_seed(seed)
            with restored(subject.model, weights):
                for weight in (w.detach() for w in weights):
                    noise = torch.randn(weight.shape, generator=generator).to(weight)
                    weight.add_(noise, alpha=scale * float(weight.float().std()))
                yield Checkpoint(Cost(), Artifact("weights"), f"scale={scale:g}")
