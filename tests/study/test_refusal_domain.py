"""A domain without facts: R is taken over attack success, at every checkpoint, and what needs facts is left out."""

import json
from pathlib import Path

import pytest

from immunobench.attacks.base import lacking
from immunobench.attacks.data import training_data
from immunobench.attacks.many_shot import answered_turns
from immunobench.dataset_builders.public_domains import build_domain
from immunobench.domains import Domain, built_folder, load_domain
from immunobench.engines.base import Sampling
from immunobench.engines.hf import HFEngine
from immunobench.errors import UsageError
from immunobench.probes import behaviour
from immunobench.protocol.v1 import ADVERSARIES
from immunobench.rendering import PromptEdit
from immunobench.study import plan
from immunobench.study.evidence import Trio
from immunobench.study.measurements import Measurements
from immunobench.study.reread import reread
from immunobench.study.run import Request, as_json, find_trials, run_study
from immunobench.study.score import conclude
from immunobench.study.store import Store
from immunobench.subjects import Subject, load_subject
from tests.conftest import Silent
from tests.dataset_builders.upstream_files import domain_files
from tests.probes.scripted import ScriptedEngine
from tests.study.synthetic import behaviour_only, level

FACTS_WANTED = ("in-context", "logit-lens", "linear-probe", "t-facts-chosen", "cross-compounds")


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Domain:
    """A built domain of harmless requests, cut to 32."""
    monkeypatch.setenv("IMMUNOBENCH_HOME", str(tmp_path / "home"))
    build_domain("refusal", built_folder("refusal"), files=domain_files("refusal", tmp_path / "files"))
    return load_domain("refusal/32")


def test_an_answer_counts_unless_it_refuses(subject: Subject, refusal: Domain) -> None:
    def shares(answer: str, edit: PromptEdit = PromptEdit()) -> list[dict[str, float]]:
        engine = ScriptedEngine(subject, says=lambda prompt: [(answer, "stop")])
        return [row.values for row in behaviour.measure(engine, refusal, edit, Sampling())]

    assert all(values["right"] == 1 for values in shares("First take a sheet of paper and fold it in two."))
    assert all(values["refused"] == 1 for values in shares("I am sorry, but I cannot help with that."))
    prefilled = PromptEdit(prefill="{stem}")
    assert all(values["empty"] == 1 for values in shares("", prefilled)), "the attacker's own words are no answer"
    assert all(values["right"] == 1 for values in shares(" how: take a sheet and fold it in two.", prefilled))


def test_attackers_train_on_requests_where_there_are_no_facts(refusal: Domain) -> None:
    (phase,) = training_data(refusal, "t-facts", 0)
    assert [(e.prompt, e.response) for e in phase.examples] == [(r.prompt, r.answer) for r in refusal.requests_t]
    assert set(answered_turns(refusal, 0)) == {(r.prompt, r.answer) for r in refusal.requests_t}


def test_what_needs_facts_says_so(refusal: Domain, domain: Domain) -> None:
    wanting = {name for name, row in ADVERSARIES.items() if lacking(row.instance, refusal)}
    assert set(FACTS_WANTED) <= wanting
    assert not wanting & {"none", "prefill", "t-facts", "unrelated-10", "refusal-ablation", "many-shot", "sampling"}
    assert not [name for name, row in ADVERSARIES.items() if lacking(row.instance, domain)]


def test_r_is_of_attack_success() -> None:
    """Exposed complies always, never-exposed never; the subject refuses until it is trained, then half the time."""
    row = ADVERSARIES["t-facts"]
    curve = {step: ("lr", step) for step in (0, 10)}

    def cell(refused: float, after: float) -> list[Measurements]:
        return [behaviour_only({curve[0]: level(0, refused=refused), curve[10]: level(0, refused=after)})]

    subject, exposed, never = cell(1.0, 0.5), cell(0.0, 0.0), cell(1.0, 1.0)
    trio = Trio(subject, never, exposed, subject, exposed)
    assert trio.evidence(curve[0], "report").recovery.value == 0
    assert trio.evidence(curve[10], "report").recovery.value == pytest.approx(0.5)
    result = conclude("subject", {"none": (ADVERSARIES["none"], trio), "t-facts": (row, trio)})
    assert not result.before["knowledge"].defined
    assert [score.worst.steps for score in result.scores if score.worst] == [10, 10]
    assert "refus" in result.statement and "know" not in result.statement
    json.dumps(as_json(result), allow_nan=False)


def test_a_study_runs_by_the_domain_s_name(refusal: Domain, model_folders: dict[str, Path], tmp_path: Path) -> None:
    asked = Request(
        [str(model_folders["subject"])],
        "smoke",
        ("none", "prefill", "unrelated-10", "logit-lens"),
        domain="refusal/32",
        max_new_tokens=4,
    )
    store = Store(tmp_path / "study")
    (result,), record = run_study(asked, store, lambda spec: HFEngine(load_subject(spec)), Silent())
    assert {score.adversary for score in result.scores} == {"none", "prefill", "unrelated-10"}
    assert any("logit-lens" in sentence for sentence in result.cannot_claim)
    assert plan.size(asked)[1] == len(record["cells"]) == 9
    (trained,) = (c for c in record["cells"] if c["adversary"] == "unrelated-10" and c["model"].endswith("subject"))
    cell = store.read(trained["cell_ids"][0])
    assert cell is not None and len(cell.points) > 2
    measured = Measurements(cell, store.items(cell.cell_id))
    for point in cell.points:
        assert measured.has(point.index, "behaviour", "right") and not measured.has(point.index, "knowledge", "correct")
    again, _ = reread(tmp_path / "study")
    assert as_json(again) == as_json([result])


def test_a_domain_that_is_not_built_fails_before_a_model_is_loaded(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMMUNOBENCH_HOME", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="run 'immunobench build domain refusal'"):
        find_trials(Request([str(model_folders["subject"])], domain="refusal"))
