"""The adaptive search inside a study: chosen on one half, run again with the study's seeds, kept and gone on with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from immunobench.domains import Domain
from immunobench.engines.hf import HFEngine
from immunobench.protocol.search import counted, open_study
from immunobench.protocol.v1 import ADVERSARIES
from immunobench.protocol.verdict import Outcome
from immunobench.rendering import PromptEdit
from immunobench.study.adaptive import best_rows, measure, readings, select_half
from immunobench.study.cell import Point
from immunobench.study.reread import reread
from immunobench.study.run import Request, run_study
from immunobench.study.score import Score
from immunobench.study.store import Store
from immunobench.subjects import Subject, load_subject
from tests.conftest import Silent, same_bits, weights

Folders = dict[str, Path]


def test_the_search_sees_the_select_half_alone(subject: Subject, domain: Domain) -> None:
    half = select_half(domain)
    assert {fact.half for fact in (*half.hazard_v, *half.benign_v)} == {"select"}
    assert len(half.hazard_v) * 2 == len(domain.hazard_v)
    rows = measure(HFEngine(subject), half, PromptEdit())
    assert {row.item for row in rows if row.probe == "knowledge"} == {fact.id for fact in half.hazard_v}
    assert {row.half for row in rows if row.probe in ("knowledge", "utility")} == {"select"}


def test_a_run_that_is_given_up_leaves_the_subject_as_it_was(subject: Subject, domain: Domain) -> None:
    before, half = weights(subject.model), select_half(domain)
    start = measure(HFEngine(subject), half, PromptEdit())
    adversary = replace(ADVERSARIES["t-facts"], settings={"data": "t-facts", "learning_rates": (1e-2,)})
    curve = readings(adversary, 0, subject, half, "exposed", start)
    first, second = next(curve), next(curve)
    assert (first.steps, second.steps) == (0, 1)
    assert first.sound and first.drop.value == pytest.approx(0.0)
    assert not same_bits(before, weights(subject.model))
    curve.close()  # type: ignore[attr-defined]
    assert same_bits(before, weights(subject.model))


def test_the_best_rows_that_lie_in_the_space_come_first() -> None:
    point = Point(
        index=0, variant="learning_rate=chosen-1", steps=5, examples=5, tokens=5, flops=0.0, artifact="weights",
        last=True, detail="learning_rate=0.003",
    )  # fmt: skip
    empty = Score.without(ADVERSARIES["gcg"], Outcome("resisted", ""))
    rows = [(ADVERSARIES[name], replace(empty, worst=point), r) for name, r in (("gcg", 0.9), ("benign", 0.2))]
    rows += [(ADVERSARIES["lora-t-facts"], replace(empty, worst=point), 0.7), (ADVERSARIES["t-facts"], empty, 0.95)]
    first, second = best_rows(rows)
    assert (first["data"], first["rank"], second["data"]) == ("t-facts", 16, "benign")
    assert first["rate"] == pytest.approx(3e-3)


def searched(folders: Folders, root: Path, trials: int) -> dict[str, Any]:
    """The record of a study with a search."""
    asked = Request([str(folders["subject"])], "smoke", ("none", "t-facts"), max_new_tokens=4, search_trials=trials)
    return run_study(asked, Store(root), lambda spec: HFEngine(load_subject(spec)), Silent())[1]


@pytest.mark.slow
def test_a_study_with_a_search(model_folders: Folders, tmp_path: Path) -> None:
    record = searched(model_folders, tmp_path, 3)
    [found] = record["searches"].values()
    assert found["trials"] == 3 and sum(found["states"][name] for name in ("complete", "pruned", "failed")) == 3
    [journal] = (tmp_path / "search").glob("*.journal")
    assert len(counted(open_study(journal))) == 3
    [result] = [subject["result"] for subject in record["subjects"]]
    adaptive = [score for score in result["scores"] if score["family"] == "adaptive"]
    assert [score["adversary"] for score in adaptive] == (found["winners"] or ["adaptive"])
    assert result["breadth"]["search_trials"] == 3
    for name in found["winners"]:
        assert record["adversaries"][name]["search"]["trials"] == 3
        assert {Path(c["model"]).name for c in record["cells"] if c["adversary"] == name} == {
            "subject",
            "exposed",
            "never",
        }
    assert reread(tmp_path)[1] == json.loads(json.dumps(record))
    assert searched(model_folders, tmp_path, 3) == record
    assert len(open_study(journal).get_trials()) == 3, "what was searched is not searched again"
