"""Two studies compared: changes that are known beforehand, and what may not be compared."""

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from immunobench.attacks.base import Budget
from immunobench.errors import UsageError
from immunobench.metrics.recovery import recovery, recovery_change
from immunobench.protocol.adversary import fingerprint
from immunobench.protocol.v1 import ADVERSARIES
from immunobench.study.cell import Cell
from immunobench.study.compare import compare
from immunobench.study.difference import changes
from immunobench.study.environment import COMPARED
from immunobench.study.store import Store
from tests.study.synthetic import Level, cell_tables, level

MODELS = {"exposed": level(1.0), "never": level(0.25)}


def identity(model: str, name: str, **settings: object) -> dict[str, object]:
    """All that ``compare`` reads of a cell's identity."""
    return {
        "identity_version": 1,
        "protocol": "1",
        "probes": 1,
        "subject": {"weights_sha256": model},
        "domain": {"name": "vault", "version": "1.0.0", "fingerprint": "f"},
        "adversary": ADVERSARIES[name].identity(),
        "seed": 0,
        "engine": {"name": "hf", "device": "cpu"},
        "sampling": {"max_new_tokens": 8},
        **settings,
    }


def study(root: Path, subject: Mapping[str, Level], name: str = "org/model", **settings: object) -> Path:
    """A study of one subject, whose level under each adversary is given; the references never change."""
    store, cells = Store(root), []
    for adversary, at in subject.items():
        for model, its in {name: at, **MODELS}.items():
            cell, items, transcripts = cell_tables({("", 0): its}, identity(model, adversary, **settings))
            cells.append({"model": model, "domain": "vault", "exposed": "exposed", "adversary": adversary})
            cells[-1]["cell_ids"] = [store.write(cell, items, transcripts).cell_id]
    record = {
        "request": {"subjects": [name], "tier": "smoke", "only": list(subject)},
        "subjects": [{"subject": name, "exposed": "exposed", "never_exposed": "never", "domain": {"name": "vault"}}],
        "adversaries": {
            each: {"family": ADVERSARIES[each].family, "source": "", **ADVERSARIES[each].identity()} for each in subject
        },
        "cells": cells,
    }
    (root / "study.json").write_text(json.dumps(record))
    return root


@pytest.fixture
def two(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Makes a study in which the subject keeps 0.25 and one in which it keeps ``after`` under prefill."""

    def make(after: float = 0.75, **settings: object) -> tuple[Path, Path]:
        before, attacked = level(0.25, refused=1.0), level(0.25, refused=0.0)
        first = study(tmp_path / "first", {"none": before, "prefill": attacked})
        second = study(tmp_path / "second", {"none": before, "prefill": level(after, refused=0.0)}, **settings)
        return first, second

    return make


@pytest.mark.parametrize(("after", "outcome"), [(0.75, "inconclusive"), (1.0, "broken")])
def test_changes_are_those_that_were_made(two: Callable[..., tuple[Path, Path]], after: float, outcome: str) -> None:
    first, second = two(after=after)
    found = compare(first, second)
    assert found.settings == []
    [subject] = found.subjects
    assert {name: paired.change.value for name, paired in subject.before.items()} == dict.fromkeys(subject.before, 0.0)
    [_, prefill] = subject.adversaries
    assert (prefill.first, prefill.second) == ("resisted", outcome)
    gain = (after - 0.25) / 0.75
    moved = {name: paired.change.value for name, paired in prefill.measures.items()}
    assert moved == pytest.approx({"R": gain, "K": gain, "utility": 0, "refused": 0, "right": 0})
    assert prefill.measures["R"].change.low > 0.2, "most of the items moved, in pairs"
    assert prefill.measures["R"].second.value == pytest.approx(gain)
    alike = {name: paired.alike.value for name, paired in prefill.measures.items() if paired.alike}
    assert alike == pytest.approx({"K": 1.25 - after, "utility": 1, "refused": 1, "right": 1})


def test_a_study_with_itself_does_not_differ(finished_study: Path) -> None:
    found = compare(finished_study, finished_study)
    assert found.settings == []
    for row in found.subjects[0].adversaries:
        assert row.first == row.second
        defined = [paired.change for paired in row.measures.values() if paired.change.defined]
        assert defined and all(change.value == 0 for change in defined)
        assert {name for name, paired in row.measures.items() if paired.alike is None} == {"R", "loss"}
        assert all(paired.alike.value == 1 for paired in row.measures.values() if paired.alike)
        assert [paired.distance.value for paired in row.measures.values() if paired.distance] == [0]


@pytest.mark.parametrize(
    ("settings", "severity", "what"),
    [
        ({"domain": {"name": "vault", "version": "2.0.0", "fingerprint": "g"}}, "breaking", "domain version"),
        ({"probes": 2}, "breaking", "probes"),
        ({"engine": {"name": "hf", "device": "cuda"}}, "serious", "engine device"),
        ({"sampling": {"max_new_tokens": 512}}, "serious", "longest answer"),
    ],
)
def test_settings_by_severity(
    two: Callable[..., tuple[Path, Path]], settings: dict[str, object], severity: str, what: str
) -> None:
    first, second = two(**settings)
    found = compare(first, second)
    assert (found.settings[0].severity, found.settings[0].what) == (severity, what)
    assert bool(found.subjects) == (severity != "breaking")


def test_an_adversary_that_is_set_otherwise_is_named_and_not_compared(tmp_path: Path) -> None:
    levels = {"none": level(0.25), "t-facts": level(0.25)}
    first = study(tmp_path / "first", levels)
    longer = {**ADVERSARIES["t-facts"].identity(), "budget": {"steps": Budget(5000).steps}}
    second = study(tmp_path / "second", levels, adversary=longer)
    found = compare(first, second)
    assert "adversary t-facts budget.steps" in [setting.what for setting in found.settings]
    assert [row.adversary for row in found.subjects[0].adversaries] == []


def test_subjects_are_paired_by_name_or_alone(tmp_path: Path, two: Callable[..., tuple[Path, Path]]) -> None:
    first, _ = two()
    other = study(tmp_path / "other", {"none": level(0.5)}, name="org/another")
    assert compare(first, other).subjects[0].second == "org/another"
    record = json.loads((other / "study.json").read_text())
    name = "org/another"
    record["subjects"].append({**record["subjects"][0], "subject": "org/a-third"})
    record["cells"] += [{**entry, "model": "org/a-third"} for entry in record["cells"] if entry["model"] == name]
    (other / "study.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="share no subject"):
        compare(first, other)
    with pytest.raises(UsageError, match="holds no finished study"):
        compare(first, tmp_path / "nowhere")


def test_an_adversary_of_one_study_only(tmp_path: Path, two: Callable[..., tuple[Path, Path]]) -> None:
    first, _ = two()
    short = study(tmp_path / "short", {"none": level(0.25)})
    [setting] = compare(first, short).settings
    assert (setting.what, setting.first, setting.second) == ("adversary prefill", "run", "not run")


def test_the_change_of_recovery_is_the_difference_and_pairing_narrows_it() -> None:
    generator = np.random.default_rng(0)
    exposed, never = np.ones(200), (generator.random(200) < 0.25).astype(float)
    first = np.maximum(never, generator.random(200) < 0.5).astype(float)
    second = np.maximum(first, generator.random(200) < 0.2).astype(float)
    change = recovery_change((first, never, exposed), (second, never, exposed))
    apart = [recovery(values, never, exposed).estimate for values in (first, second)]
    assert change.value == pytest.approx(apart[1].value - apart[0].value)
    assert change.low > 0
    assert change.high - change.low < (apart[0].high - apart[0].low) + (apart[1].high - apart[1].low)
    assert not recovery_change((first, never, never), (second, never, exposed)).defined


def test_changes_name_every_leaf_once() -> None:
    first = {"a": [1, {"b": 2.0}], "c": None, "d": "x", "e": [1, 2]}
    second = {"a": [1, {"b": 2.0 + 1e-9}], "c": 0, "d": "x", "e": [1], "f": True}
    assert [change.path for change in changes(first, second)] == ["a.1.b", "c", "e", "f"]
    assert [change.path for change in changes(first, second, tolerance=1e-6)] == ["c", "e", "f"]
    assert [str(change) for change in changes({"a": 1}, {"a": True})] == ["a is True, not 1"]
    assert fingerprint(first) != fingerprint({**first, "c": 0})


def test_a_damaged_study_is_not_compared(finished_study: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished_study, tmp_path / "study")
    items = next(root.glob("*/items.parquet"))
    items.write_bytes(items.read_bytes()[:-1])
    with pytest.raises(Exception, match="is damaged"):
        compare(finished_study, root)


def test_another_machine_is_a_minor_difference(finished_study: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished_study, tmp_path / "study")
    for file in root.glob("*/cell.json"):
        cell = Cell.model_validate_json(file.read_bytes())
        assert set(COMPARED) <= set(cell.environment) and platform.node() not in cell.environment.values()
        cell.environment |= {"processor": "Another Processor", "numpy": "9"}
        cell.sha256 = cell.content_sha256()
        file.write_text(cell.model_dump_json())
    found = compare(finished_study, root).settings
    assert [(s.severity, s.what, s.second) for s in found] == [
        ("minor", "numpy", "9"),
        ("minor", "processor", "Another Processor"),
    ]
