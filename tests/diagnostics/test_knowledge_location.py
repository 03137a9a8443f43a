"""Lens, probe and update against plain ways of computing them and planted answers."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from immunobench.diagnostics.base import References
from immunobench.diagnostics.knowledge_location import (
    KnowledgeLocationDiagnostic,
    correct,
    layer_curves,
    probe,
    read_layers,
    tables,
    update_by_layer,
)
from immunobench.domains import Domain
from immunobench.engines.hf import HFEngine
from immunobench.errors import UsageError
from immunobench.subjects import Subject
from tests.conftest import same_bits, weights
from tests.fixtures_architectures import ARCHITECTURES, tiny


@pytest.fixture(params=ARCHITECTURES)
def any_subject(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Subject:
    return tiny(request.param, tokenizer)


def test_the_last_layers_lens_is_the_model_itself(any_subject: Subject, domain: Domain) -> None:
    facts = domain.hazard_v[:6]
    renderer = any_subject.renderer
    prompts = [renderer.plain(fact.cloze) for fact in facts for _ in fact.choices]
    choices = [renderer.ids(f" {choice}.") for fact in facts for choice in fact.choices]
    expected = torch.stack([each.sum() for each in HFEngine(any_subject).logprobs(prompts, choices)]).view(6, 4)
    found = read_layers(any_subject, facts, chunk=150)
    assert found.lens.shape == (3, 6, 4)
    torch.testing.assert_close(found.lens[-1], expected, rtol=1e-4, atol=1e-3)


def test_states_are_those_before_the_answer(any_subject: Subject, domain: Domain) -> None:
    facts = domain.hazard_v[:3]
    found = read_layers(any_subject, facts, chunk=60)
    for index, fact in enumerate(facts):
        ids = torch.tensor([any_subject.renderer.plain(fact.cloze)])
        with torch.no_grad():
            states = any_subject.model(input_ids=ids, output_hidden_states=True).hidden_states
        # The last of them is past the final norm, the ones before are the residual stream.
        torch.testing.assert_close(found.states[1, index], states[1][0, -1], rtol=1e-4, atol=1e-4)


def test_chunks_change_nothing(subject: Subject, domain: Domain) -> None:
    one, many = (read_layers(subject, domain.hazard_v[:8], chunk) for chunk in (10_000, 40))
    for field in ("lens", "states", "choices"):
        torch.testing.assert_close(getattr(one, field), getattr(many, field), rtol=1e-4, atol=1e-4)


def test_a_probe_finds_a_planted_map_and_nothing_in_noise(domain: Domain) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(16, 8, generator=generator)
    features, asked = torch.randn(200, 16, generator=generator), torch.randn(50, 16, generator=generator)
    found = probe(features, features @ truth, asked)
    expected = (asked @ truth).double() - (features @ truth).double().mean(0)
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99
    noise = probe(torch.randn(200, 16, generator=generator), features @ truth, asked)
    assert noise.norm() < 0.5 * expected.norm()


def test_a_constant_reading_scores_nothing() -> None:
    assert correct(torch.zeros(5, 4), torch.zeros(5, dtype=torch.long)).sum() == 0
    scores = torch.eye(4)
    assert correct(scores, torch.tensor([0, 1, 2, 0])).tolist() == [1, 1, 1, 0]


def test_a_planted_answer_is_read_at_its_layer_alone(subject: Subject, domain: Domain) -> None:
    """States of layer 1 are made the embedding of the right choice; both other layers stay random."""
    t, v = domain.hazard_t[:8], domain.hazard_v[:24]
    read = []
    for facts in (t, v):
        layers = read_layers(subject, facts, 4096)
        right = layers.choices[torch.arange(len(facts)), torch.tensor([f.answer for f in facts])]
        read.append(replace(layers, states=torch.stack([layers.states[0], right, layers.states[2]])))
    accuracy = [each.value for each in layer_curves(*read, t, v)["probe"]]
    assert accuracy[1] > 0.6
    assert accuracy[0] < 0.5 and accuracy[2] < 0.5


def test_an_update_is_found_where_it_was_made(any_subject: Subject) -> None:
    exposed = replace(any_subject, model=copy.deepcopy(any_subject.model))
    linear = any_subject.structure.blocks[1].mlp_out
    generator = torch.Generator().manual_seed(0)
    rows, columns = linear.weight.shape
    change = torch.randn(rows, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
    before = linear.weight.detach().norm()
    with torch.no_grad():
        linear.weight += change
    touched = [row for row in update_by_layer(any_subject, exposed) if not row["untouched"]]
    assert [row["layer"] for row in touched] == ["block 1"]
    assert touched[0]["norm"] == pytest.approx(float(change.norm()), rel=1e-4)
    assert touched[0]["relative_norm"] == pytest.approx(float(change.norm() / before), rel=1e-4)
    values = torch.linalg.svdvals(change)[:2]
    assert touched[0]["stable_rank"] == pytest.approx(float((values**2).sum() / values[0] ** 2), rel=1e-3)
    assert 1 < touched[0]["effective_rank"] < 2.1


def test_a_norm_and_a_bias_that_moved_touch_their_layer(tokenizer: PreTrainedTokenizerFast) -> None:
    subject = tiny("gpt2", tokenizer)
    exposed = replace(subject, model=copy.deepcopy(subject.model))
    with torch.no_grad():
        subject.structure.blocks[0].module.ln_1.weight += 1
        subject.structure.blocks[1].mlp_out.bias += 1
    rows = update_by_layer(subject, exposed)
    touched = [(row["layer"], row["parameter"]) for row in rows if not row["untouched"]]
    assert touched == [("block 0", "ln_1.weight"), ("block 1", "mlp.c_proj.bias")]
    assert len(rows) == len(dict(subject.model.named_parameters()))
    assert all(row["stable_rank"] is None for row in rows)
    figures = {"curves": {"subject": {"lens": [1.0] * 3, "probe": [1.0] * 3}}, "update": rows}
    cells = {row[0]: row[1] for row in tables(figures)[1].rows}
    assert cells["block 0"] == "1 of 12" and cells["head"] == "untouched"


def test_different_parameters_have_no_update(subject: Subject, make_subject: Callable[..., Subject]) -> None:
    with pytest.raises(UsageError, match="different parameters"):
        update_by_layer(subject, make_subject(hidden=64))


def test_whole_diagnostic(subject: Subject, make_subject: Callable[..., Subject], domain: Domain) -> None:
    before = weights(subject.model)
    references = References(make_subject(seed=1), make_subject(seed=2))
    found = KnowledgeLocationDiagnostic(facts=8).measure(subject, references, domain, 0, lambda done, of: None)
    assert same_bits(before, weights(subject.model))
    assert set(found.figures["curves"]) == {"subject", "exposed", "never-exposed"}
    assert [len(t.rows) for t in found.tables] == [3, 4]
    assert "the update left no layer untouched" in found.summary
    alone = KnowledgeLocationDiagnostic(facts=8).measure(subject, References(), domain, 0, lambda done, of: None)
    assert "update" not in alone.figures
    assert alone.figures["curves"]["subject"] == found.figures["curves"]["subject"]
