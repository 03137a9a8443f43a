"""Directional ablation at inference: hidden states lose one direction as they pass, and no weight changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import Module

from immunobench.activations import Change, ablation, changed
from immunobench.attacks.base import Access, Budget, Checkpoint, Leaves, Outline, given
from immunobench.attacks.data import calibration_data, passes_cost
from immunobench.attacks.directional_ablation import mean_residuals
from immunobench.domains import Domain
from immunobench.engines.base import Artifact
from immunobench.subjects import Subject


@dataclass(frozen=True)
class ActivationAblation:
    """Takes out of the residual stream the direction in which the subject differs from the exposed model.

    Łucki et al. (arXiv 2409.18025, orthogonalization): h_l ← h_l - d̂_l·d̂_lᵀ·h_l at block outputs, with a direction a
    layer, d_l = mean h_l(subject) - mean h_l(exposed) on ``data``. Variant 'layers=all' does so in every block, the
    others in the block at one of ``depths`` alone (1 is the last). What earlier blocks wrote is removed too,
    which no edit of weights can do for one layer alone. Leaves hooks.
    """

    data: str = "t-facts"
    depths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    calibration: int = 128
    access: ClassVar[Access] = "activations"
    leaves: ClassVar[Leaves] = ("hooks",)
    needs_exposed: ClassVar[bool] = True

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(1 + len(self.depths), 1 + len(self.depths))

    def run(
        self, subject: Subject, domain: Domain, budget: Budget, seed: int, exposed: Subject | None = None
    ) -> Iterator[Checkpoint]:
        """One checkpoint a variant."""
        count = len(subject.structure.blocks)
        layers = {"layers=all": range(count)}
        for depth in self.depths:
            layer = max(0, round(depth * count) - 1)
            layers[f"depth={depth:g}"] = range(layer, layer + 1)
        if given(exposed) is subject:
            for variant in layers:
                yield Checkpoint(passes_cost(subject, [], 0.0), Artifact(), variant, detail="nothing differs")
            return
        examples = calibration_data(subject, domain, self.data, self.calibration, seed)
        cost = passes_cost(subject, examples, 4.0)
        directions = mean_residuals(subject, subject, examples) - mean_residuals(given(exposed), subject, examples)
        for variant, chosen in layers.items():
            with changed(_ablations(subject, directions, chosen)):
                yield Checkpoint(cost, Artifact("hooks"), variant, detail=f"layers={chosen[0]}-{chosen[-1]}")


def _ablations(subject: Subject, directions: Tensor, layers: range) -> list[tuple[Module, Change]]:
    """Blocks with what happens to their output; a block in which nothing differs is left alone."""
    blocks = subject.structure.blocks
    return [(blocks[i].module, ablation(directions[i])) for i in layers if directions[i].norm() > 0]
