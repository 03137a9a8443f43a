"""What each composite defense minimises, against its plain formula on one batch and the formula's gradient.

The loss is taken from the defense as it trains. Log-probabilities and states are taken here from one unpadded pass
an example; terms that have tests of their own (noise, drift, coupling, tampering) are taken from the library.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from immunobench.activations import changed
from immunobench.defenses import (
    alignment,
    base,
    misdirection,
    refusal,
    representation_noising,
    self_destruction,
    tamper_resistance,
)
from immunobench.defenses.alignment import Booster, Vaccine, worst_drift
from immunobench.defenses.base import Defense, Sides, frozen_copy
from immunobench.defenses.gradient_ascent import GradientAscent, bounded_ascent
from immunobench.defenses.gradients import Gradient
from immunobench.defenses.misdirection import RepresentationMisdirection
from immunobench.defenses.negative_preference import NegativePreference
from immunobench.defenses.refusal import DirectPreference
from immunobench.defenses.representation_noising import RepresentationNoising, differing, noise_discrepancy
from immunobench.defenses.self_destruction import SelfDestruction, coupling_gradient
from immunobench.defenses.states import layerwise_losses, states
from immunobench.defenses.tamper_resistance import (
    TamperResistance,
    halves,
    random_mapping,
    retaining,
    simulated_attack,
    tamper_gradient,
)
from immunobench.domains import Domain
from immunobench.subjects import Subject
from immunobench.training import Recipe, Step
from immunobench.training.batches import IGNORED, Batch, make_batch
from immunobench.training.loop import cross_entropy, descend, render
from immunobench.training.objectives import Likelihoods

SEED = 3
Plain = tuple[torch.Tensor, Gradient]
"""A loss and its gradient."""


@dataclass(frozen=True)
class Training:
    """One call of the training loop: what it would minimise, on its first batch."""

    loss: Callable[[Subject, Any], torch.Tensor]
    batch: Any
    parameters: list[torch.nn.Parameter]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Every training of a defense, which is recorded and not run; attacks that it simulates do run."""
    found: list[Training] = []

    def record(
        subject: Subject, batches: Iterator[Any], recipe: Recipe, loss: Any, parameters: Any = None
    ) -> Iterator[Step]:
        if loss is cross_entropy:
            yield from descend(subject, batches, recipe, loss, parameters)
            return
        found.append(Training(loss, next(batches), list(parameters or subject.model.parameters())))
        yield Step(0, 0, 0, math.nan)

    for module in (alignment, base, misdirection, refusal, representation_noising, self_destruction, tamper_resistance):
        monkeypatch.setattr(module, "descend", record)
    return found


def logprobs(subject: Subject, batch: Batch) -> list[torch.Tensor]:
    """Of the scored tokens of each example, from one unpadded pass."""
    found = []
    for ids, mask, labels in zip(batch.ids, batch.mask, batch.labels, strict=True):
        row, count = ids[mask.bool()], int((labels != IGNORED).sum())
        logits = subject.model(row[None]).logits[0, -count - 1 : -1]
        found.append(logits.log_softmax(-1).gather(-1, row[-count:, None])[:, 0])
    return found


def nll(subject: Subject, batch: Batch) -> torch.Tensor:
    """Mean over all scored tokens."""
    return -torch.cat(logprobs(subject, batch)).mean()


def residual(subject: Subject, batch: Batch, layer: int) -> torch.Tensor:
    """The residual stream after block ``layer`` at every token of every example, (tokens, width)."""
    rows = [ids[mask.bool()][None] for ids, mask in zip(batch.ids, batch.mask, strict=True)]
    return torch.cat([subject.model(row, output_hidden_states=True).hidden_states[layer + 1][0] for row in rows])


def slope(value: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> Plain:
    """``value`` with its gradient by autograd."""
    found = torch.autograd.grad(value, list(parameters), allow_unused=True)
    return value, [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def summed(*terms: tuple[float, Plain]) -> Plain:
    """Σ weight · term, of values and of gradients."""
    value = torch.stack([weight * own.detach() for weight, (own, _) in terms]).sum()
    slopes = zip(*([weight * g for g in found] for weight, (_, found) in terms), strict=True)
    return value, [torch.stack(parts).sum(0) for parts in slopes]


def shaken(subject: Subject) -> Subject:
    """The subject with other weights than it was defended with, so that ratios to what it was are not 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in subject.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return subject


def started(defense: Defense, subject: Subject, domain: Domain, trainings: list[Training]) -> list[Training]:
    list(defense.immunise(subject, domain, SEED))
    return trainings


def check(training: Training, subject: Subject, plain: Callable[[Any, list[torch.nn.Parameter]], Plain]) -> None:
    """The loss and its gradient are ``plain``'s on the same batch."""
    own, found = slope(training.loss(subject, training.batch), training.parameters)
    wanted, exact = plain(training.batch, training.parameters)
    assert float(own.detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)
    assert any(g.abs().max() > 0 for g in exact)
    scale = max(float(g.abs().max()) for g in exact)
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4 * scale)


@pytest.mark.parametrize("kind", [NegativePreference, GradientAscent])
def test_unlearning_keeps_what_is_retained(
    kind: type[Any], subject: Subject, domain: Domain, trainings: list[Training]
) -> None:
    before = frozen_copy(subject)
    (training,) = started(kind(batch_size=4, retain=1.5), subject, domain, trainings)
    shaken(subject)

    def plain(sides: Sides, parameters: list[torch.nn.Parameter]) -> Plain:
        own, was = logprobs(subject, sides["forget"]), logprobs(before, sides["forget"])
        if kind is GradientAscent:
            forget = torch.cat(own).mean()
        else:
            ratios = torch.stack([a.sum() - b.sum() for a, b in zip(own, was, strict=True)])
            forget = (2 / 0.1 * torch.log1p((0.1 * ratios).exp())).mean()
        return slope(forget + 1.5 * nll(subject, sides["retain"]), parameters)

    check(training, subject, plain)


def test_ascent_ends_at_its_ceiling() -> None:
    own = torch.tensor([-1.0, -5.0], requires_grad=True)
    tokens = Likelihoods(own, own.detach(), torch.tensor([0, 1]))
    for ceiling, value, each in ((4.0, -3.0, 0.5), (2.0, -2.0, 0.0)):
        found = bounded_ascent(tokens, ceiling)
        assert found.item() == value
        assert torch.autograd.grad(found, own)[0].tolist() == [each, each]


def test_direct_preference_with_what_is_retained(subject: Subject, domain: Domain, trainings: list[Training]) -> None:
    before = frozen_copy(subject)
    (training,) = started(DirectPreference(batch_size=4, retain=2.0, beta=0.3), subject, domain, trainings)
    shaken(subject)

    def plain(sides: Sides, parameters: list[torch.nn.Parameter]) -> Plain:
        def ratios(side: str) -> torch.Tensor:
            own, was = logprobs(subject, sides[side]), logprobs(before, sides[side])
            return torch.stack([a.sum() - b.sum() for a, b in zip(own, was, strict=True)])

        chosen, rejected = ratios("refusals"), ratios("answers")
        preferred = (-2 / 0.3 * torch.sigmoid(0.3 * (chosen - rejected)).log()).mean()
        return slope(preferred + 2.0 * nll(subject, sides["retain"]), parameters)

    check(training, subject, plain)


def test_misdirection_steers_hazard_and_holds_the_rest(
    subject: Subject, domain: Domain, trainings: list[Training]
) -> None:
    before = frozen_copy(subject)
    defense = RepresentationMisdirection(batch_size=4, layer=0, steering=5.0, retain=3.0)
    (training,) = started(defense, subject, domain, trainings)
    shaken(subject)
    drawn = torch.rand(32, generator=torch.Generator().manual_seed(SEED))

    def plain(sides: Sides, parameters: list[torch.nn.Parameter]) -> Plain:
        steered = ((residual(subject, sides["forget"], 0) - 5.0 * drawn / drawn.norm()) ** 2).mean()
        held = ((residual(subject, sides["retain"], 0) - residual(before, sides["retain"], 0)) ** 2).mean()
        return slope(steered + 3.0 * held, parameters)

    assert [p.shape for p in training.parameters] == [(32, 64)]
    check(training, subject, plain)


def test_noising_adds_up(subject: Subject, domain: Domain, trainings: list[Training]) -> None:
    defense = RepresentationNoising(batch_size=4, alpha=0.7, beta=0.2, retain=1.5)
    (training,) = started(defense, subject, domain, trainings)

    def plain(sides: Sides, parameters: list[torch.nn.Parameter]) -> Plain:
        answers = sides["answers"]
        differs = differing(answers.labels, sides["refusals"].labels)
        found = states(subject, answers)
        ascent = -torch.log(1 + layerwise_losses(subject, found, answers.labels.where(differs, IGNORED)).mean())
        generator = torch.Generator().manual_seed(SEED)
        keep = answers.labels.shape[1]
        noise = sum(noise_discrepancy(h[:, -keep:], differs, generator) for h in found.mlp) / len(found.mlp)
        kept = nll(subject, sides["refusals"]) + 1.5 * nll(subject, sides["retain"])
        return slope(kept + 0.2 * noise + 0.7 * ascent, parameters)

    check(training, subject, plain)


def test_vaccine_learns_under_the_worst_drift(subject: Subject, domain: Domain, trainings: list[Training]) -> None:
    (training,) = started(Vaccine(batch_size=4, rho=2.0), subject, domain, trainings)

    def plain(batch: Batch, parameters: list[torch.nn.Parameter]) -> Plain:
        attention = [layer.self_attn for layer in subject.model.model.layers]
        drifts = worst_drift(subject, batch, 2.0)
        with changed((m, lambda h, d=d: h + d) for m, d in zip(attention, drifts, strict=True)):  # type: ignore[misc]
            return slope(cross_entropy(subject, batch), parameters)

    check(training, subject, plain)
    assert training.loss(subject, training.batch) > nll(subject, training.batch) + 0.01


def test_booster_weighs_the_drop_of_a_harmful_step(subject: Subject, domain: Domain, trainings: list[Training]) -> None:
    (training,) = started(Booster(batch_size=4, weight=3.0, alpha=0.2), subject, domain, trainings)

    def plain(sides: Sides, parameters: list[torch.nn.Parameter]) -> Plain:
        aligned = slope(nll(subject, sides["aligned"]), parameters)
        here = slope(nll(subject, sides["harmful"]), parameters)
        length = torch.cat([g.flatten() for g in here[1]]).norm()
        kept = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, g in zip(parameters, here[1], strict=True):
                p.sub_(0.2 * g / length)
        there = slope(nll(subject, sides["harmful"]), parameters)
        with torch.no_grad():
            for p, value in zip(parameters, kept, strict=True):
                p.copy_(value)
        return summed((1.0, aligned), (3.0, here), (-3.0, there))

    check(training, subject, plain)


def test_self_destruction_adds_up(subject: Subject, domain: Domain, trainings: list[Training]) -> None:
    (training,) = started(SelfDestruction(batch_size=4, alpha=2.0, beta=0.5), subject, domain, trainings)

    def plain(sides: Sides, parameters: list[torch.nn.Parameter]) -> Plain:
        harmful = sides["harmful"]
        ascent = -torch.log(1 + layerwise_losses(subject, states(subject, harmful), harmful.labels).mean())
        rest = slope(ascent + 2.0 * nll(subject, sides["aligned"]), parameters)
        coupling = coupling_gradient(
            parameters,
            lambda: cross_entropy(subject, harmful),
            lambda: cross_entropy(subject, sides["benign"]),
            1e-3,
        )
        return summed((1.0, rest), (0.5, coupling))

    check(training, subject, plain)


def test_tamper_resistance_maps_then_resists(subject: Subject, domain: Domain, trainings: list[Training]) -> None:
    defense = TamperResistance(
        batch_size=4,
        inner_steps=4,
        every=2,
        adversary_batch=2,
        adversary_rates=(1e-3, 1e-2),
        resistance=3.0,
        decay=0.5,
        retain=1.5,
    )
    before = frozen_copy(subject)
    mapping, resisting = started(defense, subject, domain, trainings)
    shaken(subject)
    targets = torch.randn(len(subject.tokenizer), 32, generator=torch.Generator().manual_seed(SEED))

    def mapped(sides: Sides, parameters: list[torch.nn.Parameter]) -> Plain:
        forget = random_mapping(states(subject, sides["forget"]), sides["forget"], targets)
        return slope(forget + nll(subject, sides["retain"]), parameters)

    def resisted(sides: Sides, parameters: list[torch.nn.Parameter]) -> Plain:
        generator = random.Random(SEED)
        attacker, _ = halves(domain, generator)
        attack = simulated_attack(attacker, base.benign_examples(domain), 4, 2, generator)
        recipe = Recipe(generator.choice((1e-3, 1e-2)), 4, 2, max_gradient_norm=None)
        batches = (make_batch(render(subject, e), subject.tokenizer.pad_token_id, subject.device) for e in attack)
        tampered = tamper_gradient(subject, batches, sides["held out"], recipe, 2, 0.5)
        kept = slope(retaining(subject, before, sides["retain"]), parameters)
        return summed((3.0, tampered), (1.5, kept))

    check(mapping, subject, mapped)
    check(resisting, subject, resisted)
