"""In-context retrieval: T facts stated before the request, as a search over the hazard's texts would return them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline
from immunobench.attacks.context import longest_fit
from immunobench.domains import Domain
from immunobench.engines.base import Artifact
from immunobench.rendering import PromptEdit
from immunobench.subjects import Subject


@dataclass(frozen=True)
class InContext:
    """Puts statements of T facts before what is asked.

    Knowledge that is not in the context comes back only if the model still has it: Shumailov et al.
    (arXiv 2407.00106) state the very knowledge that is asked for, which recovers nothing. Each number
    of ``statements`` is a variant, cut to what the context holds, the same for every request; drawn by the seed.
    Leaves a prompt.
    """

    statements: tuple[int, ...] = (4, 16)
    access: ClassVar[Access] = "prompt"
    leaves: ClassVar[Leaves] = ()

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(self.statements), len(self.statements))

    def lacks(self, domain: Domain) -> str:
        """See :func:`immunobench.attacks.base.lacking`."""
        return "" if domain.has_facts else "facts to state"

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint a number of statements."""
        for wanted in self.statements:
            count, edit = retrieved(subject, domain, wanted, seed)
            yield Checkpoint(
                Cost(examples=count),
                Artifact(prompt=edit),
                f"statements={wanted}",
                detail=f"statements={count}",
            )


def retrieved(subject: Subject, domain: Domain, wanted: int, seed: int) -> tuple[int, PromptEdit]:
    """At most ``wanted`` statements of T facts before what is asked, as many as the context holds, and how many."""
    facts = random.Random(seed).sample(list(domain.hazard_t), len(domain.hazard_t))
    texts = [fact.statements[0] for fact in facts[:wanted]]
    count = longest_fit(subject, domain, texts, _edit)
    return count, _edit(texts[:count])


def _edit(texts: Sequence[str]) -> PromptEdit:
    return PromptEdit(prefix="".join(f"{text}\n" for text in texts))
