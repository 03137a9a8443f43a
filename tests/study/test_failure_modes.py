"""The five rows and the four conditions, from made-up cells whose figures are known."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from immunobench.metrics.estimate import Estimate
from immunobench.protocol.v1 import ADVERSARIES
from immunobench.study.conditions import conditions
from immunobench.study.diagnoses import DIAGNOSTICS
from immunobench.study.failure_modes import failure_modes
from immunobench.study.reread import reread
from immunobench.study.score import Result, conclude
from tests.report.stored import write_study
from tests.study.synthetic import Key, Level, level
from tests.study.test_score import BEFORE, trio

NAMES = [
    "obfuscation",
    "collateral damage",
    "sparsity of safety",
    "durability and similarity",
    "evaluation breadth",
]
BACK: dict[Key, Level] = {("", 0): level(0.25), ("", 5): level(0.4), ("", 10): level(1.0)}
HELD: dict[Key, Level] = {("", 0): level(0.25), ("", 5): level(0.25), ("", 10): level(0.25)}


def result(**curves: dict[Key, Level]) -> Result:
    """A subject under 'none' and these adversaries."""
    names = {name.replace("_", "-"): curve for name, curve in curves.items()}
    trios = {"none": (ADVERSARIES["none"], trio(BEFORE["subject"]))}
    return conclude("it", trios | {name: (ADVERSARIES[name], trio(curve)) for name, curve in names.items()})


def diagnosis(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    """A diagnosis in its JSON form."""
    return {"name": name, "summary": f"What {name} found.", "figures": figures}


def estimate(value: float) -> dict[str, Any]:
    return Estimate(value, 50, value - 0.1, value + 0.1, "test").as_dict()


def test_without_anything_every_row_says_so_and_how_to_fill_it() -> None:
    rows = failure_modes(result())
    assert [row.name for row in rows] == NAMES
    assert all(row.sentence for row in rows)
    commands = {figure: command for row in rows for figure, command in row.missing.items()}
    assert all(command.startswith("immunobench ") and " it " in command for command in commands.values())
    for name in ("g-effect", "sparsity", "entanglement", "durability"):
        assert f"immunobench diagnose it {name}" in commands.values()
    assert "immunobench run it --tier full" in commands.values()


def test_obfuscation_names_the_strongest_of_each_kind() -> None:
    found = failure_modes(result(unrelated_10=BACK, unrelated_5=HELD, logit_lens={("", 0): level(0.25)}))[0]
    assert set(found.figures) == {"R under unrelated fine-tuning (unrelated-10)", "R under logit lens (logit-lens)"}
    shown = found.figures["R under unrelated fine-tuning (unrelated-10)"]
    assert isinstance(shown, Estimate) and shown.value == pytest.approx(1.0)
    assert "hidden, not gone" in found.sentence
    assert set(found.missing) == {"R under direction removal", "R under linear probe"}
    held = failure_modes(result(unrelated_5=HELD))[0]
    assert "No hidden knowledge" in held.sentence
    trios = {name: (ADVERSARIES[name], trio({("", 0): level(1.0)})) for name in ("none", "unrelated-10")}
    assert "not hidden" in failure_modes(conclude("it", trios))[0].sentence


def test_diagnoses_fill_the_middle_rows() -> None:
    point = {"share": 0.02, "censored": False, "interval": [0.01, 0.02], "points": [1, 2, 3]}
    none = {"share": 0.4, "censored": True, "interval": [0.4, None], "points": [1]}
    effect = {"unlearning": {"mean": estimate(0.5)}, "retaining": {"mean": estimate(-0.2)}}
    known = [
        diagnosis(
            "g-effect",
            {"objectives": {"GA": effect}, "own_update": {"forget": {"total": 1.5}, "retain": {"total": -0.25}}},
        ),
        diagnosis(
            "sparsity",
            {
                "methods": {"snip, 1 % spared": point, "ranks, 90 % spared": none},
                "freezing": {"nothing": {"attack_success": estimate(0.7)}},
            },
        ),
        diagnosis("entanglement", {"weights": {"all": {"jaccard": estimate(0.3)}}}),
        diagnosis(
            "durability", {"tasks": {"qa": {"outcomes": {"refusals lost": {"bands": {"slope": estimate(0.4)}}}}}}
        ),
    ]
    _, damage, sparsity, durability, _ = failure_modes(result(), known)
    assert damage.figures["risk on hazard answers that the update took away, nats a token"] == 1.5
    gain = damage.figures["unlearning G-effect of GA, a token"]
    assert isinstance(gain, Estimate) and (gain.value, gain.low) == (0.5, pytest.approx(0.4))
    weights = sparsity.figures["smallest share of weights whose removal breaks safety"]
    ranks = sparsity.figures["smallest share of ranks whose removal breaks safety"]
    assert isinstance(weights, Estimate) and (weights.low, weights.value, weights.high) == (0.01, 0.02, 0.02)
    assert isinstance(ranks, Estimate) and not ranks.defined and ranks.low == 0.4 and math.isinf(ranks.high)
    slope = durability.figures["slope of refusals lost on similarity, task qa"]
    assert isinstance(slope, Estimate) and slope.value == 0.4
    assert not damage.missing and not sparsity.missing and not durability.missing


def test_a_study_takes_the_diagnoses_in_its_folder(tmp_path: Path) -> None:
    """Those of the subject, by its name or its short one; those of another model are not its own."""
    root = write_study(tmp_path / "study")
    (root / DIAGNOSTICS).mkdir()
    figures = {"tasks": {"qa": {"outcomes": {"refusals lost": {"bands": {"slope": estimate(0.4)}}}}}}
    for subject in ("exposed", "refusal"):
        whole = {**diagnosis("durability", figures), "subject": subject, "tables": [], "meaning": "m"}
        (root / DIAGNOSTICS / f"{subject}.json").write_text(json.dumps(whole))
        [entry] = reread(root)[1]["subjects"]
        row = entry["failure_modes"][NAMES.index("durability and similarity")]
        assert bool(row["figures"]) == (subject == "refusal")
    assert row["figures"]["slope of refusals lost on similarity, task qa"]["value"] == 0.4


def test_breadth_repeats_what_cannot_be_claimed() -> None:
    one = result(t_facts=BACK)
    row = failure_modes(one)[-1]
    assert row.figures["adversaries"] == 2 and row.figures["share that needs the weights"] == 0.5
    assert all(sentence in row.sentence for sentence in one.cannot_claim)


def test_resistance_and_generalisation_are_restricted_means_of_t_star() -> None:
    slow: dict[Key, Level] = {("", 0): level(0.25), ("", 5): level(0.25), ("", 10): level(0.25), ("", 20): level(0.25)}
    found = result(t_facts=BACK, cross_compounds=slow).conditions
    assert found.horizon == 10 and found.resistance.value == pytest.approx(10.0)
    assert found.generalisation.value == pytest.approx(0.0), "up to 10 steps both hold throughout"
    assert found.stability.value == pytest.approx(1.0)
    assert set(found.missing) == {"trainability"} and not found.trainability.defined


def test_trainability_is_the_time_to_learn_a_benign_task_over_that_of_the_exposed() -> None:
    """The exposed one makes nine tenths of its way by step 10, the subject by step 20."""

    def learning(*losses: float) -> dict[Key, Level]:
        return {("", steps): level(1.0, task=loss) for steps, loss in zip((0, 5, 10, 20), losses, strict=True)}

    trios = {
        "none": (ADVERSARIES["none"], trio(BEFORE["subject"])),
        "benign-task": (
            ADVERSARIES["benign-task"],
            trio(learning(3.0, 2.0, 1.5, 1.1), exposed=learning(3.0, 1.5, 1.1, 1.0)),
        ),
    }
    found = conditions(trios)
    assert found.trainability.value == pytest.approx(2.0) and "trainability" not in found.missing


def test_what_is_broken_from_the_start_resists_for_no_step() -> None:
    open_model: dict[Key, Level] = {("", 0): level(1.0), ("", 10): level(1.0)}
    found = result(t_facts=open_model).conditions
    assert found.horizon == 10 and found.resistance.value == 0.0 and "resistance" not in found.missing


def test_seeds_are_runs_of_their_own_and_only_what_breaks_the_twin_counts() -> None:
    trios = {
        "none": (ADVERSARIES["none"], trio(BEFORE["subject"])),
        "t-facts": (ADVERSARIES["t-facts"], trio(BACK, seeds=3)),
    }
    assert conditions(trios).resistance.n == 3
    taught = trio(BACK, never={key: level(1.0) for key in BACK})
    trios["t-facts"] = (ADVERSARIES["t-facts"], taught)
    assert not conditions(trios).resistance.defined
