"""What a report reads: every point of every curve, and the commands that run cells anew."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from immunobench.errors import ImmunobenchError, UsageError
from immunobench.report.reading import DIAGNOSTICS, StudyReport, read_studies
from immunobench.study.reread import reread
from tests.report.stored import FLAT, MODELS, SUBJECT


def test_curves_hold_every_point_with_the_levels_it_was_made_of(studies: list[StudyReport]) -> None:
    [subject] = studies[0].subjects
    assert {name: [(p.point.variant, p.point.steps) for p in points] for name, points in subject.curves.items()} == FLAT
    for name, points in subject.curves.items():
        for at in points:
            level = SUBJECT[name][at.point.variant, at.point.steps]
            assert at.knowledge.value == pytest.approx((level.report - 0.25) / 0.75)
            assert at.recovery.value == pytest.approx((level.report - 0.25) / 0.75)
            assert (at.exposed.value, at.never_exposed.value) == (1.0, pytest.approx(0.0))
            assert at.utility_drop.value == pytest.approx(1 - level.utility)
    assert subject.references["never-exposed"]["knowledge"].value == pytest.approx(0.0)
    assert {name: end[1]["refused"].value for name, end in subject.ends.items()} == {
        "none": 1.0, "prefill": 0.1, "quantise": 0.8, "unrelated-10": 0.5, "t-facts": 0.0
    }  # fmt: skip


def test_the_record_is_that_of_a_rescored_study(studies: list[StudyReport], study_folder: Path) -> None:
    _, record = reread(study_folder)
    assert json.dumps(studies[0].record) == json.dumps(record)


def test_each_cell_has_a_command_for_itself_alone(studies: list[StudyReport]) -> None:
    assert len(studies[0].cells) == 15
    for record in studies[0].cells:
        words = shlex.split(record.command)
        assert words[:3] == ["immunobench", "run", record.model]
        given = dict(zip(words[3::2], words[4::2], strict=True))
        assert given["--only"] == record.adversary and given["--seeds"] == "1" and given["--max-new-tokens"] == "64"
        assert (given["--exposed"], given["--never-exposed"]) == (MODELS["exposed"], MODELS["never"])
        assert (given["--engine"], given["--device"], given["--dtype"]) == ("hf", "cpu", "float32")


def test_a_cell_of_vllm_or_instead_of_it_is_run_again_from_where_it_is(mixed_study: list[StudyReport]) -> None:
    assert len(mixed_study[0].cells) == 18
    for record in mixed_study[0].cells:
        assert shlex.split(record.command) == [
            "immunobench",
            "reproduce",
            str(mixed_study[0].folder / record.cell.cell_id),
        ]


def test_a_folder_named_twice_is_refused(study_folder: Path) -> None:
    with pytest.raises(UsageError, match="named twice"):
        read_studies([study_folder, study_folder / "."])


def test_diagnoses_of_this_subject_are_found_and_others_are_not(study_folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(study_folder, tmp_path / "study")
    diagnosis = {"name": "probes", "subject": "refusal", "summary": "s", "tables": [], "meaning": "m", "figures": {}}
    for subject in ("refusal", "exposed"):
        folder = root / DIAGNOSTICS / subject
        folder.mkdir(parents=True)
        (folder / "probes.json").write_text(json.dumps(diagnosis | {"subject": subject}))
    (root / DIAGNOSTICS / "notes.json").write_text("[1]")
    [study] = read_studies([root])
    (root / DIAGNOSTICS / "cut.json").write_text("{")
    with pytest.raises(ImmunobenchError, match=r"cut.json' does not read"):
        read_studies([root])
    assert [d["subject"] for d in study.subjects[0].diagnoses] == ["refusal"]


def test_what_is_missing_has_a_command_that_writes_where_the_report_looks(studies: list[StudyReport]) -> None:
    modes = {mode.name: mode for mode in studies[0].subjects[0].failure_modes}
    assert len(modes) == 5
    [command] = modes["durability and similarity"].missing.values()
    words = shlex.split(command)
    assert words[:3] == ["immunobench", "diagnose", "organism:refusal"]
    assert Path(words[-1]).parent == studies[0].folder / DIAGNOSTICS
