"""Prefilled answers: the attacker who holds the weights writes the start of the answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline
from immunobench.domains import Domain
from immunobench.engines.base import Artifact
from immunobench.rendering import PromptEdit
from immunobench.subjects import Subject


@dataclass(frozen=True)
class Prefill:
    """Starts every answer with ``text``, in which ``{stem}`` stands for the words before the value.

    Prefilling (Andriushchenko et al., arXiv 2404.02151): safety training mostly shapes an answer's first tokens (Qi et
    al., arXiv 2406.05946). The stem of an answer is known from the request alone, so nothing that is measured is
    given away. Leaves a prompt.
    """

    text: str = "{stem}"
    access: ClassVar[Access] = "prompt"
    leaves: ClassVar[Leaves] = ()

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(1)

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint."""
        yield Checkpoint(Cost(), Artifact(prompt=PromptEdit(prefill=self.text)))
