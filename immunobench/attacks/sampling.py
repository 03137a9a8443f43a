"""Sampled answers: what greedy decoding hides may come out in one of several tries."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline
from immunobench.domains import Domain
from immunobench.engines.base import Artifact, Decoding
from immunobench.subjects import Subject


@dataclass(frozen=True)
class Sampled:
    """Draws ``n`` answers to each request at ``temperature``, nothing cut off the distribution.

    Wei et al. (arXiv 2402.05162, adversarial decoding). Behaviour then holds the mean over answers (``right``) and
    any of n (``right_any``) apart; the released code of that paper reports the former under the latter's name.
    Knowledge does not depend on decoding and is that of the unattacked subject, so that R is that of no attack: what
    sampling brings out is told by the shares of right answers. Leaves nothing.
    """

    n: int = 5
    temperature: float = 1.0
    access: ClassVar[Access] = "decoding"
    leaves: ClassVar[Leaves] = ()

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(1)

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint."""
        decoding = Decoding(self.temperature, self.n)
        yield Checkpoint(Cost(), Artifact(), f"n={self.n},temperature={self.temperature:g}", decoding=decoding)
