"""A whole study on tiny random models: its size, its record, what is shared, and what a crash costs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from immunobench.attacks.baseline import NoAttack
from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.protocol import v1
from immunobench.study import plan
from immunobench.study.reread import reread
from immunobench.study.run import Request, as_json, find_trials, run_study, waves, work
from immunobench.study.store import Store
from immunobench.subjects import load_subject
from tests.conftest import BROKEN_EARLY, STUDIED, Silent

Folders = dict[str, Path]


def request(folders: Folders, only: Sequence[str] = STUDIED, **changes: Any) -> Request:
    """What the finished study was asked for, or another."""
    return Request([str(folders["subject"])], "smoke", only, max_new_tokens=8, **changes)


def run(asked: Request, root: Path) -> tuple[dict[str, Any], Silent]:
    """The record of a study and what its reporter was told."""
    told = Silent()
    _, record = run_study(asked, Store(root), lambda spec: HFEngine(load_subject(spec)), told)
    return record, told


def cells(root: Path) -> dict[str, bytes]:
    """Every cell.json by its folder."""
    return {path.parent.name: path.read_bytes() for path in root.glob("*/cell.json")}


def test_the_record_holds_what_is_needed_to_read_it(finished_study: Path, model_folders: Folders) -> None:
    record = json.loads((finished_study / "study.json").read_text())
    assert list(record["adversaries"]) == list(STUDIED)
    assert {c["adversary"] for c in record["cells"]} == set(STUDIED)
    assert {Path(c["model"]).name for c in record["cells"]} == {"subject", "exposed", "never"}
    ids = [cell_id for c in record["cells"] for cell_id in c["cell_ids"]]
    assert len(ids) == len(set(ids)) == 9 == len(cells(finished_study))
    [subject] = record["subjects"]
    assert subject["exposed"] == str(model_folders["exposed"])
    assert subject["domain"]["name"] == "vault/32"
    assert subject["result"]["verdict"]["name"] in ("inconclusive", "held", "broken", "held by collapse")


def test_the_same_command_again_runs_nothing(finished_study: Path, model_folders: Folders, tmp_path: Path) -> None:
    root = shutil.copytree(finished_study, tmp_path / "study")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")}
    record, told = run(request(model_folders), root)
    assert told.points == 0 and all(stored for *_, stored in told.done) and len(told.done) == 9
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")} == before
    assert cells(root) == cells(finished_study)
    assert json.loads(json.dumps(record)) == json.loads((finished_study / "study.json").read_text())


def test_a_missing_cell_alone_is_run_again(finished_study: Path, model_folders: Folders, tmp_path: Path) -> None:
    """And what is measured again is what was measured before, to the last digit."""
    root = shutil.copytree(finished_study, tmp_path / "study")
    lost = sorted(cells(root))[4]
    (root / lost / "cell.json").unlink()
    _, told = run(request(model_folders), root)
    assert [stored for *_, stored in told.done].count(False) == 1
    for name in ("items.parquet", "transcripts.parquet"):
        assert (root / lost / name).read_bytes() == (finished_study / lost / name).read_bytes()
    assert (root / "study.json").read_bytes() == (finished_study / "study.json").read_bytes()


def test_a_damaged_cell_stops_the_study_before_anything_is_concluded(
    finished_study: Path, model_folders: Folders, tmp_path: Path
) -> None:
    root = shutil.copytree(finished_study, tmp_path / "study")
    (root / "study.json").unlink()
    damaged = root / sorted(cells(root))[0] / "items.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ImmunobenchError, match="is damaged"):
        run(request(model_folders), root)
    assert not (root / "study.json").exists()


def test_reading_again_gives_what_running_gave(finished_study: Path, tmp_path: Path) -> None:
    results, record = reread(finished_study)
    stored = json.loads((finished_study / "study.json").read_text())
    assert record == stored
    assert [as_json(result) for result in results] == [s["result"] for s in stored["subjects"]]


def test_reading_needs_no_model(finished_study: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished_study, tmp_path / "study")
    record = json.loads((root / "study.json").read_text())
    gone = str(tmp_path / "gone" / "model")
    for entry in record["subjects"]:
        entry |= {"subject": gone, "implanted": True}
    for entry in record["cells"]:
        entry["model"] = gone if entry["model"].endswith("subject") else entry["model"]
    (root / "study.json").write_text(json.dumps(record))
    results, _ = reread(root)
    assert any("implanted" in sentence for sentence in results[0].cannot_claim)
    assert not any("implanted" in sentence for sentence in reread(finished_study)[0][0].cannot_claim)


def test_reading_needs_a_whole_study(finished_study: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no finished study"):
        reread(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    root = shutil.copytree(finished_study, tmp_path / "study")
    shutil.rmtree(root / sorted(cells(root))[0])
    with pytest.raises(ImmunobenchError, match="is missing from"):
        reread(root)
    for broken in ('{"request": ', "{}", '{"request": {}}', '{"request": {"subjects": []}}', "[]"):
        (root / "study.json").write_text(broken)
        with pytest.raises(ImmunobenchError, match=r"study\.json' does not read"):
            reread(root)


def test_reading_leaves_the_folder_alone(finished_study: Path, tmp_path: Path) -> None:
    """A published study may lie on a disk that cannot be written."""
    root = shutil.copytree(finished_study, tmp_path / "study")
    before = sorted((p, p.stat().st_mtime_ns) for p in (root, *root.rglob("*")))
    reread(root)
    assert sorted((p, p.stat().st_mtime_ns) for p in (root, *root.rglob("*"))) == before


def test_the_plan_is_what_runs(finished_study: Path, model_folders: Folders) -> None:
    points, count = plan.size(request(model_folders))
    stored = [json.loads(content) for content in cells(finished_study).values()]
    assert count == len(stored)
    assert points == sum(len(cell["points"]) for cell in stored)
    assert plan.size(request(model_folders, seeds=3)) == (3 * points, 3 * count)


def test_an_estimate_lists_every_cell_and_changes_no_model(model_folders: Folders) -> None:
    found = plan.estimate(request(model_folders, ("none", "unrelated-10")), lambda s: HFEngine(load_subject(s)))
    assert [(Path(c["subject"]).name, c["adversary"]) for c in found["cells"]] == [
        (model, adversary) for model in ("subject", "exposed", "never") for adversary in ("none", "unrelated-10")
    ]
    assert found["seconds"] > 0 and found["memory_gib"] >= 0
    assert all(c["points"] > 0 and c["seconds"] >= 0 for c in found["cells"])


def test_models_that_subjects_share_are_run_once(model_folders: Folders, tmp_path: Path) -> None:
    """The references are attacked once for all subjects, and a reference that is a subject too is one model."""
    both = Request([str(model_folders["subject"]), str(model_folders["exposed"])], "smoke", ("none",), max_new_tokens=4)
    assert len(work(find_trials(both))) == 3
    record, told = run(both, tmp_path)
    assert len(told.done) == len(set(told.done)) == 3
    assert [Path(s["subject"]).name for s in record["subjects"]] == ["subject", "exposed"]
    assert plan.size(both)[1] == 3


def test_seeds_are_cells_of_their_own(model_folders: Folders, tmp_path: Path) -> None:
    record, told = run(request(model_folders, ("none",), seeds=2), tmp_path)
    assert [seed for *_, seed, _ in told.done] == [0, 1] * 3
    assert all(len(set(c["cell_ids"])) == 2 for c in record["cells"])
    other, told = run(request(model_folders, ("none",), seeds=2, first_seed=1), tmp_path)
    assert [(seed, stored) for *_, seed, stored in told.done] == [(1, True), (2, False)] * 3
    assert all(a["cell_ids"][1] == b["cell_ids"][0] for a, b in zip(record["cells"], other["cells"], strict=True))


def test_the_tier_says_how_many_seeds_are_run() -> None:
    assert [Request(["it"], tier).seeds for tier in ("smoke", "quick", "standard", "full")] == [1, 1, 3, 3]
    assert Request(["it"], "standard", seeds=1).seeds == 1 and list(Request(["it"], first_seed=5).seed_range) == [5]
    with pytest.raises(UsageError, match="seed 7919 is that of the search"):
        Request(["it"], "full", first_seed=7917).rows()
    assert Request(["it"], "standard", first_seed=7917).rows()


def test_without_a_never_exposed_reference_the_subject_stands_in(model_folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folders["subject"], tmp_path / "alone")
    history = json.loads((folder / "immunobench.json").read_text())
    (folder / "immunobench.json").write_text(
        json.dumps(history | {"exposed": str(model_folders["exposed"]), "never_exposed": None})
    )
    record, told = run(Request([str(folder)], "smoke", ("none",), max_new_tokens=4), tmp_path / "study")
    assert [model for model, *_ in told.done] == ["alone", "exposed"]
    assert record["subjects"][0]["never_exposed"] is None


def test_a_failing_cell_is_told_and_tried_again(
    model_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from immunobench.attacks.quantisation import RoundToNearest

    def fail(*_: object) -> None:
        raise RuntimeError("the disk of weights slipped")

    asked = request(model_folders, ("none", "quantise"))
    with monkeypatch.context() as patched:
        patched.setattr(RoundToNearest, "run", fail)
        record, told = run(asked, tmp_path)
    assert len(told.done) == 6
    [result] = [subject["result"] for subject in record["subjects"]]
    [score] = [score for score in result["scores"] if score["adversary"] == "quantise"]
    assert score["outcome"]["name"] == "invalid" and "the disk of weights slipped" in score["outcome"]["reason"]
    assert {(entry["adversary"], entry["why"]) for entry in record["failed"]} == {
        ("quantise", "the disk of weights slipped")
    }
    errors = [json.loads(content) for content in cells(tmp_path).values() if b'"error": {' in content]
    assert len(errors) == 3 and all("in fail" in cell["error"]["traceback"] for cell in errors)
    assert reread(tmp_path)[1] == json.loads(json.dumps(record))
    again, told = run(asked, tmp_path)
    assert {adversary for _, adversary, _, stored in told.done if not stored} == {"quantise"}
    assert again["failed"] == []


@pytest.mark.parametrize("model", ["subject", "exposed", "never"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [("weights", "NaN or infinite weights in lm_head"), ("template", "has no chat template: add")],
)
def test_a_model_that_cannot_be_measured_is_told_before_the_first_cell(
    model_folders: Folders, tmp_path: Path, model: str, damage: str, message: str
) -> None:
    folders = {name: shutil.copytree(folder, tmp_path / name) for name, folder in model_folders.items()}
    if damage == "weights":
        tensors = load_file(folders[model] / "model.safetensors")
        tensors["lm_head.weight"][3, 3] = float("nan")
        save_file(tensors, folders[model] / "model.safetensors", {"format": "pt"})
    else:
        (folders[model] / "chat_template.jinja").unlink()
    asked = Request(
        [str(folders["subject"])],
        "smoke",
        exposed=str(folders["exposed"]),
        never_exposed=str(folders["never"]),
        max_new_tokens=8,
    )
    with pytest.raises(ImmunobenchError, match=message) as caught:
        run(asked, tmp_path / "study")
    assert str(caught.value).startswith(f"'{folders[model]}' has ")
    assert not cells(tmp_path / "study")


def test_without_the_unattacked_model_nothing_can_be_said(
    model_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the disk of weights slipped")

    monkeypatch.setattr(NoAttack, "run", fail)
    with pytest.raises(
        ImmunobenchError, match=r"the unattacked cell of .*subject failed \(the disk of weights slipped"
    ):
        run(request(model_folders, ("none",)), tmp_path)
    assert not (tmp_path / "study.json").exists() and len(cells(tmp_path)) == 3


def test_a_study_is_read_whatever_the_table_says_now(finished_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = reread(finished_study)[1]
    monkeypatch.setattr(v1, "ADVERSARIES", {"none": v1.ADVERSARIES["none"]})
    monkeypatch.setattr(v1, "TIERS", {"smoke": ("none",)})
    assert reread(finished_study)[1] == before


def test_two_studies_of_one_store_run_no_cell_twice(model_folders: Folders, tmp_path: Path) -> None:
    """One of them waits for what the other one holds."""
    asked, told, records = request(model_folders), [Silent(), Silent()], []

    def study(reporter: Silent) -> None:
        records.append(run_study(asked, Store(tmp_path), lambda spec: HFEngine(load_subject(spec)), reporter)[1])

    threads = [threading.Thread(target=study, args=(reporter,)) for reporter in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_now = [done[:3] for reporter in told for done in reporter.done if not done[3]]
    assert len(run_now) == len(set(run_now)) == 9
    assert records[0] == records[1]


def test_a_verdict_of_broken_comes_early() -> None:
    rows = Request([], "standard").rows()
    order = [row.name for wave in waves(rows) for row in wave]
    assert sorted(order) == sorted(row.name for row in rows)
    assert [row.name for row in next(waves(rows))] == ["none", "prefill", "quantise"], "what trains nothing comes first"
    assert order.index("t-facts") < order.index("sampling") < order.index("gcg")


def test_a_study_may_stop_when_everything_is_broken(tmp_path: Path) -> None:
    record, told = run(BROKEN_EARLY, tmp_path)
    assert record["subjects"][0]["result"]["verdict"]["name"] == "broken"
    assert {done[1] for done in told.done} == {"none", "prefill"} and record["not_run"] == ["t-facts"]
    searching, _ = run(replace(BROKEN_EARLY, only=("prefill",), search_trials=1), tmp_path)
    assert searching["not_run"] == [] and searching["searches"] == {}, "all is broken by the end of the table"
    again, _ = run(replace(BROKEN_EARLY, subjects=["organism:never-exposed"], only=("prefill",)), tmp_path)
    assert again["subjects"][0]["result"]["verdict"]["name"] != "broken" and again["not_run"] == []


def test_a_subject_without_references(model_folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folders["subject"], tmp_path / "alone")
    (folder / "immunobench.json").unlink()
    with pytest.raises(UsageError, match="no exposed reference: make one with 'immunobench implant'"):
        find_trials(Request([str(folder)]))
    named = Request([str(folder)], exposed=str(model_folders["exposed"]))
    assert find_trials(named)[0].exposed == str(model_folders["exposed"])


def kill_after(command: list[str], done: Callable[[], bool]) -> None:
    """Start ``command`` and kill -9 it as soon as ``done``."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not done():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_in_the_middle_costs_a_cell_a_worker(model_folders: Folders, tmp_path: Path, workers: int) -> None:
    """Workers of their own finish the cell they are at, or leave it to the same command."""
    main = "from immunobench.cli import main; main()"
    command = [sys.executable, "-c", main, "run", str(model_folders["subject"]), "--max-new-tokens", "8"]
    command += [part for name in STUDIED for part in ("--only", name)]
    command += ["--device", "cpu", "--workers", str(workers)]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run([*command, "--out", str(undisturbed)], check=True, capture_output=True)

    command += ["--out", str(killed)]
    kill_after(command, lambda: len(cells(killed)) >= 4)
    kept = cells(killed)
    assert 4 <= len(kept) < 9 and not (killed / "study.json").exists()
    subprocess.run(command, check=True, capture_output=True)

    assert (killed / "study.json").read_bytes() == (undisturbed / "study.json").read_bytes()
    assert set(cells(killed)) == set(cells(undisturbed)) and len(cells(killed)) == 9
    assert {name: cells(killed)[name] for name in kept} == kept, "what was done is not done again"
    for name in cells(undisturbed):
        for part in ("items.parquet", "transcripts.parquet"):
            assert (killed / name / part).read_bytes() == (undisturbed / name / part).read_bytes()
