"""Gradients that methods estimate, against autograd doing the whole thing."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy as plain_cross_entropy

from immunobench.defenses.alignment import harmful_drop
from immunobench.defenses.gradients import moved, with_gradient
from immunobench.defenses.self_destruction import coupling_gradient
from immunobench.defenses.tamper_resistance import tamper_gradient
from immunobench.domains import Domain
from immunobench.subjects import Subject
from immunobench.training import Recipe
from immunobench.training.batches import IGNORED, Batch, make_batch
from tests.conftest import same_bits, weights

Losses = tuple[list[torch.nn.Parameter], Callable[[], torch.Tensor], Callable[[], torch.Tensor]]


@pytest.fixture
def losses() -> Losses:
    """Two losses of one small network in float64, curved in all of its parameters."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    parameters = [torch.nn.Parameter(drawn(5, 7)), torch.nn.Parameter(drawn(7))]
    data = [(drawn(9, 5), drawn(9)) for _ in range(2)]

    def loss(side: int) -> Callable[[], torch.Tensor]:
        x, y = data[side]
        return lambda: ((torch.tanh(x @ parameters[0]) @ parameters[1] - y) ** 2).mean()

    return parameters, loss(0), loss(1)


def test_coupling_equals_the_second_derivative(losses: Losses) -> None:
    parameters, first, second = losses
    a, b = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss(), parameters, create_graph=True)])
        for loss in (first, second)
    )
    exact = (a @ b) / (a.norm() * b.norm())
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(exact, parameters)])
    errors = []
    for epsilon in (1e-3, 1e-5):
        cosine, slope = coupling_gradient(parameters, first, second, epsilon)
        assert float(cosine) == pytest.approx(float(exact.detach()), rel=1e-9)
        found = torch.cat([g.flatten() for g in slope])
        errors.append(float((found - wanted).norm() / wanted.norm()))
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 50, "the error is of the order of epsilon"


def test_harmful_drop_equals_autograd_with_the_step_held(losses: Losses) -> None:
    parameters, harmful, _ = losses
    slope = torch.autograd.grad(harmful(), parameters)
    length = math.sqrt(sum(float((g**2).sum()) for g in slope))
    kept = [p.detach().clone() for p in parameters]
    start = harmful()
    with torch.no_grad():
        for p, g in zip(parameters, slope, strict=True):
            p.sub_(0.1 * g / length)
    there = harmful()
    after = torch.autograd.grad(there, parameters)
    with torch.no_grad():
        for p, value in zip(parameters, kept, strict=True):
            p.copy_(value)
    drop, found = harmful_drop(parameters, harmful, alpha=0.1)
    assert float(drop) == pytest.approx(float((start - there).detach()), rel=1e-9) and float(drop) > 0
    for own, before, later in zip(found, slope, after, strict=True):
        torch.testing.assert_close(own, before - later)
    assert all(torch.equal(p, value) for p, value in zip(parameters, kept, strict=True))


def batches_of(subject: Subject, domain: Domain, count: int) -> list[Batch]:
    rows = [subject.renderer.example(e) for e in domain.unrelated[: 2 * count]]
    pad = subject.tokenizer.pad_token_id
    return [make_batch(rows[i : i + 2], pad, subject.device) for i in range(0, 2 * count, 2)]


def test_tamper_gradient_equals_straight_through_autograd(subject: Subject, domain: Domain) -> None:
    """Against attacked parameters θ + Δ_i with Δ_i constant, in one graph from θ; four steps of plain SGD."""
    *attack, held_out = batches_of(subject, domain, 5)
    model = subject.model
    base = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}

    def logits(parameters: dict[str, torch.Tensor], batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "position_ids": batch.positions}
        keep = batch.labels.shape[1] + 1
        out = functional_call(model, parameters, kwargs=inputs | {"use_cache": False}).logits[:, -keep:-1]
        scored = batch.labels != IGNORED
        return out[scored], batch.labels[scored]

    current = {name: value.detach().clone().requires_grad_() for name, value in base.items()}
    total = torch.zeros(())
    for step, batch in enumerate(attack):
        slope = torch.autograd.grad(plain_cross_entropy(*logits(current, batch)), list(current.values()))
        current = {
            name: (value - 0.05 * g).detach().requires_grad_()
            for (name, value), g in zip(current.items(), slope, strict=True)
        }
        if step % 2:
            through = {name: value + (current[name] - value).detach() for name, value in base.items()}
            logprobs = logits(through, held_out)[0].log_softmax(-1)
            total = total + math.exp(0.5 * (step - 3)) * (logprobs.exp() * logprobs).sum(-1).mean()
    wanted = torch.autograd.grad(total, list(base.values()))

    before = weights(model)
    recipe = Recipe(0.05, 4, 2, "sgd", weight_decay=0.0, max_gradient_norm=None)
    value, found = tamper_gradient(subject, iter(attack), held_out, recipe, every=2, decay=0.5)
    assert float(value) == pytest.approx(float(total), rel=1e-4)
    scale = max(float(g.abs().max()) for g in wanted)
    for own, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, exact, rtol=1e-3, atol=1e-4 * scale)
    assert same_bits(weights(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_a_given_gradient_is_what_backward_leaves() -> None:
    parameters = [torch.nn.Parameter(torch.tensor([1e6, 2.0])), torch.nn.Parameter(torch.ones(2, 2))]
    wanted = [torch.tensor([3.0, -1.0]), torch.eye(2)]
    value = with_gradient(torch.tensor(0.125), parameters, wanted)
    assert float(value) == 0.125
    (2 * value).backward()
    for parameter, g in zip(parameters, wanted, strict=True):
        assert parameter.grad is not None and torch.equal(parameter.grad, 2 * g)


def test_moved_parameters_come_back_whatever_happens() -> None:
    parameter = torch.nn.Parameter(torch.tensor([0.1, 1e8]))
    before = parameter.detach().clone()
    with pytest.raises(ZeroDivisionError), moved([parameter], [torch.tensor([1.0, 0.3])], -0.5):
        assert parameter.tolist() == pytest.approx([-0.4, 1e8])
        raise ZeroDivisionError
    assert torch.equal(parameter, before)
