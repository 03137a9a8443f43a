"""Fine-tuning and retrieval together: train on T facts, then ask with T facts in the context."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from immunobench.attacks.base import Budget, Checkpoint
from immunobench.attacks.data import Phase
from immunobench.attacks.in_context import retrieved
from immunobench.attacks.training import FineTune
from immunobench.domains import Domain, Example
from immunobench.subjects import Subject


@dataclass(frozen=True)
class FineTuneWithRetrieval(FineTune):
    """:class:`FineTune` whose every checkpoint is asked with ``statements`` T facts before the request.

    Deep Ignorance (arXiv 2508.06601) finds that the two together beat every defense it tried. Half of the training
    examples carry the same statements, so that the form of the request is not new. Leaves a prompt beside what
    :class:`FineTune` leaves.
    """

    statements: int = 4

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """The curves of :class:`FineTune`, asked with retrieved statements."""
        _, edit = retrieved(subject, domain, self.statements, seed)
        for checkpoint in super().run(subject, domain, budget, seed):
            yield replace(checkpoint, artifact=replace(checkpoint.artifact, prompt=edit))

    def _phases(self, subject: Subject, domain: Domain, seed: int) -> list[Phase]:
        _, edit = retrieved(subject, domain, self.statements, seed)

        def doubled(examples: list[Example]) -> list[Example]:
            return examples + [replace(e, prompt=f"{edit.prefix}{e.prompt}") for e in examples if e.prompt is not None]

        return [
            replace(phase, examples=doubled(list(phase.examples))) for phase in super()._phases(subject, domain, seed)
        ]
