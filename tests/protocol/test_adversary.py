"""The identity of an adversary, and the table of the tiers."""

import json
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunobench.attacks.base import Budget, load_attack
from immunobench.errors import UsageError
from immunobench.protocol.adversary import Adversary, adversary_from, fingerprint
from immunobench.protocol.v1 import ADVERSARIES, FAMILIES, SEEDS, TIERS, VERSION, adversaries

SETTINGS = {"data": "benign", "learning_rates": (1e-3,)}
TUNED = Adversary("tuned", "training", "immunobench.attacks.training.FineTune", "a paper", SETTINGS)


def other_than(value: Any) -> Any:
    """A value of a setting that differs from ``value``."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, tuple):
        return (*value, value[0])
    assert value is None
    return 7


def test_every_hyper_parameter_changes_the_identity() -> None:
    for adversary in ADVERSARIES.values():
        known = {fingerprint(adversary.identity())}
        for setting in fields(adversary.instance):  # type: ignore[arg-type]
            changed = {**adversary.settings, setting.name: other_than(getattr(adversary.instance, setting.name))}
            known.add(fingerprint(replace(adversary, settings=changed).identity()))
        known.add(fingerprint(replace(adversary, budget=Budget(adversary.budget.steps + 1)).identity()))
        known.add(fingerprint(replace(adversary, name="other").identity()))
        assert len(known) == len(fields(adversary.instance)) + 3  # type: ignore[arg-type]


def test_a_default_said_aloud_is_the_same_adversary() -> None:
    aloud = replace(TUNED, settings={**TUNED.settings, "batch_size": 16, "rank": None})
    assert fingerprint(aloud.identity()) == fingerprint(TUNED.identity())


def test_what_cannot_change_the_outcome_is_not_in_the_identity() -> None:
    assert replace(TUNED, source="another paper", family="weights").identity() == TUNED.identity()


ATTACK = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from immunobench.attacks.baseline import NoAttack

@dataclass(frozen=True)
class Mine(NoAttack):
    strength: float = {strength}
"""


def test_an_attack_from_a_file_is_known_by_its_text(tmp_path: Path) -> None:
    """The same path with other code is another adversary: a cell of the old code must not stand for the new."""
    file = tmp_path / "mine.py"

    def identity(text: str) -> str:
        file.write_text(text)
        return fingerprint(Adversary("mine", "prompt", f"{file}:Mine", "me").identity())

    first = identity(ATTACK.format(strength=1))
    assert first == identity(ATTACK.format(strength=1))
    assert first != identity(ATTACK.format(strength=1) + "# other code\n")


def test_an_adversary_can_be_sent_to_another_process() -> None:
    adversary = ADVERSARIES["t-facts"]
    assert adversary.instance is adversary.instance
    sent = pickle.loads(pickle.dumps(adversary))
    assert sent == adversary and "instance" not in vars(sent) and sent.identity() == adversary.identity()


def test_every_row_comes_back_from_what_is_stored_of_it() -> None:
    for row in ADVERSARIES.values():
        stored = json.loads(json.dumps(row.identity()))
        again = adversary_from(stored, row.family, row.source)
        assert again.instance == row.instance and again.budget == row.budget
        assert json.loads(json.dumps(again.identity())) == stored


def test_how_a_winner_was_searched_for_is_part_of_what_it_is() -> None:
    found = [replace(TUNED, search=search) for search in (None, {"trials": 20}, {"trials": 60})]
    assert len({fingerprint(row.identity()) for row in found}) == 3


def test_unknown_attacks_and_settings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unexpected keyword argument 'learning_rat'"):
        _ = Adversary("a", "training", TUNED.attack, "", {"learning_rat": 1.0}).instance
    with pytest.raises(UsageError, match="did you mean 'FineTune'"):
        load_attack("immunobench.attacks.training.Finetune")
    with pytest.raises(UsageError, match=r"no module 'immunobench\.attacks\.trainin'"):
        load_attack("immunobench.attacks.trainin.FineTune")
    with pytest.raises(UsageError, match=r"no file '.*nothing\.py'"):
        load_attack(f"{tmp_path}/nothing.py:Mine")
    (tmp_path / "mine.py").write_text(ATTACK.format(strength=1))
    with pytest.raises(UsageError, match="unknown attack 'Yours'"):
        load_attack(f"{tmp_path}/mine.py:Yours")


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists, max_leaves=4)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(identity: dict[str, Any]) -> None:
    turned = dict(reversed(identity.items()))
    assert fingerprint(identity) == fingerprint(turned)
    assert len(fingerprint(identity)) == 16
    assert fingerprint({**identity, "more": 1}) != fingerprint(identity)


def test_a_fingerprint_is_of_exact_values() -> None:
    assert fingerprint({"lr": 0.1}) != fingerprint({"lr": 0.1 + 1e-17 * 2})
    assert fingerprint({"lr": 1}) != fingerprint({"lr": "1"})
    with pytest.raises(ValueError, match="Out of range float values"):
        fingerprint({"lr": float("nan")})


def test_tiers() -> None:
    for tier in TIERS:
        rows = adversaries(tier)
        assert rows[0].name == "none"
        assert [row.name for row in rows] == list(dict.fromkeys(row.name for row in rows))
        assert set(TIERS["smoke"]) <= set(TIERS["quick"])
    assert [row.name for row in adversaries("smoke", ["t-facts"])] == ["none", "t-facts"]
    with pytest.raises(UsageError, match="did you mean 'smoke'"):
        adversaries("smoky")
    with pytest.raises(UsageError, match="did you mean 'prefill'"):
        adversaries("smoke", ["prefil"])


GOLDEN = Path(__file__).parent / "golden_v1.json"


def test_the_identity_of_every_row_is_pinned() -> None:
    """A row that changes makes another protocol: raise VERSION and write a new golden file for it."""
    found = json.loads(json.dumps({name: row.identity() for name, row in ADVERSARIES.items()}))
    assert VERSION == "1"
    assert found == json.loads(GOLDEN.read_text())


def test_families_sources_and_tiers_are_pinned() -> None:
    """They decide what a verdict asks for, which no cell's identity says."""
    found = {
        "rows": {name: [row.family, row.source] for name, row in ADVERSARIES.items()},
        "tiers": {tier: list(names) for tier, names in TIERS.items()},
        "seeds": SEEDS,
    }
    assert found == json.loads((GOLDEN.parent / "golden_v1_tiers.json").read_text())


TRAINING = [row for row in ADVERSARIES.values() if row.access == "training" and hasattr(row.instance, "data")]


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("data", {"t-facts", "benign", "retain-then-forget", "t-facts/compounds", "benign-with-hazard"}),
        ("optimizer", {"adamw", "sgd-nesterov", "adadelta", "schedule-free-adamw", "lion"}),
        ("schedule", {"constant", "linear-warmup", "cosine", "sgdr"}),
        ("batch_size", {4, 16, 32, 64}),
        ("rank", {None, 16}),
    ],
)
def test_the_table_spans_what_tampering_benchmarks_vary(setting: str, values: set[Any]) -> None:
    """TAR (arXiv 2408.00761) varies data, optimizer, schedule, batch size, learning rate, steps and LoRA."""
    assert values <= {getattr(row.instance, setting) for row in TRAINING}


def test_the_table_spans_rates_steps_and_families() -> None:
    assert len(ADVERSARIES) >= 40
    assert max(row.budget.steps for row in TRAINING) >= 500
    chosen = [row.instance.learning_rates for row in TRAINING if row.instance.trial_steps]  # type: ignore[attr-defined]
    assert chosen and all(max(rates) / min(rates) == pytest.approx(1000) for rates in chosen)
    assert {row.family for row in ADVERSARIES.values()} | {"adaptive"} == set(FAMILIES)
    assert TIERS["full"] == TIERS["standard"] == tuple(ADVERSARIES)


def test_every_row_can_run_and_says_where_it_comes_from() -> None:
    for row in ADVERSARIES.values():
        outline = row.instance.outline(row.budget)
        assert outline.points >= outline.variants >= 1
        assert row.access in ("prompt", "decoding", "activations", "weights", "training")
        assert row.source
        assert row.budget.steps > 0 or row.access != "training", row.name
