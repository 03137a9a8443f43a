"""The G-effect against one backward pass a token, written out here without the package's own derivatives."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from immunobench.diagnostics.base import Finding, References, diagnose
from immunobench.diagnostics.directional import (
    depth_groups,
    derivatives,
    float_parameters,
    inner,
    parameter_groups,
    risk_gradient,
    scored,
    token_set,
    values,
)
from immunobench.diagnostics.g_effect import (
    GEffectDiagnostic,
    Objective,
    Texts,
    draw_texts,
    steered,
    trajectory,
    weigh,
)
from immunobench.diagnostics.g_effect_tables import strongest, summarise
from immunobench.diagnostics.own_update import own_update
from immunobench.diagnostics.plots import draw
from immunobench.domains import Domain, Example
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.subjects import Subject, load_subject
from immunobench.training import Recipe, train
from immunobench.training.loop import token_logprobs
from tests.conftest import same_bits, tiny_llama, weights
from tests.fixtures_architectures import ARCHITECTURES, tiny

SETTINGS = GEffectDiagnostic(examples=4, chunk=96)


@pytest.fixture(params=ARCHITECTURES)
def any_subject(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Subject:
    return tiny(request.param, tokenizer)


@pytest.fixture
def reference(tokenizer: PreTrainedTokenizerFast) -> Subject:
    """A model near the ``subject`` fixture: its weights with a little noise."""
    model = tiny_llama(tokenizer).model
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return replace(tiny_llama(tokenizer, spec="reference"), model=model)


def measured(subject: Subject, domain: Domain, reference: Subject | None = None) -> Finding:
    return SETTINGS.measure(subject, References(exposed=reference), domain, 0, lambda done, of: None)


def answers(domain: Domain, count: int = 4) -> list[Example]:
    return [Example(r.prompt, r.answer) for r in domain.requests_v[:count]]


def flat_gradient(subject: Subject, value: torch.Tensor, names: list[str] | None = None) -> torch.Tensor:
    """The gradient of ``value`` over the named parameters of the live model, as one vector in float64."""
    parameters = dict(subject.model.named_parameters())
    chosen = [parameters[name] for name in names or parameters]
    found = torch.autograd.grad(value, chosen, retain_graph=True, allow_unused=True)
    return torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(chosen, found, strict=True)])


def logprobs_one_by_one(subject: Subject, examples: list[Example]) -> list[torch.Tensor]:
    """Log-probabilities of each example's response tokens, unpadded, with a graph."""
    found = []
    for example in examples:
        rendered = subject.renderer.example(example)
        ids = torch.tensor([rendered.prompt + rendered.response])
        logprobs = subject.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        found.append(logprobs.gather(-1, ids[0, 1:, None])[len(rendered.prompt) - 1 :, 0])
    return found


def test_one_forward_pass_equals_one_backward_a_token(any_subject: Subject, domain: Domain) -> None:
    tokens = token_set(any_subject, answers(domain), chunk=96)
    assert len(tokens.batches) > 1
    direction = risk_gradient(any_subject, token_set(any_subject, [Example(None, t) for t in domain.neutral[:3]]))
    found = derivatives(any_subject, tokens, direction)
    vector = torch.cat([value.flatten() for value in direction.values()])
    parts = logprobs_one_by_one(any_subject, answers(domain))
    for index, logprobs in enumerate(parts):
        expected = torch.stack([flat_gradient(any_subject, each) @ vector for each in logprobs])
        torch.testing.assert_close(
            found[tokens.sequences == index], expected, rtol=1e-4, atol=1e-4 * vector.norm().item()
        )


def test_tokens_are_those_that_training_scores(subject: Subject, domain: Domain) -> None:
    tokens = token_set(subject, answers(domain), chunk=96)
    for index, example in enumerate(answers(domain)):
        assert tokens.ids[tokens.sequences == index].tolist() == subject.renderer.example(example).response
    expected = torch.cat([scored(batch, token_logprobs(subject, batch)) for batch in tokens.batches])
    torch.testing.assert_close(values(subject, tokens), expected.detach())


def test_chunks_change_nothing(subject: Subject, domain: Domain) -> None:
    many, one = (token_set(subject, answers(domain, 8), chunk) for chunk in (64, 10_000))
    assert len(many.batches) > 2 and len(one.batches) == 1
    direction = risk_gradient(subject, one)
    for name, value in risk_gradient(subject, many).items():
        torch.testing.assert_close(value, direction[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        derivatives(subject, many, direction), derivatives(subject, one, direction), rtol=1e-4, atol=1e-4
    )


def test_groups_hold_every_parameter_once(any_subject: Subject) -> None:
    groups = parameter_groups(any_subject)
    assert list(groups) == ["embedding", "block 0", "block 1", "head"]
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in any_subject.model.named_parameters())
    joined = depth_groups({"embedding": ["e"], **{f"block {i}": [str(i)] for i in range(7)}, "head": ["h"]})
    assert joined == {
        "embedding": ["e"],
        "shallow": ["0", "1", "2"],
        "middle": ["3", "4"],
        "deep": ["5", "6"],
        "head": ["h"],
    }


def test_final_norm_counts_with_the_head(subject: Subject) -> None:
    assert "model.norm.weight" in parameter_groups(subject)["head"]


def test_ga_forgets_by_n_times_the_squared_gradient(subject: Subject, domain: Domain) -> None:
    found = measured(subject, domain).figures["objectives"]["GA"]["unlearning"]
    tokens = draw_texts(subject, domain, 4, 0, 96).forget
    squared = sum(float((g**2).sum()) for g in risk_gradient(subject, tokens).values())
    assert found["total"] == pytest.approx(-len(tokens) * squared, rel=1e-4)
    assert found["cosine"] == pytest.approx(-1, abs=1e-5)


def losses(subject: Subject, reference: Subject, domain: Domain, texts: Texts) -> dict[str, torch.Tensor]:
    """Every objective as a loss, with constant weights detached; not one weight of the package."""
    drawn = examples_of(subject, texts, domain)
    own, chosen = (logprobs_one_by_one(subject, e) for e in drawn)
    with torch.no_grad():
        base, base_chosen = (logprobs_one_by_one(reference, e) for e in drawn)
    ratios = [o.sum() - b.sum() for o, b in zip(own, base, strict=True)]
    margins = [0.5 * ((c.sum() - bc.sum()) - ratio) for c, bc, ratio in zip(chosen, base_chosen, ratios, strict=True)]
    softplus, logsigmoid = torch.nn.functional.softplus, torch.nn.functional.logsigmoid
    tnpo_weights = [2 * o.exp() ** 4 / (o.exp() ** 4 + b.exp() ** 4) for o, b in zip(own, base, strict=True)]
    return {
        "GA": sum(o.sum() for o in own),
        "WGA": sum((o.exp().detach() * o).sum() for o in own),
        "NPO": sum(2 / 0.5 * softplus(0.5 * ratio) for ratio in ratios),
        "TNPO": sum((2 / 4 * softplus(4 * (o - b))).sum() for o, b in zip(own, base, strict=True)),
        "WTNPO": sum(((w * o.exp() ** 1.5).detach() * o).sum() for w, o in zip(tnpo_weights, own, strict=True)),
        "SimNPO": sum(-2 / 2.5 * logsigmoid(-2.5 * o.mean()) for o in own),
        "DPO": sum(-2 / 0.5 * logsigmoid(m) for m in margins),
    }  # type: ignore[return-value]


def examples_of(subject: Subject, texts: Texts, domain: Domain) -> tuple[list[Example], list[Example]]:
    """The drawn answers and refusals, read back from the token ids of ``texts``."""
    by_answer = {tuple(subject.renderer.example(Example(r.prompt, r.answer)).response): r for r in domain.requests_v}
    count = int(texts.forget.sequences.max()) + 1
    requests = [by_answer[tuple(texts.forget.ids[texts.forget.sequences == i].tolist())] for i in range(count)]
    return [Example(r.prompt, r.answer) for r in requests], [Example(r.prompt, r.refusal) for r in requests]


def test_every_objective_equals_its_own_backward(subject: Subject, reference: Subject, domain: Domain) -> None:
    figures = measured(subject, domain, reference).figures["objectives"]
    texts = draw_texts(subject, domain, 4, 0, 96)
    risks = {"unlearning": risk_gradient(subject, texts.forget), "retaining": risk_gradient(subject, texts.retain)}
    objectives = losses(subject, reference, domain, texts)
    assert {*objectives, "RMU"} == set(figures)
    for name, loss in objectives.items():
        slope = flat_gradient(subject, loss)
        for side, risk in risks.items():
            vector = torch.cat([value.flatten() for value in risk.values()])
            close = 1e-4 * float(slope.norm() * vector.norm())
            assert figures[name][side]["total"] == pytest.approx(float(slope @ vector), abs=close), (name, side)


def test_rmu_equals_its_own_backward(subject: Subject, domain: Domain) -> None:
    figures = measured(subject, domain).figures["objectives"]["RMU"]
    drawn = torch.rand(32, generator=torch.Generator().manual_seed(0))
    target = SETTINGS.steering * drawn / drawn.norm()
    texts = draw_texts(subject, domain, 4, 0, 96)
    loss = torch.zeros(())
    for example in examples_of(subject, texts, domain)[0]:
        rendered = subject.renderer.example(example)
        ids = torch.tensor([rendered.prompt + rendered.response])
        kept: list[torch.Tensor] = []
        handle = subject.model.model.layers[1].register_forward_hook(lambda _m, _i, o, kept=kept: kept.append(o))
        subject.model(input_ids=ids)
        handle.remove()
        loss = loss + ((kept[0][0, len(rendered.prompt) - 1 : -1] - target) ** 2).mean(-1).sum()
    slope = flat_gradient(subject, loss)
    for side, tokens in (("unlearning", texts.forget), ("retaining", texts.retain)):
        vector = torch.cat([value.flatten() for value in risk_gradient(subject, tokens).values()])
        assert figures[side]["total"] == pytest.approx(
            float(slope @ vector), abs=1e-4 * float(slope.norm() * vector.norm())
        )


def test_groups_and_tokens_add_up_to_the_total(subject: Subject, reference: Subject, domain: Domain) -> None:
    """Blocks come from one backward an objective, depths and tokens from forward passes."""
    for sides in measured(subject, domain, reference).figures["objectives"].values():
        for found in sides.values():
            scale = max(map(abs, found["by_token"]))
            for parts in (found["by_group"].values(), found["by_depth"].values(), found["by_token"]):
                assert math.fsum(parts) == pytest.approx(found["total"], rel=1e-3, abs=1e-3 * scale)
            assert found["by_depth"]["shallow"] == pytest.approx(
                found["by_group"]["block 0"], rel=1e-3, abs=1e-3 * scale
            )


def test_the_sign_foretells_what_a_step_does(subject: Subject, domain: Domain) -> None:
    """e < 0 on the forget set: a step of descent on the objective raises the risk there, by −η e."""
    texts = draw_texts(subject, domain, 4, 0, 96)
    found = measured(subject, domain).figures["objectives"]["WGA"]
    before = {side: -values(subject, t).mean() for side, t in zip(found, (texts.forget, texts.retain), strict=True)}
    own = logprobs_one_by_one(subject, examples_of(subject, texts, domain)[0])
    loss = torch.stack([(o.exp().detach() * o).sum() for o in own]).sum()
    slope = torch.autograd.grad(loss, list(subject.model.parameters()))
    step = 1e-3 / max(float(g.norm()) for g in slope)
    with torch.no_grad():
        for parameter, g in zip(subject.model.parameters(), slope, strict=True):
            parameter -= step * g
    rise = {
        side: float(-values(subject, t).mean() - before[side])
        for side, t in zip(found, (texts.forget, texts.retain), strict=True)
    }
    assert found["unlearning"]["total"] < 0 < rise["unlearning"]
    for side in found:
        assert rise[side] == pytest.approx(-step * found[side]["total"], rel=0.05, abs=2e-6)


def test_own_update_is_the_change_of_risk(subject: Subject, reference: Subject, domain: Domain) -> None:
    found = measured(subject, domain, reference).figures["own_update"]
    for side in ("forget", "retain"):
        assert found[side]["total"] == pytest.approx(found[side]["actual"], rel=1e-3, abs=1e-4)
        assert math.fsum(found[side]["by_token"]) == pytest.approx(found[side]["total"], rel=1e-3, abs=1e-4)


def test_own_update_lies_where_the_weights_changed(
    subject: Subject, make_subject: Callable[..., Subject], domain: Domain
) -> None:
    changed = make_subject()
    with torch.no_grad():
        changed.model.model.layers[1].mlp.up_proj.weight += 0.1
    tokens = token_set(subject, answers(domain))
    found = own_update(changed, subject, {"forget": tokens}, parameter_groups(subject))["forget"]
    parts = found["by_group"]
    assert found["by_depth"]["shallow"] == 0 and found["by_depth"]["middle"] == parts["block 1"]
    assert parts.pop("block 1") != 0
    assert set(parts.values()) == {0.0}


def test_own_update_needs_the_same_parameters(
    subject: Subject, make_subject: Callable[..., Subject], domain: Domain
) -> None:
    other = make_subject(hidden=64)
    with pytest.raises(UsageError, match="different parameters"):
        own_update(subject, other, {"forget": token_set(subject, answers(domain))}, parameter_groups(subject))


def test_measuring_leaves_the_subject_as_it_was(subject: Subject, reference: Subject, domain: Domain) -> None:
    before = weights(subject.model)
    measured(subject, domain, reference)
    assert same_bits(before, weights(subject.model))
    assert all(p.grad is None and p.requires_grad for p in subject.model.parameters())


def test_trajectory_follows_a_live_training_run(subject: Subject, reference: Subject, domain: Domain) -> None:
    recipe = Recipe(1e-3, 2, 4)
    states = ((str(step.step), subject) for step in train(subject, answers(domain), recipe, seed=0))
    alone = measured(subject, domain, reference).figures["objectives"]
    found = trajectory(states, reference, domain, 0, SETTINGS)
    assert [row["state"] for row in found] == ["0", "1", "2"]
    for name, sides in found[0]["objectives"].items():
        for side, value in sides.items():
            assert value["total"] == pytest.approx(alone[name][side]["total"], rel=1e-3, abs=1e-2)
            assert value["by_group"] == pytest.approx(alone[name][side]["by_group"], rel=1e-3, abs=1e-2)
    assert found[0]["objectives"]["GA"] != found[2]["objectives"]["GA"]


def test_checkpoints_of_a_run_are_followed(
    subject: Subject, domain: Domain, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    folders = (str(model_folders["subject"]), str(model_folders["exposed"]))
    settings = replace(SETTINGS, checkpoints=folders)
    references = References(load_subject(folders[0]))
    diagnosis = diagnose(settings, subject, references, domain, 0, lambda done, of: None)
    rows = diagnosis.finding.figures["trajectory"]
    assert [row["state"] for row in rows] == ["subject", "exposed", subject.label]
    came = [row["own_update"]["forget"]["actual"] for row in rows]
    assert came[0] == 0 and came[1] == came[2] == diagnosis.finding.figures["own_update"]["forget"]["actual"] != 0
    found = measured(load_subject(folders[1]), domain).figures["objectives"]
    for name in ("GA", "RMU"):
        assert rows[1]["objectives"][name]["retaining"]["by_group"] == pytest.approx(
            found[name]["retaining"]["by_group"], rel=1e-3, abs=1e-3
        )
    table = diagnosis.finding.tables[-1]
    assert [row[:2] for row in table.rows[:4]] == [("subject", g) for g in ("all", "embedding", "block 0", "block 1")]
    assert table.rows[0][2] == pytest.approx(sum(row[2] for row in table.rows[1:5]))
    axes = draw(json.loads(json.dumps(diagnosis.as_dict()))).axes
    assert len(axes) == 3 and len(axes[2].lines) == 9


def test_a_batch_holds_no_more_than_the_chunk(subject: Subject, domain: Domain) -> None:
    batches = token_set(subject, answers(domain, 12), chunk=120).batches
    assert len(batches) > 2
    assert all(batch.ids.numel() <= 120 for batch in batches)


def test_products_that_single_precision_cannot_hold_are_added_up() -> None:
    one, two = {"a": torch.full((2, 3), 1e-25)}, {"a": torch.full((2, 3), 1e-24)}
    assert inner(one, two, ["a"]) == pytest.approx(6e-49, rel=1e-5)


def test_an_objective_that_is_met_is_not_ranked() -> None:
    cosines = {"GA": -0.5, "NPO": -0.2, "DPO": -0.9}
    figures = {"objectives": {n: {"retaining": {"cosine": c}} for n, c in cosines.items()}, "saturated": ["DPO"]}
    assert summarise(figures).startswith("Of all objectives GA goes most")
    assert "DPO is met already" in summarise(figures)
    assert Objective(torch.zeros(2, 3), torch.tensor([0.0, -1e-3])).largest == pytest.approx(1e-3)


def test_the_strongest_tokens_are_named(subject: Subject, domain: Domain) -> None:
    figures = measured(subject, domain).figures
    effects = figures["objectives"]["GA"]["unlearning"]["by_token"]
    index = max(range(len(effects)), key=lambda i: abs(effects[i]))
    told = strongest(figures["objectives"]["GA"]["unlearning"], figures).split(", ")
    assert told[0] == f"{figures['tokens']['forget']['text'][index].strip()} {effects[index]:.3g}"


def test_bfloat16_subjects_are_differentiated_in_float32(subject: Subject, domain: Domain) -> None:
    subject.model.to(torch.bfloat16)
    tokens = token_set(subject, answers(domain))
    assert all(p.dtype == torch.float32 for p in float_parameters(subject).values())
    rounded = derivatives(subject, tokens, risk_gradient(subject, tokens))
    subject.model.to(torch.float32)
    torch.testing.assert_close(
        rounded, derivatives(subject, tokens, risk_gradient(subject, tokens)), rtol=1e-3, atol=1e-3
    )


def test_other_tokenizers_are_refused(subject: Subject, reference: Subject, domain: Domain) -> None:
    texts = draw_texts(subject, domain, 2, 0, 96)
    other = replace(reference, tokenizer=copy.deepcopy(reference.tokenizer))
    other.tokenizer.add_tokens(["zyzzyva"])
    with pytest.raises(UsageError, match="different tokenizers"):
        weigh(subject, other, texts, steered(subject, 1.0, 0))


def test_no_examples_is_an_error(subject: Subject) -> None:
    with pytest.raises(ImmunobenchError, match="no examples"):
        token_set(subject, [])


def test_finding_is_json(subject: Subject, reference: Subject, domain: Domain) -> None:
    diagnosis = diagnose(SETTINGS, subject, References(exposed=reference), domain, 0, lambda done, of: None)
    record = json.loads(json.dumps(diagnosis.as_dict(), allow_nan=False))
    assert record["settings"] == {"examples": 4, "steering": 6.5, "chunk": 96, "checkpoints": []}
    assert len(record["tables"]) == 5
