"""A domain of questions from a public set: fetched from a Hub on localhost, built by the command, run by its name."""

import subprocess
import sys
from pathlib import Path

import pytest

from immunobench.datasets import read_manifest
from immunobench.domains import Domain, built_folder, load_domain
from immunobench.engines.hf import HFEngine
from immunobench.study.measurements import Measurements
from immunobench.study.reread import reread
from immunobench.study.run import Request, as_json, run_study
from immunobench.study.store import Store
from immunobench.subjects import load_subject
from tests.conftest import Silent
from tests.dataset_builders.upstream_files import encode, upstream_path, upstream_rows
from tests.local_hub import running
from tests.test_datasets import environment

NAME = "wmdp-bio"


@pytest.fixture
def wmdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Domain:
    """WMDP's domain of a stand-in with WMDP's and MMLU's files and columns, and sums in place of their questions."""
    monkeypatch.setenv("IMMUNOBENCH_HOME", str(tmp_path / "home"))
    command = [sys.executable, "-c", "from immunobench.cli import main; main()", "build", "domain", NAME]
    with running(tmp_path / "hub") as (store, url):
        commits = {}
        for source, repository in ((NAME, "cais/wmdp"), ("mmlu", "cais/mmlu")):
            store.create("datasets", repository)
            path = upstream_path(source)
            file = ("file", path, encode(path, upstream_rows(source), tmp_path))
            commits[source] = store.commit("datasets", repository, "main", {"summary": source}, [file])
            command += ["--revision", f"{source}={commits[source]}"]
        env = environment(tmp_path, HF_ENDPOINT=url, HF_HUB_OFFLINE="0", HF_TOKEN="")
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    upstream = read_manifest(built_folder(NAME))["upstream"]
    assert {each["source"]: each["revision"] for each in upstream} == commits
    return load_domain(f"{NAME}/32")


def test_a_study_runs_on_wmdp(wmdp: Domain, model_folders: dict[str, Path], tmp_path: Path) -> None:
    asked = Request(
        [str(model_folders["subject"])],
        "smoke",
        ("none", "prefill", "t-facts", "cross-compounds"),
        domain=f"{NAME}/32",
        max_new_tokens=4,
    )
    store = Store(tmp_path / "study")
    (result,), record = run_study(asked, store, lambda spec: HFEngine(load_subject(spec)), Silent())
    assert record["subjects"][0]["domain"]["fingerprint"] == wmdp.fingerprint
    assert {score.adversary for score in result.scores} == {"none", "prefill", "t-facts"}
    assert any("cross-compounds" in sentence for sentence in result.cannot_claim)
    assert result.before["knowledge"].defined
    assert all(fact.id.startswith(f"hazard/{NAME}/") for fact in wmdp.hazard)
    (trained,) = (c for c in record["cells"] if c["adversary"] == "t-facts" and c["model"].endswith("subject"))
    cell = store.read(trained["cell_ids"][0])
    assert cell is not None and len(cell.points) > 2
    measured = Measurements(cell, store.items(cell.cell_id))
    assert all(measured.has(point.index, "knowledge", "correct") for point in cell.points)
    assert any(measured.has(point.index, "behaviour", "right") for point in cell.points)
    again, _ = reread(tmp_path / "study")
    assert as_json(again) == as_json([result])
