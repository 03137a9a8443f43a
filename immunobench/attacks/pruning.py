"""Set-difference pruning: remove the weights that matter for safety and not for utility."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from immunobench.attacks.base import Access, Budget, Checkpoint, Leaves, Outline
from immunobench.attacks.data import calibration_data, passes_cost
from immunobench.attribution import snip_scores, wanda_scores
from immunobench.attribution.ranking import ranks, set_difference
from immunobench.attribution.removal import without_weights
from immunobench.domains import Domain
from immunobench.engines.base import Artifact
from immunobench.subjects import Subject

GRID = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2)
"""Shares of Łucki et al. (arXiv 2409.18025): with p ≥ q, 45 pairs."""


@dataclass(frozen=True)
class SetDifference:
    """Sets to 0 the weights in the top q of safety and not in the top p of utility, for every p ≥ q of ``shares``.

    Wei et al. (arXiv 2402.05162): scores by ``score``, ranked over each flattened matrix. Safety is scored on
    ``safety`` data, utility on ``utility`` data (see :func:`calibration_data`): refusals for a model that refuses,
    its own answers for one that was made to forget. All scores come from the unpruned model (one-shot). Leaves
    changed weights.
    """

    score: Literal["snip", "wanda"] = "snip"
    safety: str = "refusals"
    utility: str = "benign"
    shares: tuple[float, ...] = GRID
    calibration: int = 128
    access: ClassVar[Access] = "weights"
    leaves: ClassVar[Leaves] = ("weights",)

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(p, q) of every variant."""
        return [(p, q) for p in self.shares for q in self.shares if p >= q]

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(self.pairs), len(self.pairs))

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint a pair."""
        scores, flops = (snip_scores, 6.0) if self.score == "snip" else (wanda_scores, 2.0)
        sets = [calibration_data(subject, domain, name, self.calibration, seed) for name in (self.safety, self.utility)]
        cost = passes_cost(subject, [e for examples in sets for e in examples], flops)
        safety, utility = ({n: ranks(s) for n, s in scores(subject, examples).items()} for examples in sets)
        for p, q in self.pairs:
            with without_weights(subject, {n: set_difference(safety[n], utility[n], q, p) for n in safety}):
                yield Checkpoint(cost, Artifact("weights"), f"p={p:g},q={q:g}")
