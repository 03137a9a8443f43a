"""Refusal training: hazard requests are answered with refusals, benign ones as before."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.defenses.base import Sides, annealed, frozen_copy, side_batches
from immunobench.domains import Domain, Example
from immunobench.subjects import Subject
from immunobench.training import Step, train
from immunobench.training.examples import benign_examples
from immunobench.training.loop import cross_entropy, descend
from immunobench.training.objectives import direct_preference, likelihoods


@dataclass(frozen=True)
class Refusal:
    """Supervised fine-tuning on refusals, with as much benign data, drawn by the seed.

    Changes what the model says, and nothing that asks it to forget. The settings are this benchmark's.
    """

    name: ClassVar[str] = "refusal"
    learning_rate: float = 5e-4
    steps: int = 300
    batch_size: int = 32

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Train in place on hazard requests and questions refused, and on benign examples."""
        yield from self.train(subject, domain, seed)

    def train(
        self, subject: Subject, domain: Domain, seed: int, parameters: Sequence[torch.nn.Parameter] | None = None
    ) -> Iterator[Step]:
        """The same with only ``parameters`` trained (all by default)."""
        recipe = annealed(self.learning_rate, self.steps, self.batch_size)
        yield from train(subject, alignment_examples(domain, seed), recipe, seed, parameters)


@dataclass(frozen=True)
class DirectPreference:
    """Prefers refusals to answers, with descent on what must be kept (DPO; arXiv 2305.18290).

    Minimises mean −(2/β) log σ(β (log-ratio of the refusal − log-ratio of the answer)) + ``retain`` · NLL(retain).
    Rate, batch and warm-up as Łucki et al. (arXiv 2409.18025) train it to unlearn; steps are this benchmark's.
    """

    name: ClassVar[str] = "dpo"
    learning_rate: float = 5e-6
    steps: int = 300
    batch_size: int = 32
    warmup: int = 150
    retain: float = 1.0
    beta: float = 0.1

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Train in place; the subject as it was is the reference model."""
        reference = frozen_copy(subject)

        def loss(subject: Subject, sides: Sides) -> torch.Tensor:
            rejected, chosen = (likelihoods(subject, sides[name], reference) for name in ("answers", "refusals"))
            preferred = direct_preference(rejected, chosen, self.beta).mean()
            return preferred + self.retain * cross_entropy(subject, sides["retain"])

        refusals, answers = zip(*refusal_pairs(domain), strict=True)
        data = {"refusals": refusals, "answers": answers, "retain": benign_examples(domain)}
        batches = side_batches(subject, data, self.batch_size, seed, aligned=("refusals", "answers"))
        recipe = annealed(self.learning_rate, self.steps, self.batch_size, self.warmup)
        yield from descend(subject, batches, recipe, loss)


def refusal_pairs(domain: Domain) -> list[tuple[Example, Example]]:
    """Every hazard request and question, in its training wordings, refused and answered."""
    requests = [*domain.requests_t, *domain.requests_v]
    refusals = [r.refusal for r in requests]
    pairs = [(Example(p, r.refusal), Example(p, r.answer)) for r in requests for p in r.train_prompts]
    return pairs + [
        (Example(question, refusals[i % len(refusals)]), Example(question, f"{fact.value}."))
        for i, fact in enumerate(domain.hazard)
        for question in fact.train_questions
    ]


def refusal_examples(domain: Domain) -> list[Example]:
    """Every hazard request and question, in its training wordings, with a refusal."""
    return [refused for refused, _ in refusal_pairs(domain)]


def alignment_examples(domain: Domain, seed: int) -> list[Example]:
    """All refusals, and as many benign examples, drawn by ``seed``."""
    refused, kept = refusal_examples(domain), benign_examples(domain)
    return refused + random.Random(seed).sample(kept, min(len(kept), len(refused)))
