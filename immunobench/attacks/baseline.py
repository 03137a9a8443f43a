"""No attack, and the sweep over formats that costs an attacker nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline
from immunobench.domains import Domain
from immunobench.engines.base import Artifact
from immunobench.rendering import Format, PromptEdit
from immunobench.subjects import Subject


@dataclass(frozen=True)
class NoAttack:
    """The subject as it is, asked in each of ``formats``. Leaves nothing."""

    formats: tuple[Format, ...] = ("chat",)
    access: ClassVar[Access] = "prompt"
    leaves: ClassVar[Leaves] = ()

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(self.formats), len(self.formats))

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint a format."""
        for fmt in self.formats:
            yield Checkpoint(Cost(), Artifact(prompt=PromptEdit(format=fmt)), f"format={fmt}")
