"""Every token objective against numbers worked out by hand."""

import math
from functools import partial

import pytest
import torch

from immunobench.domains import Domain
from immunobench.subjects import Subject
from immunobench.training.batches import make_batch
from immunobench.training.loop import cross_entropy
from immunobench.training.objectives import (
    Likelihoods,
    direct_preference,
    gradient_ascent,
    gradient_weights,
    likelihoods,
    misdirection,
    negative_preference,
    simple_negative_preference,
    steering_target,
    token_negative_preference,
    weighted_gradient_ascent,
    weighted_token_negative_preference,
)

P, P_O = (0.5, 0.2, 0.25), (0.25, 0.4, 0.5)
"""Probabilities of three tokens; the first two are one sequence."""


def some(own: tuple[float, ...] = P, reference: tuple[float, ...] = P_O) -> Likelihoods:
    logs = [torch.tensor(values, dtype=torch.float64).log() for values in (own, reference)]
    return Likelihoods(logs[0], logs[1], torch.tensor([0, 0, 1]))


def test_terms_by_hand() -> None:
    ratios = (1.0, 0.5)  # 0.1/0.1 and 0.25/0.5
    hand = {
        gradient_ascent: [math.log(p) for p in P],
        partial(weighted_gradient_ascent, alpha=2.0): [p**2 * math.log(p) for p in P],
        partial(negative_preference, beta=0.5): [4 * math.log(1 + r**0.5) for r in ratios],
        partial(token_negative_preference, beta=2.0): [math.log(1 + 2**2), math.log(1 + 0.25), math.log(1 + 0.25)],
        partial(simple_negative_preference, beta=2.0, gamma=0.0): [math.log(1 + 0.1), math.log(1 + 0.0625)],
        partial(simple_negative_preference, beta=1.0, gamma=math.log(2)): [
            2 * math.log(1 + 2 * math.sqrt(0.1)),
            2 * math.log(1 + 2 * 0.25),
        ],
        partial(weighted_token_negative_preference, beta=1.0, alpha=1.0): [
            p * 2 * p / (p + o) * math.log(p) for p, o in zip(P, P_O, strict=True)
        ],
    }
    for objective, expected in hand.items():
        assert objective(some()).tolist() == pytest.approx(expected, rel=1e-9), objective


def test_direct_preference_by_hand() -> None:
    """The refusal's ratios are 4 and 1, the answer's 1 and 0.5: margins log 4 and log 2, at β = 2 odds 16 and 4."""
    chosen = some((0.5, 0.8, 0.5), (0.25, 0.4, 0.5))
    assert direct_preference(some(), chosen, beta=2.0).tolist() == pytest.approx(
        [math.log(1 + 1 / 16), math.log(1 + 1 / 4)], rel=1e-9
    )


def test_weights_by_hand() -> None:
    expected = [2 * p / (p + o) * p for p, o in zip(P, P_O, strict=True)]
    (found,) = gradient_weights(partial(weighted_token_negative_preference, beta=1.0, alpha=1.0), some())
    assert found.tolist() == pytest.approx(expected)
    (found,) = gradient_weights(partial(weighted_gradient_ascent, alpha=3.0), some())
    assert found.tolist() == pytest.approx([p**3 for p in P])
    (found,) = gradient_weights(partial(negative_preference, beta=1.0), some())
    assert found.tolist() == pytest.approx([1.0, 1.0, 2 * 0.25 / 0.75])
    away, pull = gradient_weights(partial(direct_preference, beta=1.0), some(), some((0.5, 0.8, 0.5)))
    assert away.tolist() == pytest.approx([2 / 5, 2 / 5, 2 / 3]) and pull.tolist() == pytest.approx((-away).tolist())


def test_misdirection_by_hand() -> None:
    target = steering_target(5, 3.0, seed=1)
    assert float(target.norm()) == pytest.approx(3.0) and (target >= 0).all()
    found = misdirection(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([0.0, 4.0]))
    assert found.tolist() == [2.5, 8.0]


def test_likelihoods_are_those_of_the_scored_tokens(subject: Subject, domain: Domain) -> None:
    rendered = [subject.renderer.example(e) for e in domain.unrelated[:3]]
    batch = make_batch(rendered, subject.tokenizer.pad_token_id, subject.device)
    found = likelihoods(subject, batch)
    assert found.sequences.tolist() == [i for i, row in enumerate(rendered) for _ in row.response]
    assert -float(found.logprobs.mean()) == pytest.approx(float(cross_entropy(subject, batch)), rel=1e-5)
    assert found.log_ratios.tolist() == [0.0, 0.0, 0.0] and found.logprobs.requires_grad
    assert not found.reference.requires_grad
