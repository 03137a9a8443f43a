"""The commands as they are typed: what they print, and with which code they leave."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.conftest import MODEL, OWNER, Hub, change_record
from tests.study.test_reproduce import cell_of
from tests.test_cli import Ran, cli  # noqa: F401  (a fixture)

Cli = Callable[..., Ran]


def test_verify_passes_and_fails_by_its_exit_code(cli: Cli, finished_study: Path, tmp_path: Path) -> None:  # noqa: F811
    ran = cli("verify", finished_study, "--sample", 1, "--seed", 5)
    assert ran.code == 0 and ran.out.rstrip().endswith("Nothing differs. Sample drawn with --seed 5.")
    assert "cells: 9 same\nrun again: 1 same\nscores: " in ran.out
    tampered = shutil.copytree(finished_study, tmp_path / "tampered")
    change_record(tampered, lambda record: record["subjects"][0]["result"]["verdict"].update(name="held"))
    ran = cli("verify", tampered, "--sample", 0, "--json")
    assert ran.code == 1 and json.loads(ran.out)["differs"]
    assert cli("verify", "nowhere").code == 2


def test_verify_says_that_nothing_could_be_checked(
    cli: Cli,  # noqa: F811
    finished_study: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("immunobench.hub.stored.VERSION", "9")
    ran = cli("verify", finished_study, "--sample", 0)
    assert ran.code == 1 and "cells: 9 cannot be checked" in ran.out and "No cell could be checked." in ran.out


def test_reproduce_one_cell(cli: Cli, finished_study: Path, model_folders: dict[str, Path]) -> None:  # noqa: F811
    cell = cell_of(finished_study, "prefill", "subject")
    ran = cli("reproduce", cell)
    assert ran.code == 0 and "same: every value, to the last bit" in ran.out and "cloze_loss" in ran.out
    other = cli("reproduce", cell, "--subject", model_folders["never"], "--json")
    assert other.code == 1 and json.loads(other.out)["state"] == "differs"
    assert cli("reproduce", finished_study).code == 2


def test_compare_two_studies(cli: Cli, finished_study: Path, tmp_path: Path) -> None:  # noqa: F811
    ran = cli("compare", finished_study, finished_study)
    assert ran.code == 0 and "prefill" in ran.out and "settings that differ" not in ran.out
    fewer = shutil.copytree(finished_study, tmp_path / "fewer")

    def cut(record: dict[str, list[dict[str, str]]]) -> None:
        record["cells"] = [entry for entry in record["cells"] if entry["adversary"] != "prefill"]

    change_record(fewer, cut)
    assert "adversary prefill" in cli("compare", finished_study, fewer).out
    found = json.loads(cli("compare", finished_study, fewer, "--json").out)
    assert [setting["what"] for setting in found["settings"]] == ["adversary prefill"]


def test_from_a_preview_to_the_leaderboard(
    cli: Cli,  # noqa: F811
    hub: Hub,
    whole_study: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    files = f"{hub.api.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.api.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setenv("HF_TOKEN", OWNER)
    preview = cli("submit", whole_study, "--to", MODEL, "--dry-run")
    assert preview.code == 0 and "**inconclusive**" in preview.out and "items.parquet" in preview.out
    assert hub.store.refs("models", MODEL, "refs/pr/") == []
    sent = json.loads(cli("submit", whole_study, "--to", MODEL, "--json").out)
    assert sent["pull_request"].endswith("/discussions/1") and all(check["ok"] for check in sent["checks"])
    assert cli("verify", f"{MODEL}@refs/pr/1", "--sample", 0).code == 0
    hub.api.merge_pull_request(MODEL, 1)
    page = tmp_path / "page.html"
    assert "1 models" in cli("leaderboard", "tester", "--out", page).out and MODEL in page.read_text()
    change_record(whole_study, lambda record: record["request"].update(seeds=2))
    refused = cli("submit", whole_study, "--to", MODEL)
    assert refused.code == 1 and "FAIL" in refused.out and "a check failed" in refused.err
    assert OWNER not in preview.out + preview.err + refused.out + refused.err
