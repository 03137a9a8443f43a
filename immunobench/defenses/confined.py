"""Refusal training confined to some weights: where safety may live is chosen, and known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.attribution import snip_scores
from immunobench.attribution.ranking import ranks, top_share
from immunobench.defenses.refusal import Refusal
from immunobench.domains import Domain, Example
from immunobench.structure import matrix_of, weight_of
from immunobench.subjects import Subject
from immunobench.training import Step

CALIBRATION = 128
"""Benign requests that utility is attributed on."""


@dataclass(frozen=True)
class Entangled:
    """Refusal training of nothing but the ``share`` of weights that utility needs most.

    Safety whose weights are few and of no other use can be cut out (Wei et al., arXiv 2402.05162, who suggest to
    entangle it with utility). Here it lies wholly within the top of every linear by SNIP score on benign answers. The
    construction and its settings are this benchmark's.
    """

    name: ClassVar[str] = "entangled"
    learning_rate: float = 5e-4
    steps: int = 300
    batch_size: int = 32
    share: float = 0.1

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Train in place on hazard requests and questions refused, and on benign examples."""
        scores = snip_scores(subject, utility_examples(domain))
        masks = {name: top_share(ranks(score), self.share) for name, score in scores.items()}
        yield from refuse_within(subject, domain, Refusal(self.learning_rate, self.steps, self.batch_size), masks, seed)


def utility_examples(domain: Domain) -> list[Example]:
    """Benign requests with their answers, ``CALIBRATION`` of them."""
    return [Example(r.prompt, r.answer) for r in domain.benign_requests_t[:CALIBRATION]]


def refuse_within(
    subject: Subject, domain: Domain, refusal: Refusal, masks: Mapping[str, torch.Tensor], seed: int
) -> Iterator[Step]:
    """Refusal training that changes the block linears named in ``masks`` where these are True, and nothing else."""
    linears = {name: subject.structure.linears[name] for name in masks}
    kept = {name: matrix_of(linear).detach().clone() for name, linear in linears.items()}
    for step in refusal.train(subject, domain, seed, [weight_of(linear) for linear in linears.values()]):
        with torch.no_grad():
            for name, linear in linears.items():
                matrix_of(linear).copy_(torch.where(masks[name], matrix_of(linear), kept[name]))
        yield step
