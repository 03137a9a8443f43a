"""Every defense runs, and what it is confined to stays so."""

from dataclasses import fields
from typing import Any

import pytest
import torch

from immunobench.defenses.base import all_defenses, load_defense, side_batches
from immunobench.defenses.confined import Entangled
from immunobench.defenses.misdirection import RepresentationMisdirection
from immunobench.defenses.refusal import refusal_pairs
from immunobench.domains import Domain, Example
from immunobench.errors import UsageError
from immunobench.structure import matrix_of
from immunobench.subjects import Subject
from tests.conftest import same_bits, weights

SMALL: dict[str, Any] = {
    "learning_rate": 1e-3,
    "steps": 2,
    "batch_size": 4,
    "warmup": 1,
    "layer": 1,
    "mapping_rate": 1e-3,
    "mapping_steps": 1,
    "outer_steps": 1,
    "inner_steps": 4,
    "every": 2,
}


@pytest.mark.parametrize("name", sorted(all_defenses()))
def test_two_steps_change_the_weights_finitely(name: str, subject: Subject, domain: Domain) -> None:
    kind = all_defenses()[name]
    defense = kind(**{f.name: SMALL[f.name] for f in fields(kind) if f.name in SMALL})
    before = weights(subject.model)
    steps = list(defense.immunise(subject, domain, seed=0))
    assert [s.step for s in steps] == [0, 1, 2] and defense.steps == 2
    assert steps[2].examples > steps[1].examples > 0 and steps[2].tokens > steps[1].tokens
    after = weights(subject.model)
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not same_bits(before, after)
    assert not any(module._forward_hooks for module in subject.model.modules())


@pytest.mark.parametrize("name", ["dpo", "npo", "repnoise", "tar"])
def test_the_seed_decides(name: str, make_subject: Any, domain: Domain) -> None:
    kind = all_defenses()[name]
    defense = kind(**{f.name: SMALL[f.name] for f in fields(kind) if f.name in SMALL})

    def defended(seed: int) -> dict[str, torch.Tensor]:
        subject = make_subject()
        list(defense.immunise(subject, domain, seed))
        return weights(subject.model)

    first = defended(0)
    torch.rand(3)
    assert same_bits(first, defended(0)) and not same_bits(first, defended(1))


def test_misdirection_trains_three_mlp_outputs_up_to_its_layer(subject: Subject, domain: Domain) -> None:
    before = weights(subject.model)
    list(RepresentationMisdirection(1e-3, 1, 4, layer=0).immunise(subject, domain, 0))
    moved = {name for name, value in weights(subject.model).items() if not torch.equal(value, before[name])}
    assert moved == {"model.layers.0.mlp.down_proj.weight"}
    with pytest.raises(UsageError, match="blocks 0 to 1: give --set layer"):
        next(RepresentationMisdirection().immunise(subject, domain, 0))


def test_entangled_safety_lies_in_its_share_of_every_linear(subject: Subject, domain: Domain) -> None:
    linears = subject.structure.linears
    before = {name: matrix_of(m).detach().clone() for name, m in linears.items()}
    rest = {name: v for name, v in weights(subject.model).items() if name.removesuffix(".weight") not in linears}
    list(Entangled(1e-3, 2, 8, share=0.25).immunise(subject, domain, 0))
    for name, module in linears.items():
        assert (matrix_of(module).detach() != before[name]).float().mean() == pytest.approx(0.25, abs=0.01)
    after = weights(subject.model)
    assert all(torch.equal(after[name], value) for name, value in rest.items())


def test_sides_that_belong_together_stay_together(subject: Subject, domain: Domain) -> None:
    refusals, answers = zip(*refusal_pairs(domain), strict=True)
    assert all(a.prompt == b.prompt and a.response != b.response for a, b in zip(refusals, answers, strict=True))
    data = {"other": domain.unrelated[:7], "refusals": refusals, "answers": answers}
    batches = side_batches(subject, data, 5, seed=0, aligned=("refusals", "answers"))
    renderer = subject.renderer

    def text(example: Example) -> tuple[int, ...]:
        rendered = renderer.example(example)
        return tuple(rendered.prompt + rendered.response)

    pairs = {(text(r), text(a)) for r, a in zip(refusals, answers, strict=True)}
    for _ in range(2 * len(refusals) // 5):
        sides = next(batches)
        assert sides.examples == sum(sides[name].examples for name in data)
        found = [
            [tuple(row[mask.bool()].tolist()) for row, mask in zip(side.ids, side.mask, strict=True)]
            for side in (sides["refusals"], sides["answers"])
        ]
        assert set(zip(*found, strict=True)) <= pairs


def test_settings_reach_a_defense() -> None:
    defense: Any = load_defense("tar", ["adversary_rates=1e-3,3e-3", "inner_steps=8"])
    assert defense.adversary_rates == (1e-3, 3e-3) and defense.inner_steps == 8
    with pytest.raises(UsageError, match="takes no such value"):
        load_defense("npo", ["beta=high"])
    with pytest.raises(UsageError, match="did you mean 'beta'"):
        load_defense("npo", ["bta=1"])


def test_the_name_of_its_organism_leads_to_a_defense() -> None:
    for name, short in (("gradient-ascent", "ga"), ("negative-preference", "npo"), ("refusl", "refusal")):
        with pytest.raises(UsageError, match=f"unknown defense '{name}': did you mean '{short}'?"):
            load_defense(name)
