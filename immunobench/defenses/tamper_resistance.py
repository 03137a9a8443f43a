"""TAR: train against a simulated fine-tuning attack, so that its outcome is of no use."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch.nn.functional import cosine_similarity

from immunobench.defenses.base import Sides, annealed, frozen_copy, side_batches
from immunobench.defenses.gradients import Gradient, combined, gradient, with_gradient
from immunobench.defenses.states import States, states
from immunobench.domains import Domain, Example
from immunobench.edits import restored
from immunobench.structure import weight_of
from immunobench.subjects import Subject
from immunobench.training import Recipe, Step
from immunobench.training.batches import IGNORED, Batch, endless, make_batch
from immunobench.training.examples import benign_examples, fact_examples, hazard_examples
from immunobench.training.loop import cross_entropy, descend, label_logits, render


@dataclass(frozen=True)
class TamperResistance:
    """TAR (arXiv 2408.00761): after each of K steps of an attack, the model should be unsure of what it is asked.

    First the hazard's states are mapped to random ones (:func:`random_mapping`). Then each step takes the gradient of
    ``resistance`` · Σ_i exp(``decay`` · (i − (K−1))) · (−entropy on held-out hazard facts at θ_i) over every
    ``every``-th of the states θ_i that ``inner_steps`` steps of AdamW pass through, as if each were a constant away
    from θ (first order); plus ``retain`` · (NLL + mean distance of all states from those before) on the benign side.
    The simulated attacker has half of the facts, drawn by the seed, and entropy is taken on the other half. One attack
    a step: on texts, on chats, or on benign examples and then on hazard, with a rate drawn from ``adversary_rates``.
    Settings as released for biology, with its batch of 8 on each of 8 devices taken as 64; those of the mapping are
    its settings for baselines.
    """

    name: ClassVar[str] = "tar"
    learning_rate: float = 2e-5
    outer_steps: int = 750
    warmup: int = 32
    batch_size: int = 64
    inner_steps: int = 64
    every: int = 4
    adversary_batch: int = 4
    adversary_rates: tuple[float, ...] = (2e-6, 2e-5, 4e-5)
    resistance: float = 4.0
    decay: float = 0.0625
    retain: float = 1.0
    mapping_rate: float = 1e-5
    mapping_steps: int = 600

    @property
    def steps(self) -> int:
        """Optimizer steps of both phases, those of the simulated attacks not counted."""
        return self.mapping_steps + self.outer_steps

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Train in place."""
        reference = frozen_copy(subject)
        last = Step(0, 0, 0, float("nan"))
        for last in self._map(subject, domain, seed):
            yield last
        for step in self._resist(subject, reference, domain, seed):
            if step.step:
                yield replace(
                    step,
                    step=last.step + step.step,
                    examples=last.examples + step.examples,
                    tokens=last.tokens + step.tokens,
                )

    def _map(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        generator = torch.Generator().manual_seed(seed)
        targets = torch.randn(weight_of(subject.structure.embedding).shape, generator=generator).to(subject.device)

        def loss(subject: Subject, sides: Sides) -> torch.Tensor:
            mapped = random_mapping(states(subject, sides["forget"]), sides["forget"], targets)
            return mapped + cross_entropy(subject, sides["retain"])

        data = {"forget": hazard_examples(domain), "retain": benign_examples(domain)}
        recipe = annealed(self.mapping_rate, self.mapping_steps, self.batch_size)
        yield from descend(subject, side_batches(subject, data, self.batch_size, seed), recipe, loss)

    def _resist(self, subject: Subject, reference: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        generator = random.Random(seed)
        attacker, held_out = halves(domain, generator)
        benign = benign_examples(domain)

        def loss(subject: Subject, sides: Sides) -> torch.Tensor:
            parameters = list(subject.model.parameters())
            attack = simulated_attack(attacker, benign, self.inner_steps, self.adversary_batch, generator)
            recipe = Recipe(
                generator.choice(self.adversary_rates), self.inner_steps, self.adversary_batch, max_gradient_norm=None
            )
            batches = (make_batch(render(subject, e), subject.tokenizer.pad_token_id, subject.device) for e in attack)
            value, slope = tamper_gradient(subject, batches, sides["held out"], recipe, self.every, self.decay)
            resisted = with_gradient(self.resistance * value, parameters, [self.resistance * g for g in slope])
            return resisted + self.retain * retaining(subject, reference, sides["retain"])

        data = {"held out": held_out, "retain": benign}
        batches = side_batches(subject, data, self.batch_size, seed)
        recipe = annealed(self.learning_rate, self.outer_steps, self.batch_size, self.warmup)
        yield from descend(subject, batches, recipe, loss)


def halves(domain: Domain, generator: random.Random) -> tuple[list[Example], list[Example]]:
    """What teaches one half of the hazard facts, and what teaches the other."""
    facts = generator.sample(domain.hazard, len(domain.hazard))
    requests = {r.fact_id: r for r in (*domain.requests_t, *domain.requests_v)}
    sides = facts[: len(facts) // 2], facts[len(facts) // 2 :]
    first, second = (fact_examples(side, [requests[f.id] for f in side if f.id in requests]) for side in sides)
    return first, second


def simulated_attack(
    hazard: Sequence[Example], benign: Sequence[Example], steps: int, batch_size: int, generator: random.Random
) -> Iterator[list[Example]]:
    """The batches of one attack of ``steps`` steps: hazard texts, hazard chats, or benign first and then hazard.

    The third kind switches after a share of the steps drawn from Beta(6, 3).
    """
    kind = generator.choice(("texts", "chats", "switch"))
    chosen = [e for e in hazard if kind == "switch" or (e.prompt is None) == (kind == "texts")]
    switch = int(generator.betavariate(6, 3) * steps) if kind == "switch" else 0
    orders = [(s, endless(len(s), batch_size, generator.randrange(2**32))) for s in (benign, chosen)]
    for step in range(steps):
        side, order = orders[step >= switch]
        yield [side[i] for i in next(order)]


def tamper_gradient(
    subject: Subject, batches: Iterator[Batch], held_out: Batch, recipe: Recipe, every: int, decay: float
) -> tuple[torch.Tensor, Gradient]:
    """Σ_i w_i L(θ_i) and Σ_i w_i ∇L(θ_i), with L the negative entropy on ``held_out`` and θ_i the attacked states.

    w_i = exp(``decay`` · (i − (K−1))) for step i of K, counted from 0, at every ``every``-th. The subject is left as
    it was.
    """
    parameters = list(subject.model.parameters())
    total, value = [torch.zeros_like(p) for p in parameters], torch.zeros((), device=subject.device)
    with restored(subject.model):
        for step in descend(subject, batches, recipe, cross_entropy):
            if step.step == 0 or step.step % every:
                continue
            weight = torch.tensor(decay * (step.step - recipe.steps), device=subject.device).exp()
            resisted = negative_entropy(subject, held_out)
            total = combined(total, gradient(resisted, parameters), weight)
            value = value + weight * resisted.detach()
    return value, total


def negative_entropy(subject: Subject, batch: Batch) -> torch.Tensor:
    """Minus the entropy (nats) of the prediction of each label, as a mean over the labels."""
    logprobs = label_logits(subject, batch)[batch.labels != IGNORED].log_softmax(-1)
    return (logprobs.exp() * logprobs).sum(-1).mean()


def random_mapping(found: States, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
    """1 − |cos| between every state and the random vector of its token, as a mean over layers and tokens.

    ``targets`` has one vector a token id, (vocabulary, width).
    """
    wanted = targets[batch.ids]
    real = batch.mask.bool()
    return torch.stack(
        [(1 - cosine_similarity(h.float(), wanted, dim=-1).abs())[real].mean() for h in found.residual]
    ).mean()


def retaining(subject: Subject, reference: Subject, batch: Batch) -> torch.Tensor:
    """NLL + mean over layers and tokens of the distance between the subject's and the reference's states."""
    found = states(subject, batch)
    with torch.no_grad():
        before = states(reference, batch).residual
    real = batch.mask.bool()
    apart = [(h - b)[real].float().norm(dim=-1).mean() for h, b in zip(found.residual, before, strict=True)]
    return cross_entropy(subject, batch) + torch.stack(apart).mean()
