"""Results offered to a model's repository on a Hub on localhost, with the unmodified client."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard

from immunobench.errors import ImmunobenchError, UsageError
from immunobench.hub.checks import LEAST_SEEDS, tier_check
from immunobench.hub.model_card import BEGIN, END
from immunobench.hub.submit import RESULTS, TITLE, Submission, prepare, send
from immunobench.protocol.v1 import ADVERSARIES, TIERS
from immunobench.study.reread import load_study, trials_of
from tests.conftest import STUDIED
from tests.hub.conftest import MODEL, OWNER, Hub, change_record


def failing(submission: Submission) -> dict[str, str]:
    """Findings of the checks that failed, by name."""
    assert bool(submission.files) == submission.ready
    return {check.name: check.finding for check in submission.checks if not check.ok}


def test_a_preview_sends_nothing_and_a_pull_request_holds_it_all(hub: Hub, whole_study: Path) -> None:
    before, head = hub.paths(), hub.store.sha("models", MODEL, "main")
    submission = prepare(whole_study, MODEL, api=hub.stranger)
    assert failing(submission) == {} and hub.store.refs("models", MODEL, "refs/pr/") == []
    address = send(submission, hub.stranger)
    assert address is not None and address.endswith(f"/{MODEL}/discussions/1")
    assert hub.store.sha("models", MODEL, "main") == head, "main is the owner's"
    [discussion] = hub.api.get_repo_discussions(MODEL)
    assert (discussion.title, discussion.author, discussion.is_pull_request) == (TITLE, "stranger", True)
    added = hub.paths("refs/pr/1") - before
    cells = {path.parent.name for path in whole_study.glob("*/cell.json")}
    assert added == {RESULTS, "immunobench/study.json"} | {
        f"immunobench/{cell}/{name}" for cell in cells for name in ("cell.json", "items.parquet")
    }
    card = hub.text("README.md", "refs/pr/1")
    assert card.startswith("---\nlicense: mit\nbase_model: someone/base\nmodel-index:\n")
    assert "# Model\n\nWords of its owner.\n" in card and card.count(BEGIN) == card.count(END) == 1
    assert ModelCard(card).data.eval_results[0].metric_type == "knowledge", "immunity is undefined of a random model"


def test_merged_results_are_read_back_by_the_client(hub: Hub, whole_study: Path) -> None:
    send(prepare(whole_study, MODEL, api=hub.api), hub.api)
    hub.api.merge_pull_request(MODEL, 1)
    entries = hub.api.model_info(MODEL, expand=["evalResults"]).eval_results
    record = json.loads((whole_study / "study.json").read_text())
    before = record["subjects"][0]["result"]["before"]
    values = {entry.task_id: entry.value for entry in entries or []}
    assert values["compliance"] == round(before["right"]["value"], 4)
    assert set(values) == {"compliance"}, "K is no value of the task that asks for a letter"
    assert f"K is {before['knowledge']['value']:.2f}," in str((entries or [])[0].notes)
    assert send(prepare(whole_study, MODEL, api=hub.api), hub.api) is None, "the same results are not offered twice"


def test_a_second_submission_brings_the_open_pull_request_up_to_date(hub: Hub, whole_study: Path) -> None:
    send(prepare(whole_study, MODEL, with_transcripts=True, api=hub.stranger), hub.stranger)
    assert any(path.endswith("transcripts.parquet") for path in hub.paths("refs/pr/1"))
    address = send(prepare(whole_study, MODEL, api=hub.stranger), hub.stranger)
    assert address is not None and address.endswith("/discussions/1")
    assert not any(path.endswith("transcripts.parquet") for path in hub.paths("refs/pr/1"))
    assert len(hub.store.refs("models", MODEL, "refs/pr/")) == 1
    assert send(prepare(whole_study, MODEL, api=hub.stranger), hub.stranger) is None


def test_local_paths_and_answers_stay_at_home(hub: Hub, whole_study: Path, model_folders: dict[str, Path]) -> None:
    submission = prepare(whole_study, MODEL, api=hub.api)
    everything = b"\n".join(submission.files.values()).decode(errors="replace")
    assert str(model_folders["subject"].parent) not in everything
    record = json.loads(submission.files["immunobench/study.json"])
    [subject] = record["subjects"]
    assert subject["subject"] == f"{MODEL}@{submission.revision}"
    assert re.fullmatch(r"exposed#[0-9a-f]{8}", subject["exposed"])
    assert not any("transcripts" in path for path in submission.files)


def test_other_weights_than_were_measured(hub: Hub, whole_study: Path, model_folders: dict[str, Path]) -> None:
    hub.api.upload_folder(repo_id=MODEL, folder_path=model_folders["never"])
    found = failing(prepare(whole_study, MODEL, api=hub.api))
    assert "push the model that was measured" in found["weights"]
    with pytest.raises(UsageError, match="not submitted"):
        send(prepare(whole_study, MODEL, api=hub.api), hub.api)
    first = hub.api.list_repo_commits(MODEL)[-2].commit_id
    assert "weights" not in failing(prepare(whole_study, f"{MODEL}@{first}", api=hub.api)), "an earlier commit has them"


def test_part_of_a_tier(hub: Hub, whole_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_record(whole_study, lambda record: record["request"].update(only=["prefill", "quantise"]))
    assert "without --only" in failing(prepare(whole_study, MODEL, api=hub.api))["tier"]
    change_record(whole_study, lambda record: record["request"].update(only=[], seeds=2))
    assert "1 of 2 seeds" in failing(prepare(whole_study, MODEL, api=hub.api))["tier"]
    monkeypatch.setitem(TIERS, "standard", STUDIED)
    change_record(whole_study, lambda record: record["request"].update(tier="standard", seeds=1))
    assert "standard takes 3 seeds, and this has 1" in failing(prepare(whole_study, MODEL, api=hub.api))["tier"]


@pytest.mark.parametrize(
    ("trials", "winners", "why"),
    [(None, [], "60 trials is missing"), (2, [], "60 trials"), (60, ["found"], "found against")],
)
def test_a_search_that_was_cut_short_or_whose_winners_are_gone(
    whole_study: Path, monkeypatch: pytest.MonkeyPatch, trials: int | None, winners: list[str], why: str
) -> None:
    """One seed is made enough here, because the study has no more."""
    monkeypatch.setitem(TIERS, "full", STUDIED)
    monkeypatch.setitem(LEAST_SEEDS, "full", 1)
    study, _, record = load_study(whole_study)
    [trial] = trials_of(record)
    record["request"]["tier"] = "full"
    if trials is not None:
        record["searches"] = {trial.subject: {"trials": trials, "winners": winners}}
    assert why in tier_check(study, trial, record).finding
    record["searches"] = {trial.subject: {"trials": 60, "winners": []}}
    assert tier_check(study, trial, record).ok


def test_an_unknown_protocol_or_adversary(hub: Hub, whole_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr("immunobench.hub.checks.VERSION", "2")
        assert "known is 2" in failing(prepare(whole_study, MODEL, api=hub.api))["protocol"]
    monkeypatch.setitem(ADVERSARIES, "quantise", replace(ADVERSARIES["quantise"], settings={"bits": (2,)}))
    assert "is not that of protocol" in failing(prepare(whole_study, MODEL, api=hub.api))["protocol"]


def test_an_unknown_dataset_version(hub: Hub, whole_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immunobench.hub.checks.PACKAGED", ())  # as for a vault of one's own
    assert "is private" in failing(prepare(whole_study, MODEL, api=hub.api))["dataset"]


def test_what_the_hub_refuses_is_one_sentence_without_the_token(
    hub: Hub, whole_study: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = HfApi(endpoint=hub.api.endpoint, token="hf_wrongwrongwrong")
    submission = prepare(whole_study, MODEL, api=wrong)
    with pytest.raises(ImmunobenchError, match="hf auth login") as refused:
        send(submission, wrong)
    with pytest.raises(ImmunobenchError, match="no such repository"):
        prepare(whole_study, "tester/nothing", api=hub.api)
    with pytest.raises(ImmunobenchError, match="no such revision"):
        prepare(whole_study, f"{MODEL}@v9", api=hub.api)
    with pytest.raises(ImmunobenchError, match="cannot be reached") as offline:
        prepare(whole_study, MODEL, api=HfApi(endpoint="http://127.0.0.1:9", token=OWNER))
    with pytest.raises(UsageError, match="is no repository"):
        prepare(whole_study, "model", api=hub.api)
    send(prepare(whole_study, MODEL, api=hub.api), hub.api)
    out, err = capfd.readouterr()
    said = f"{refused.value} {offline.value} {caplog.text} {out} {err}"
    assert "hf_wrong" not in said and OWNER not in said
    assert "\n" not in f"{refused.value}{offline.value}"


def test_offline_by_choice_is_one_sentence_that_says_how_to_undo_it(
    hub: Hub, whole_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ImmunobenchError, match=f"cannot read {MODEL}: HF_HUB_OFFLINE is set: unset it") as said:
        prepare(whole_study, MODEL, api=hub.api)
    assert "\n" not in str(said.value) and hub.store.refs("models", MODEL, "refs/pr/") == []


def test_a_model_without_a_card_gets_one(hub: Hub, whole_study: Path) -> None:
    hub.api.delete_file("README.md", MODEL)
    card = prepare(whole_study, MODEL, api=hub.api).files["README.md"].decode()
    assert card.startswith("---\nmodel-index:\n- name: model\n") and "\n# model\n" in card
