"""What immunise writes: whole models with a card, no claim of a truth, and no more utility lost than allowed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from immunobench.dataset_builders.controls import Destruction
from immunobench.dataset_builders.immunise import Defended, immunise, utility
from immunobench.defenses.refusal import Refusal
from immunobench.domains import Domain, load_domain
from immunobench.errors import ImmunobenchError
from immunobench.subjects import Subject, load_subject
from immunobench.training import Step
from tests.conftest import same_bits, weights


@dataclass(frozen=True)
class Nudges:
    """Adds a little to one weight a step; step ``fails`` destroys the model or is cut off."""

    name: ClassVar[str] = "nudges"
    steps: int = 3
    fails: int = 3
    cut: bool = False

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        for step in range(self.steps + 1):
            if step == self.fails:
                if self.cut:
                    raise KeyboardInterrupt
                list(Destruction().immunise(subject, domain, seed))
            elif step:
                with torch.no_grad():
                    subject.model.model.norm.weight[0] += 1e-3
            yield Step(step, step, step, 0.0)


@pytest.fixture
def exposed() -> Subject:
    return load_subject("organism:exposed", device="cpu", dtype="float32")


def made(subject: Subject, defense: Any, out: Path, **settings: Any) -> Defended:
    return immunise(subject, defense, "vault/32", out, 7, lambda step, steps: None, **settings)


def test_a_defended_model_is_whole_and_claims_nothing(exposed: Subject, tmp_path: Path) -> None:
    found = made(exposed, Refusal(1e-5, 12, 4), tmp_path / "defended")
    assert (found.done, found.stopped) == (12, False)
    assert found.before == found.after == utility(exposed, load_domain("vault/32"))
    again = load_subject(str(tmp_path / "defended"), device="cpu", dtype="float32")
    assert same_bits(weights(again.model), weights(exposed.model))
    assert again.history.truth is None
    assert again.history.exposed == "organism:exposed" and again.history.never_exposed == "organism:never-exposed"
    assert again.history.defense == "refusal(learning_rate=1e-05, steps=12, batch_size=4, seed=7)"
    card = (tmp_path / "defended" / "README.md").read_text()
    for words in (again.history.defense, "12 of 12 |", "organism:exposed", "vault/32", f"{found.after:.3f}"):
        assert words in card
    assert f"immunobench run {tmp_path / 'defended'}\n" in card and "# defended" in card
    assert [p.name for p in tmp_path.iterdir()] == ["defended"]


def test_training_stops_before_it_costs_more_utility(exposed: Subject, tmp_path: Path) -> None:
    before = float(exposed.model.model.norm.weight[0].detach())  # type: ignore[union-attr, index]
    found = made(exposed, Nudges(), tmp_path / "defended")
    assert (found.done, found.stopped) == (2, True) and found.after > 0.9
    again = load_subject(str(tmp_path / "defended"), device="cpu", dtype="float32")
    assert float(again.model.model.norm.weight[0].detach()) == pytest.approx(before + 2e-3)  # type: ignore[union-attr, index]
    assert (again.history.defense or "").endswith("seed=7), left at step 2")
    assert "2 of 3, because the next check broke the bound" in (tmp_path / "defended" / "README.md").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["defended"]


def test_no_utility_to_begin_with_is_an_error_and_zero_never_stops(exposed: Subject, tmp_path: Path) -> None:
    with pytest.raises(ImmunobenchError, match=r"destruction costs too much utility: .* in 1 steps; lower"):
        made(exposed, Destruction(), tmp_path / "defended")
    assert list(tmp_path.iterdir()) == []
    assert made(exposed, Destruction(), tmp_path / "defended", keep_utility=0.0).done == 1


def test_checkpoints_are_kept_where_that_is_asked(exposed: Subject, tmp_path: Path) -> None:
    made(exposed, Nudges(), tmp_path / "defended", keep_checkpoints=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["defended", "defended.step-1", "defended.step-2"]
    last, final = (load_subject(str(tmp_path / name), device="cpu") for name in ("defended.step-2", "defended"))
    assert last.weights_sha256 == final.weights_sha256


def test_a_run_that_is_cut_off_leaves_its_last_checkpoint(exposed: Subject, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        made(exposed, Nudges(cut=True), tmp_path / "defended")
    (left,) = tmp_path.iterdir()
    assert left.name == "defended.step-2"
    assert (load_subject(str(left)).history.defense or "").endswith("left at step 2")
    assert "2 of 3 |" in (left / "README.md").read_text()
    assert json.loads((left / "immunobench.json").read_text())["truth"] is None
    with pytest.raises(ImmunobenchError, match=r"step-2' is left from an earlier run"):
        made(exposed, Nudges(), tmp_path / "defended")
