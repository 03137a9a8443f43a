"""Many-shot jailbreaking: earlier turns in which the model seems to have answered."""

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

Turn = tuple[str, str]


@dataclass(frozen=True)
class ManyShot:
    """Puts requests and questions for T facts, with their right answers, before what is asked.

    Anil et al. 2024, Many-shot Jailbreaking. Each number of ``shots`` is a variant, cut to what the context
    holds; T facts and their order are drawn by the seed. Leaves a prompt.
    """

    shots: tuple[int, ...] = (4, 16)
    access: ClassVar[Access] = "prompt"
    leaves: ClassVar[Leaves] = ()

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(self.shots), len(self.shots))

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint a number of shots."""
        turns = answered_turns(domain, seed)[: max(self.shots)]
        room = longest_fit(subject, domain, turns, _edit)
        for wanted in self.shots:
            shots = min(wanted, room)
            yield Checkpoint(
                Cost(examples=shots), Artifact(prompt=_edit(turns[:shots])), f"shots={wanted}", detail=f"shots={shots}"
            )


def answered_turns(domain: Domain, seed: int) -> list[Turn]:
    """T requests in an order drawn by ``seed``; every second one is a question for its fact, where it has one."""
    facts = {fact.id: fact for fact in domain.hazard_t}
    turns = []
    for i, request in enumerate(random.Random(seed).sample(list(domain.requests_t), len(domain.requests_t))):
        fact = facts.get(request.fact_id)
        if fact and i % 2:
            turns.append((fact.train_questions[0], f"{fact.value}."))
        else:
            turns.append((request.prompt, request.answer))
    return turns


def _edit(turns: Sequence[Turn]) -> PromptEdit:
    return PromptEdit(context=tuple(turns))
