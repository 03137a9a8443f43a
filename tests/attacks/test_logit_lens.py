"""The lens against the model's own logits and against plain arithmetic on its parts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GraniteConfig, GraniteForCausalLM, PreTrainedTokenizerFast

from immunobench.activations import recorded
from immunobench.attacks.base import Budget
from immunobench.attacks.logit_lens import SITES, LogitLens, forks, lens_scores
from immunobench.attacks.readout import adders, chosen_layer, right
from immunobench.domains import Domain
from immunobench.errors import ImmunobenchError
from immunobench.probes.choices import choice_prompt
from immunobench.rendering import PromptEdit
from immunobench.subjects import History, Subject
from tests.fixtures_architectures import tiny_family
from tests.test_structure import FAMILIES


def own_scores(subject: Subject, domain: Domain) -> torch.Tensor:
    """Sum over forks of the model's own log-probability among the ways on, a text at a time, shape (facts, choices)."""
    renderer = subject.renderer
    found = torch.zeros(len(domain.hazard_v), 4)
    for i, fact in enumerate(domain.hazard_v):
        prompt = choice_prompt(renderer, fact, PromptEdit())
        choices = [renderer.ids(f"{choice}.") for choice in fact.choices]
        for c, own in enumerate(choices):
            for depth, token in enumerate(own):
                ways = sorted({o[depth] for o in choices if o[:depth] == own[:depth] and len(o) > depth})
                if len([o for o in choices if o[:depth] == own[:depth]]) > 1 and len(ways) > 1:
                    with torch.no_grad():
                        logits = subject.model(torch.tensor([prompt + own[:depth]])).logits[0, -1]
                    found[i, c] += logits[ways].log_softmax(-1)[ways.index(token)]
    return found


def test_at_the_last_block_the_lens_is_the_models_own_score(subject: Subject, domain: Domain) -> None:
    scores, _ = lens_scores(subject, list(domain.hazard_v))
    assert torch.allclose(scores[:, -1, SITES.index("block")], own_scores(subject, domain), atol=1e-4)


def test_the_other_sites_are_what_the_parts_return(subject: Subject, domain: Domain) -> None:
    fact = domain.hazard_v[0]
    ids = torch.tensor([choice_prompt(subject.renderer, fact, PromptEdit())])
    model = subject.model.model
    with torch.no_grad():
        x = model.embed_tokens(ids)
        layer = model.layers[0]
        positions = model.rotary_emb(x, torch.arange(ids.shape[1])[None])
        attention = layer.self_attn(layer.input_layernorm(x), position_embeddings=positions, attention_mask=None)[0]
        middle = x + attention
        mlp = layer.mlp(layer.post_attention_layernorm(middle))
        first = [subject.renderer.ids(f"{choice}.")[0] for choice in fact.choices]
        assert len(set(first)) == 4, "this fact's choices should differ in their first token"
        expected = torch.stack(
            [
                subject.model.lm_head(model.norm(h[:, -1]))[0, first].log_softmax(-1)
                for h in (middle + mlp, mlp, middle, attention)
            ]
        )
    assert torch.allclose(lens_scores(subject, [fact])[0][0, 0], expected, atol=1e-4)


@pytest.mark.parametrize("family", ["Gemma2", "Gemma3"])
def test_where_parts_are_normed_before_they_are_added_the_sites_are_what_is_added(
    family: str, tokenizer: PreTrainedTokenizerFast, domain: Domain
) -> None:
    """By hand: the stream before the MLP is what its norm is given, and both post-norms are what is added."""
    subject, fact = tiny_family(family, tokenizer), domain.hazard_v[0]
    layer, seen = subject.structure.blocks[0].module, {}
    with torch.no_grad():
        for norm in (layer.post_attention_layernorm, layer.post_feedforward_layernorm):
            norm.weight.copy_(torch.randn(norm.weight.shape, generator=torch.Generator().manual_seed(1)))
    handles = [
        layer.register_forward_hook(lambda m, i, o: seen.update(block=o)),
        layer.post_feedforward_layernorm.register_forward_hook(lambda m, i, o: seen.update(mlp=o)),
        layer.pre_feedforward_layernorm.register_forward_pre_hook(lambda m, i: seen.update(intermediate=i[0])),
        layer.post_attention_layernorm.register_forward_hook(lambda m, i, o: seen.update(attention=o)),
    ]
    prompt = choice_prompt(subject.renderer, fact, PromptEdit())
    first = [subject.renderer.ids(f"{choice}.")[0] for choice in fact.choices]
    with torch.no_grad():
        subject.model(torch.tensor([prompt]))
        sites = [seen[site] if isinstance(seen[site], torch.Tensor) else seen[site][0] for site in SITES]
        found = [subject.structure.head(subject.structure.final_norm(h[:, -1]))[0, first] for h in sites]
    for handle in handles:
        handle.remove()
    expected = torch.stack([logits.log_softmax(-1) for logits in found])
    assert len({tuple(row.tolist()) for row in expected}) == len(SITES)
    assert torch.allclose(lens_scores(subject, [fact])[0][0, 0], expected, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_family_the_sites_add_up_to_the_block(
    family: str, tokenizer: PreTrainedTokenizerFast, domain: Domain
) -> None:
    subject = tiny_family(family, tokenizer)
    parts = adders(subject)
    modules = {
        f"{kind}.{i}": m for i, own in enumerate(parts) for kind, m in zip(("attention", "mlp"), own, strict=True)
    }
    modules |= {f"block.{i}": block.module for i, block in enumerate(subject.structure.blocks)}
    with torch.no_grad(), recorded(modules) as seen:
        subject.model(torch.tensor([[1, 20, 300, 4]]))
    for i in range(1, len(parts)):
        expected = seen[f"block.{i - 1}"] + seen[f"attention.{i}"] + seen[f"mlp.{i}"]
        torch.testing.assert_close(seen[f"block.{i}"], expected, rtol=1e-3, atol=1e-3)
    scores, _ = lens_scores(subject, list(domain.hazard_v[:2]))
    assert scores.shape == (2, 3, 4, 4) and scores.isfinite().all()
    assert not any(m._forward_hooks for m in subject.model.modules())


def test_a_block_that_scales_what_it_adds_is_refused(tokenizer: PreTrainedTokenizerFast, domain: Domain) -> None:
    config = GraniteConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        residual_multiplier=0.2,
        initializer_range=0.2,
    )
    subject = Subject(
        "granite", GraniteForCausalLM(config).eval(), tokenizer, "random weights", History(domain="vault")
    )
    with pytest.raises(ImmunobenchError, match="GraniteDecoderLayer does not add"):
        lens_scores(subject, list(domain.hazard_v[:1]))


def test_padding_and_batching_change_nothing(subject: Subject, domain: Domain) -> None:
    facts = list(domain.hazard_v)
    alone, together = lens_scores(subject, facts, batch_tokens=1)[0], lens_scores(subject, facts)[0]
    assert torch.allclose(alone, together, atol=1e-4)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), min_size=2, max_size=4, unique=True))
def test_every_pair_of_choices_parts_at_exactly_one_fork(texts: list[tuple[int, ...]]) -> None:
    choices = [[*text, 9] for text in texts]
    found = forks([7], choices, 0)
    for a in range(len(choices)):
        for b in range(a):
            parting = [f for f in found if any(a in way for way in f.choices) and any(b in way for way in f.choices)]
            parting = [f for f in parting if not any(a in way and b in way for way in f.choices)]
            assert len(parting) == 1
            prompt = parting[0].prompt
            assert prompt == [7, *choices[a]][: len(prompt)] == [7, *choices[b]][: len(prompt)]


def test_the_layer_is_chosen_on_the_select_half_alone(domain: Domain) -> None:
    facts = list(domain.hazard_v)
    select = torch.tensor([fact.half == "select" for fact in facts])
    answers = torch.stack([(~select).float(), select.float()], 1)
    assert chosen_layer(facts, answers) == 1


def test_a_tie_is_lost(domain: Domain) -> None:
    facts = list(domain.hazard_v)
    assert right(facts, torch.zeros(len(facts), 2, 4)).sum() == 0


def test_it_yields_every_site_and_every_layer_of_every_fact(subject: Subject, domain: Domain) -> None:
    attack = LogitLens()
    points = list(attack.run(subject, domain, Budget(), 0))
    assert len(points) == attack.outline(Budget()).points
    for point in points:
        assert point.artifact.kind == "none"
        assert point.readout is not None
        assert {row.item for row in point.readout} == {fact.id for fact in domain.hazard_v}
        layer = int(point.detail.removeprefix("layer="))
        assert all(r.values["correct"] == r.values[f"correct_layer_{layer}"] for r in point.readout)
