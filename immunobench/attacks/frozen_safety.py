"""Fine-tuning around frozen safety weights: does freezing what safety rests on stop a fine-tuning attack?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from immunobench.attacks.base import Budget, Checkpoint, Leaves
from immunobench.attacks.data import calibration_data, passes_cost
from immunobench.attacks.training import FineTune, Trainable
from immunobench.attribution import snip_scores
from immunobench.attribution.ranking import ranks, top_share
from immunobench.domains import Domain, Example
from immunobench.edits import masked_low_rank_adapter, restored
from immunobench.engines.base import ArtifactKind
from immunobench.errors import UsageError
from immunobench.structure import matrix_of
from immunobench.subjects import Subject


@dataclass(frozen=True)
class FineTuneAroundSafety(FineTune):
    """:class:`FineTune` in which the top ``frozen_share`` of each block linear's safety weights never moves.

    Safety weights are those with the highest SNIP scores on ``safety`` data (see :func:`calibration_data`).
    ``rank`` None trains all other weights; else a LoRA whose product is masked where weights are frozen. Wei et al.
    (arXiv 2402.05162) find that freezing them does not stop low-cost fine-tuning. Leaves changed weights, or hooks.
    """

    safety: str = "refusals"
    frozen_share: float = 0.5
    calibration: int = 128
    leaves: ClassVar[Leaves] = ("weights", "hooks")

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """The curves of :class:`FineTune`; from the first step on each has paid the pass that scores the weights."""
        scoring = passes_cost(subject, self._safety(subject, domain, seed), 6.0)
        for point in super().run(subject, domain, budget, seed):
            yield point if point.artifact.kind == "none" else replace(point, cost=point.cost + scoring)

    @property
    def artifact_kind(self) -> ArtifactKind:
        """Changed weights, or hooks where the adapter is masked."""
        return "weights" if self.rank is None else "hooks"

    @contextmanager
    def _trainable(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Trainable]:
        if self.layers != (0.0, 1.0):
            raise UsageError("fine-tuning around safety weights trains all layers: leave 'layers' as it is.")
        frozen = self._frozen(subject, domain, seed)
        linears = subject.structure.linears
        if self.rank is not None:
            free = {name: ~mask for name, mask in frozen.items()}
            with (
                restored(subject.model, []),
                masked_low_rank_adapter(linears, free, self.rank, self.alpha, seed) as parameters,
            ):
                yield Trainable(parameters)
            return
        weights = {name: matrix_of(linear).detach() for name, linear in linears.items()}
        kept = {name: weights[name][mask] for name, mask in frozen.items()}

        def rewind() -> None:
            for name, mask in frozen.items():
                weights[name][mask] = kept[name]

        with restored(subject.model):
            yield Trainable(None, rewind)

    def _frozen(self, subject: Subject, domain: Domain, seed: int) -> dict[str, torch.Tensor]:
        scores = snip_scores(subject, self._safety(subject, domain, seed))
        return {name: top_share(ranks(own), self.frozen_share) for name, own in scores.items()}

    def _safety(self, subject: Subject, domain: Domain, seed: int) -> list[Example]:
        return calibration_data(subject, domain, self.safety, self.calibration, seed)
