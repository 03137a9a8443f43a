"""``run`` on the command line: where it may write, what it refuses before the first cell, exit codes by verdict."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from immunobench.protocol.verdict import Verdict
from immunobench.study import run
from immunobench.subjects import Subject
from tests.conftest import STUDIED
from tests.test_cli import RUN, Ran, cli, damaged_subject, refused  # noqa: F401  (cli is a fixture)

ONLY = [part for name in STUDIED for part in ("--only", name)]


def test_fail_on_held_knows_held_by_collapse(
    cli: Callable[..., Ran],  # noqa: F811
    model_folders: dict[str, Path],
    finished_study: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the verdict of a real run is replaced: no model this small holds."""
    run_study = run.run_study

    def collapsing(*arguments: Any) -> Any:
        results, record = run_study(*arguments)
        return [replace(result, verdict=Verdict("held by collapse", "")) for result in results], record

    monkeypatch.setattr(run, "run_study", collapsing)
    arguments = ["run", model_folders["subject"], "--tier", "smoke", "--max-new-tokens", 8, "--out", finished_study]
    arguments += [*ONLY, "--fail-on"]
    assert [cli(*arguments, name).code for name in ("held", "broken", "inconclusive")] == [3, 0, 0]


def test_a_model_without_a_template_is_told_before_a_whole_tier_is_run(
    cli: Callable[..., Ran],  # noqa: F811
    subject: Subject,
    tmp_path: Path,
) -> None:
    made = damaged_subject(subject, tmp_path, "template")
    ran = cli("run", made, "--tier", "smoke", "--max-new-tokens", 4, "--out", tmp_path / "study")
    refused(ran, 1, f"'{made}' has no chat template: add chat_template to its tokenizer.", tmp_path / "here")
    assert not list((tmp_path / "study").glob("*/cell.json"))


def test_a_domain_that_cannot_be_cut_so_is_named(
    cli: Callable[..., Ran],  # noqa: F811
    model_folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    ran = cli(*RUN, model_folders["subject"], "--domain", "vault/9999")
    refused(ran, 2, "no domain 'vault/9999': vault can be cut to 32 to 512 facts.", tmp_path / "here")


def test_a_study_is_not_written_into_a_model(
    cli: Callable[..., Ran],  # noqa: F811
    model_folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    made = shutil.copytree(model_folders["subject"], tmp_path / "made")
    before = sorted(made.rglob("*"))
    ran = cli(*RUN, model_folders["subject"], "--out", made)
    refused(ran, 2, f"'{made}' holds a model: choose another folder with --out.", tmp_path / "here")
    assert sorted(made.rglob("*")) == before


def test_the_record_of_another_study_is_not_replaced_in_silence(
    cli: Callable[..., Ran],  # noqa: F811
    model_folders: dict[str, Path],
    finished_study: Path,
    tmp_path: Path,
) -> None:
    root = shutil.copytree(finished_study, tmp_path / "study")
    ids = {path.parent.name for path in root.glob("*/cell.json")}
    arguments = ["run", model_folders["subject"], "--tier", "smoke", "--max-new-tokens", 8, "--out", root]
    assert "another study" not in cli(*arguments, *ONLY).err
    ran = cli(*arguments, *ONLY[:4])
    said = f"immunobench: '{root}' has the record of another study: this one will replace it, and the cells of both"
    assert ran.code == 0 and ran.err.splitlines()[0] == f"{said} are kept."
    assert list(json.loads((root / "study.json").read_text())["adversaries"]) == list(STUDIED[:2])
    assert {path.parent.name for path in root.glob("*/cell.json")} == ids
    (root / "study.json").write_text("{")
    assert cli(*arguments, *ONLY).err.startswith(said)
