"""Losses on hidden states against cases worked out by hand and passes without padding."""

import math

import pytest
import torch

from immunobench.defenses.alignment import worst_drift
from immunobench.defenses.base import frozen_copy
from immunobench.defenses.representation_noising import differing, maximum_mean_discrepancy, noise_discrepancy
from immunobench.defenses.states import States, damped_ascent, layerwise_losses, states
from immunobench.defenses.tamper_resistance import negative_entropy, random_mapping, retaining
from immunobench.domains import Domain
from immunobench.subjects import Subject
from immunobench.training.batches import IGNORED, Batch, make_batch
from immunobench.training.loop import cross_entropy


@pytest.fixture
def batch(subject: Subject, domain: Domain) -> Batch:
    """Four padded chats."""
    rows = [subject.renderer.example(e) for e in domain.unrelated[:4]]
    return make_batch(rows, subject.tokenizer.pad_token_id, subject.device)


def test_discrepancy_of_two_points_by_hand() -> None:
    """One point each at distance 3: the widths are 9/4 to 36, so the kernels are e^-4, e^-2, e^-1, e^-1/2, e^-1/4."""
    first, second = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 4.0]])
    expected = 2 * 5 - 2 * sum(math.exp(-x) for x in (4, 2, 1, 0.5, 0.25))
    assert float(maximum_mean_discrepancy(first, second)) == pytest.approx(expected, rel=1e-6)
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert float(maximum_mean_discrepancy(points, points)) == pytest.approx(0, abs=1e-6)


def test_noise_is_nearer_to_noise_than_a_constant_is() -> None:
    mask = torch.ones(32, 4, dtype=torch.bool)
    drawn = torch.randn(32, 4, 8, generator=torch.Generator().manual_seed(0))
    found = [
        float(noise_discrepancy(hidden, mask, torch.Generator().manual_seed(1)))
        for hidden in (drawn, torch.full_like(drawn, 5.0))
    ]
    assert found[0] < found[1] / 10


def test_tokens_that_differ() -> None:
    x = IGNORED
    labels = torch.tensor([[x, 5, 6, 7], [x, x, 5, 9], [1, 2, 3, 4]])
    others = torch.tensor([[x, x, 5, 6, 8], [x, 5, 9, 1, 1], [x, x, x, x, 1]])
    assert differing(labels, others).tolist() == [
        [False, False, False, True],
        [False, False, False, False],
        [False, True, True, True],
    ]


def test_ascent_is_damped() -> None:
    losses = torch.tensor([1.0, 3.0], requires_grad=True)
    found = damped_ascent(losses)
    assert float(found) == pytest.approx(-math.log(3))
    (slope,) = torch.autograd.grad(found, losses)
    assert slope.tolist() == pytest.approx([-1 / 6, -1 / 6])


def test_layers_speak_for_themselves(subject: Subject, domain: Domain, batch: Batch) -> None:
    """Against one unpadded pass an example; the last layer is the model itself."""
    model = subject.model.model
    totals, count = [0.0, 0.0, 0.0], 0
    for example in domain.unrelated[:4]:
        row = subject.renderer.example(example)
        kept: list[torch.Tensor] = []
        handles = [
            m.register_forward_hook(lambda _m, _i, o, kept=kept: kept.append(o))
            for m in (model.embed_tokens, *model.layers)
        ]
        subject.model(torch.tensor([row.prompt + row.response]))
        for handle in handles:
            handle.remove()
        wanted = torch.tensor(row.response)
        for layer, hidden in enumerate(kept):
            logprobs = subject.model.lm_head(model.norm(hidden[0, len(row.prompt) - 1 : -1])).log_softmax(-1)
            totals[layer] -= float(logprobs.gather(-1, wanted[:, None]).sum())
        count += len(wanted)
    found = layerwise_losses(subject, states(subject, batch), batch.labels)
    assert found.tolist() == pytest.approx([total / count for total in totals], rel=1e-4)
    assert float(found[-1]) == pytest.approx(float(cross_entropy(subject, batch)), rel=1e-4)


def test_entropy_of_a_model_that_is_unsure(subject: Subject, batch: Batch) -> None:
    assert float(negative_entropy(subject, batch)) > -math.log(len(subject.tokenizer)) + 0.01
    with torch.no_grad():
        subject.model.lm_head.weight.zero_()
    assert float(negative_entropy(subject, batch)) == pytest.approx(-math.log(len(subject.tokenizer)), rel=1e-5)


def test_random_mapping_by_hand() -> None:
    targets = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    ids = torch.tensor([[0, 1, 1]])
    states_of = torch.tensor([[[9.0, 9.0], [0.0, -3.0], [1.0, 1.0]]])
    batch = Batch(ids, torch.tensor([[0, 1, 1]]), ids, 2)
    found = random_mapping(States([states_of, -states_of], [], torch.empty(0)), batch, targets)
    assert float(found) == pytest.approx((0 + 1 - math.sqrt(0.5)) / 2, rel=1e-5)


def test_retaining_counts_the_distance_of_states(subject: Subject, batch: Batch) -> None:
    reference = frozen_copy(subject)
    assert not any(p.requires_grad for p in reference.model.parameters())
    alone = float(cross_entropy(subject, batch))
    assert float(retaining(subject, reference, batch)) == pytest.approx(alone, rel=1e-6)
    with torch.no_grad():
        reference.model.model.embed_tokens.weight.add_(1.0)
        apart = states(subject, batch).residual[0] - states(reference, batch).residual[0]
    assert float(apart.norm(dim=-1).mean()) == pytest.approx(math.sqrt(32), rel=1e-4)
    assert float(retaining(subject, reference, batch)) > alone + math.sqrt(32) / 3


def test_drift_is_the_gradient_at_the_attention_outputs(subject: Subject, batch: Batch) -> None:
    """Against the gradient with respect to zeros that are added there."""
    zeros = [torch.zeros(*batch.ids.shape, 32, requires_grad=True) for _ in range(2)]
    handles = [
        layer.self_attn.register_forward_hook(lambda _m, _i, out, zero=zero: (out[0] + zero, *out[1:]))
        for layer, zero in zip(subject.model.model.layers, zeros, strict=True)
    ]
    slopes = torch.autograd.grad(cross_entropy(subject, batch), zeros)
    for handle in handles:
        handle.remove()
    length = math.sqrt(sum(float((s**2).sum()) for s in slopes))
    found = worst_drift(subject, batch, rho=0.7)
    for drift, slope in zip(found, slopes, strict=True):
        torch.testing.assert_close(drift, 0.7 * slope / length, rtol=1e-3, atol=1e-6)
    assert math.sqrt(sum(float((d**2).sum()) for d in found)) == pytest.approx(0.7, rel=1e-5)


def test_a_copy_stays_as_it_was(subject: Subject, batch: Batch) -> None:
    reference = frozen_copy(subject)
    before = float(cross_entropy(reference, batch))
    with torch.no_grad():
        subject.model.lm_head.weight.zero_()
    assert float(cross_entropy(reference, batch)) == before
    assert reference.structure.head is not subject.structure.head
