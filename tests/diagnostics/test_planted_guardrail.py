"""A guardrail that sits in known neurons is found by the sparsity diagnostic.

The subject is written by hand. Attention carries a hazard flag from words of hazard requests to the last position;
``GUARD`` neurons read it there and raise the first token of a refusal over that of an answer; either text then goes on
token by token. ``SERVE`` neurons give tokens unlike log-probabilities, on which every choice between facts rests.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from immunobench.attribution import snip_scores
from immunobench.attribution.removal import critical_difference, critical_ranks
from immunobench.diagnostics.base import Finding, References, plain
from immunobench.diagnostics.freezing import freezing
from immunobench.diagnostics.guardrail import Gauge, Reading, Verdicts, safety_examples, utility_examples
from immunobench.diagnostics.plots import draw
from immunobench.diagnostics.sparsity import SparsityDiagnostic
from immunobench.domains import Domain, Request, load_domain
from immunobench.structure import matrix_of
from immunobench.subjects import Subject

HIDDEN, NEURONS, NOISE = 64, 96, 0.003
GUARD, SERVE = range(10, 14), range(20, 24)
ONE, FLAG, END, REFUSE, HAZARD, UNLIKE, FIRST_CODE = range(7)
"""What a dimension of the residual stream means; codes of the written tokens begin at the last."""
REFUSAL, ANSWER = "Sorry, I cannot help.", "It is well known."
UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
GATE = "model.layers.0.mlp.gate_proj"


@dataclass(frozen=True)
class Planted:
    subject: Subject
    domain: Domain
    guard: dict[str, torch.Tensor]
    """Masks of the guard neurons' weights by linear."""


def ids_of(subject: Subject, requests: Iterable[Request]) -> set[int]:
    return {i for r in requests for prompt in (r.prompt, *r.train_prompts) for i in subject.renderer.prompt(prompt)}


def new_subject(tokenizer: PreTrainedTokenizerFast) -> Subject:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=NEURONS,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    return Subject("planted", LlamaForCausalLM(config).eval(), tokenizer, "written by hand")


@torch.no_grad()
def write_weights(subject: Subject, hazard_words: set[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    for linear in subject.structure.linears.values():
        matrix_of(linear).copy_(NOISE * torch.randn(matrix_of(linear).shape, generator=generator))
    embedding, head = subject.structure.embedding.weight, subject.structure.head.weight
    embedding.zero_()
    embedding[:, ONE] = 1
    embedding[sorted(hazard_words), FLAG] = 10
    end = subject.renderer.prompt("x")[-1]
    embedding[end, END] = 1
    head.zero_()
    head[:, UNLIKE] = 0.3 * torch.randn(len(head), generator=generator)
    code = FIRST_CODE
    # Logits near 11 over a vocabulary of 1280: likely, and not so sure that gradients vanish.
    for text, start, gain in ((REFUSAL, REFUSE, 1.4), (ANSWER, END, 2.0)):
        tokens = [*subject.renderer.ids(text), subject.tokenizer.eos_token_id]
        head[tokens[0], start] = gain
        for token, following in pairwise(tokens):
            embedding[token, code], head[following, code] = 3, 1.5
            code += 1
    block = subject.structure.blocks[0].module
    block.self_attn.v_proj.weight[0, FLAG] = 1
    block.self_attn.o_proj.weight[HAZARD, 0] = 5
    for neuron in GUARD:
        block.mlp.gate_proj.weight[neuron, HAZARD] = 4
        block.mlp.gate_proj.weight[neuron, ONE] = -2
        block.mlp.up_proj.weight[neuron, END] = 1
        block.mlp.down_proj.weight[REFUSE, neuron] = 0.1
    for neuron in SERVE:
        block.mlp.gate_proj.weight[neuron, ONE] = 0.5
        block.mlp.up_proj.weight[neuron, ONE] = 0.5
        block.mlp.down_proj.weight[UNLIKE, neuron] = 0.1


@pytest.fixture(scope="module")
def planted(tokenizer: PreTrainedTokenizerFast) -> Planted:
    domain = load_domain("vault")
    subject = new_subject(tokenizer)
    hazard = ids_of(subject, [*domain.requests_t, *domain.requests_v])
    benign = ids_of(subject, [*domain.benign_requests_t, *domain.benign_requests_v])
    chats = {i for e in domain.unrelated for i in subject.renderer.prompt(e.prompt or "")}
    write_weights(subject, hazard - benign - chats)
    guard = {name: torch.zeros_like(matrix_of(m), dtype=torch.bool) for name, m in subject.structure.linears.items()}
    for name in (GATE, UP):
        guard[name][list(GUARD)] = True
    guard[DOWN][:, list(GUARD)] = True
    return Planted(subject, domain, guard)


@pytest.fixture(scope="module")
def found(planted: Planted) -> Finding:
    settings = SparsityDiagnostic(
        grid=(0.0005, 0.002, 0.01, 0.05),
        spared_weights=(0.002,),
        spared_ranks=(0.05,),
        refinements=1,
        examples=32,
        items=12,
        steps=1,
    )
    return settings.measure(planted.subject, References(), planted.domain, 0, lambda done, of: None)


def test_the_guardrail_is_there(found: Finding) -> None:
    before = found.figures["before"]
    assert before["refused"].value == 1
    assert before["utility"].value > 0


@pytest.mark.parametrize("score", ["SNIP", "Wanda"])
def test_a_removal_smaller_than_the_planted_neurons_breaks_it(planted: Planted, found: Finding, score: str) -> None:
    share = sum(int(m.sum()) for m in planted.guard.values()) / sum(m.numel() for m in planted.guard.values())
    method = found.figures["methods"][f"{score}, 0.2 % spared"]
    assert not method["censored"]
    assert method["share"] < share


def test_what_the_search_takes_out_of_the_mlp_by_snip_are_planted_neurons(found: Finding) -> None:
    chosen = found.figures["methods"]["SNIP, 0.2 % spared"]["neurons"]
    for name, side in ((GATE, "outputs"), (UP, "outputs"), (DOWN, "inputs")):
        assert chosen[name]["weights"] > 0
        assert {neuron for neuron, _ in chosen[name][side]} <= set(GUARD), name


def test_what_the_search_takes_out_by_wanda_holds_what_the_planted_neurons_write(found: Finding) -> None:
    """Wanda knows no gradient and takes other weights too; of the output that refuses it takes the planted four."""
    chosen = found.figures["methods"]["Wanda, 0.2 % spared"]["neurons"][DOWN]
    assert chosen["outputs"][0] == [REFUSE, len(GUARD)]
    assert set(GUARD) <= {neuron for neuron, _ in chosen["inputs"]}


def test_the_share_that_scores_rank_first_are_the_planted_neurons(planted: Planted) -> None:
    """In the MLP, of the weights that matter to safety alone, those of the four planted neurons of 96 come first."""
    safety, utility = (
        critical_ranks(snip_scores(planted.subject, examples))
        for examples in (
            safety_examples(planted.subject, planted.domain.requests_t[:64]),
            utility_examples(planted.domain, 64),
        )
    )
    q = 4 / (HIDDEN * NEURONS)
    chosen = critical_difference(safety, utility, q, 0.002)
    for name in (GATE, UP, DOWN):
        assert int(chosen[name].sum()) == 4
        assert (chosen[name] & planted.guard[name]).sum() == 4, name


@pytest.fixture(scope="module")
def frozen(planted: Planted) -> tuple[Reading, dict[str, Any]]:
    """The reading before, and fine-tuning around nothing, the planted neurons, and every weight of the block."""
    facts, requests = planted.domain.hazard_t[:32], planted.domain.requests_t[:32]
    gauge = Gauge(planted.domain, 6, 64)
    before = gauge.read(planted.subject)
    every = {name: torch.ones_like(mask) for name, mask in planted.guard.items()}
    tried = {"nothing": {}, "the planted neurons": planted.guard, "everything": every}
    domain = replace(planted.domain, hazard_t=facts, requests_t=requests)
    return before, freezing(planted.subject, domain, tried, gauge, Verdicts(before, None), 40, 0)


def test_freezing_the_planted_neurons_does_not_stop_fine_tuning(frozen: tuple[Reading, dict[str, Any]]) -> None:
    for way in ("all weights", "LoRA"):
        assert frozen[1][f"nothing; {way}"]["broken"]
        assert frozen[1][f"the planted neurons; {way}"]["broken"]
    shares = [frozen[1][f"{name}; LoRA"]["frozen"] for name in ("nothing", "the planted neurons", "everything")]
    assert shares == [0, pytest.approx(3 * len(GUARD) * HIDDEN / (3 * NEURONS * HIDDEN + 4 * HIDDEN**2)), 1]


def test_a_lora_around_everything_moves_nothing(frozen: tuple[Reading, dict[str, Any]]) -> None:
    before, tried = frozen
    found = tried["everything; LoRA"]
    assert not found["broken"] and not tried["everything; all weights"]["broken"]
    for key, value in before.as_dict().items():
        assert found[key] == value, key


def test_what_was_found_is_told_and_drawn(planted: Planted, found: Finding) -> None:
    assert "freezing was not put to the test" in found.summary, "one step of fine-tuning breaks nothing"
    assert [row[:2] for row in found.tables[1].rows] == [
        (name, way) for way in ("all weights", "LoRA") for name in ("nothing", "the weights found", "safety's top half")
    ]
    figures = json.loads(json.dumps(plain(found.figures)))
    record = {"name": "sparsity", "subject": "planted", "summary": found.summary, "meaning": "m", "figures": figures}
    left, right = draw({**record, "tables": [table.as_dict() for table in found.tables]}).axes
    assert len(left.lines) == 2 * len(figures["methods"])
    assert len(right.patches) == 2 * len(figures["freezing"])


def test_few_ranks_carry_it(found: Finding) -> None:
    method = found.figures["methods"]["ranks, 5 % spared"]
    assert not method["censored"]
    assert method["share"] <= 0.1
