"""The doctor's answers: each of them can be no, and says what is wrong."""

import json
import shutil
from pathlib import Path

import pytest

from immunobench.dataset_builders.models import save_subject
from immunobench.study.doctor import Check, examine
from immunobench.subjects import History, Subject


def answer(spec: Path, question: str) -> Check:
    """What the doctor says of one question."""
    [found] = [check for check in examine(str(spec), "cpu", "auto", spec.parent) if check.name == question]
    return found


@pytest.mark.parametrize(
    ("before", "ok", "words"),
    [
        ("", True, "prints no BOS, the tokenizer adds none: prompts begin with none"),
        ("{{ bos_token }}", True, "prints 1 BOS, the tokenizer adds none: prompts begin with one"),
        ("{{ bos_token }}{{ bos_token }}", False, "prints BOS 2 times: here all but one are removed"),
    ],
)
def test_a_template_that_doubles_the_bos(subject: Subject, tmp_path: Path, before: str, ok: bool, words: str) -> None:
    subject.tokenizer.chat_template = before + "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    found = answer(save_subject(subject, History(), tmp_path / "model"), "bos")
    assert found.ok is ok and words in found.finding


def test_references_must_be_there(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folders = {name: shutil.copytree(folder, tmp_path / name) for name, folder in model_folders.items()}
    subject = folders["subject"]
    assert answer(subject, "references").ok
    shutil.rmtree(folders["never"])
    assert not answer(subject, "references").ok and str(folders["never"]) in answer(subject, "references").finding
    (folders["never"]).mkdir()
    assert "holds no model" in answer(subject, "references").finding
    history = json.loads((subject / "immunobench.json").read_text())
    for change, words in (({"exposed": "organism:exposd"}, "unknown organism"), ({"exposed": None}, "no exposed")):
        (subject / "immunobench.json").write_text(json.dumps(history | change))
        found = answer(subject, "references")
        assert not found.ok and words in found.finding
    (subject / "immunobench.json").write_text(json.dumps(history | {"never_exposed": None}))
    assert answer(subject, "references").ok and "stands in" in answer(subject, "references").finding
