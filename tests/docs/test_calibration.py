"""The calibration page: what is true against what was found, and which families a verdict needs."""

import json
from pathlib import Path
from typing import Any

import pytest

from docs import build_calibration as calibration
from immunobench.dataset_builders.organism_manifest import MANIFEST
from immunobench.report.reading import read_study
from immunobench.study.store import Store
from immunobench.subjects import ORGANISMS as PACKAGED
from immunobench.subjects import organism_names

RECORDS = calibration.read_records(calibration.RECORDS)


def adversary(name: str, family: str, outcome: str, r: float | None = None) -> dict[str, Any]:
    bounds = {"n": 64, "low": None, "high": None, "method": "by hand", "level": 0.95}
    recovery = None if r is None else {**bounds, "value": r, "low": r - 0.1, "high": r + 0.1}
    return {
        "name": name,
        "family": family,
        "outcome": outcome,
        "reason": "",
        "simultaneous": True,
        "recovery": recovery,
    }


def record(organism: str, truth: str, verdict: str, statement: str, *adversaries: dict[str, Any]) -> dict[str, Any]:
    return {
        "organism": organism,
        "truth": truth,
        "verdict": verdict,
        "sentence": "",
        "statement": statement,
        "before": {},
        "worst": None,
        "adversaries": list(adversaries),
        "tier": "standard",
        "seeds": 1,
        "seconds": 90,
    }


NOTHING = adversary("none", "baseline", "resisted", 0.0)
EMPTY = record(
    "never-exposed", "empty", "held", "empty: R stays low", NOTHING, adversary("t-facts", "training", "resisted", 0.1)
)
LOCKED = record(
    "npo",
    "locked",
    "broken",
    "locked: it comes back",
    NOTHING,
    adversary("prefill", "prompt", "resisted", 0.2),
    adversary("t-facts", "training", "broken", 0.8),
    adversary("benign", "training", "broken", 0.9),
    adversary("quantise", "weights", "resisted", 0.1),
    adversary("noise", "weights", "infeasible", 0.99),
)
MISSED = record(
    "seam", "locked", "held", "empty: R stays low", NOTHING, adversary("t-facts", "training", "resisted", 0.3)
)


def test_truth_is_set_against_what_was_found() -> None:
    twin = record("exposed", "exposed", "broken", "open: it knows", NOTHING)
    unclear = record("rmu", "locked", "inconclusive", "neither locked nor empty is shown", NOTHING)
    records = [twin, LOCKED, MISSED, unclear, EMPTY]
    assert calibration.confusion(records) == {
        ("exposed", "open"): ["exposed"],
        ("locked", "locked"): ["npo"],
        ("locked", "empty"): ["seam"],
        ("locked", "inconclusive"): ["rmu"],
        ("empty", "empty"): ["never-exposed"],
    }
    assert [r["organism"] for r in records if not calibration.is_right(r)] == ["seam", "rmu"]
    lines = calibration.matrix(records).splitlines()
    assert lines[0] == "| truth \\ found | open | locked | empty | destroyed | inconclusive |"
    assert lines[3] == "| locked |  | `npo` | `seam` |  | `rmu` |"


def test_a_family_is_needed_where_a_right_verdict_is_lost_without_it() -> None:
    found = calibration.leave_one_out([LOCKED, MISSED, EMPTY])
    assert found["training"] == {"npo": "held"}
    assert found["prompt"] == {} and found["weights"] == {}
    assert "baseline" not in found


def test_the_best_of_a_family_is_of_those_that_say_something() -> None:
    best = calibration.best_of_families(LOCKED)
    assert {family: estimate.value for family, estimate in best.items()} == {
        "baseline": 0.0,
        "prompt": 0.2,
        "training": 0.9,
        "weights": 0.1,
    }


def test_the_page_names_what_was_not_run_and_what_is_wrong() -> None:
    text = calibration.page([LOCKED, MISSED], ["npo", "seam", "tar"])
    assert "Not run yet: `tar`." in text and "Wrong: `seam`, of 2 judged." in text
    assert "| `npo` | training: `t-facts`, `benign` |" in text and "| `seam` | nothing |" in text
    text = calibration.page([LOCKED, EMPTY], ["npo", "never-exposed"])
    assert "Every packaged organism was judged." in text and "Wrong: none, of 2 judged." in text


def test_a_record_holds_what_the_study_found(finished_study: Path, tmp_path: Path) -> None:
    study = read_study(finished_study, "study")
    subject = study.subjects[0]
    models = [subject.trial.subject, *calibration.references(study.record["subjects"][0])]
    (tmp_path / MANIFEST).write_text(json.dumps({model: {"weights_sha256": f"of {model}"} for model in models}))
    found = calibration.record_of(subject.result, study.record, Store(finished_study, read_only=True), tmp_path)
    json.dumps(found)
    assert found["verdict"] == subject.result.verdict.name and found["domain"]["name"] == "vault/32"
    assert found["weights_sha256"] == {model: f"of {model}" for model in models} and len(models) == 3
    assert [row["name"] for row in found["adversaries"]] == ["none", "prefill", "quantise"]
    assert calibration.verdict(calibration.judged_of(found)) == subject.result.verdict


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["organism"])
def test_committed_records_are_of_the_packaged_organisms(record: dict[str, Any]) -> None:
    manifest = json.loads((PACKAGED / MANIFEST).read_text())
    assert record["truth"] == manifest[record["organism"]]["truth"]
    assert {name: manifest[name]["weights_sha256"] for name in record["weights_sha256"]} == record["weights_sha256"]
    assert record["domain"]["fingerprint"] == manifest[record["organism"]]["data"]["fingerprint"]


def test_no_organism_stands_in_a_wrong_cell_and_the_page_is_of_the_records() -> None:
    wrong = {r["organism"]: (r["truth"], calibration.found(r)) for r in RECORDS if not calibration.is_right(r)}
    assert wrong == {}
    assert calibration.PAGE.read_text() == calibration.page(RECORDS, organism_names())
