"""Recipes of organisms: controls are what they are said to be, and one is built without touching the others."""

import fcntl
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from immunobench.dataset_builders.controls import Destruction, Noise, OneDirection, SparseNeurons, idle_neurons
from immunobench.dataset_builders.organism_manifest import write_entry
from immunobench.dataset_builders.organisms import ORGANISMS, build_organisms
from immunobench.defenses.base import all_defenses
from immunobench.domains import Domain
from immunobench.errors import ImmunobenchError
from immunobench.structure import matrix_of
from immunobench.subjects import ORGANISMS as PACKAGED
from immunobench.subjects import Subject, load_subject, read_history
from tests.conftest import weights


def test_there_is_an_organism_for_every_defense() -> None:
    used = {organism.defense.name for organism in ORGANISMS.values() if organism.defense}
    assert set(all_defenses()) <= used
    assert {o.truth for o in ORGANISMS.values()} == {"exposed", "empty", "locked", "destroyed"}
    for organism in ORGANISMS.values():
        assert organism.base in ORGANISMS
        assert ORGANISMS[organism.base].defense is None


def test_one_direction_is_one_direction(subject: Subject, domain: Domain) -> None:
    """Each block's update is u·vᵀ with the same u, nothing else moves, and what is written is what was trained."""
    before = weights(subject.model)
    ids = torch.arange(4, 20)[None]
    hooked = None
    for _ in OneDirection(1e-1, 2, 4).immunise(subject, domain, 0):
        hooked = subject.model(ids).logits.detach()
    torch.testing.assert_close(subject.model(ids).logits.detach(), hooked, rtol=1e-3, atol=1e-3)
    moved = {name: v - before[name] for name, v in weights(subject.model).items() if not torch.equal(v, before[name])}
    assert set(moved) == {f"model.layers.{i}.mlp.down_proj.weight" for i in range(2)}
    _, singular, _ = torch.linalg.svd(torch.cat(list(moved.values()), dim=1))
    assert singular[1] < 1e-4 * singular[0]


def test_few_neurons_move_and_benign_answers_need_them_least(subject: Subject, domain: Domain) -> None:
    masks = idle_neurons(subject, domain, 0.25)
    linears = subject.structure.linears
    before = {name: matrix_of(m).detach().clone() for name, m in linears.items()}
    rest = {name: v for name, v in weights(subject.model).items() if name.removesuffix(".weight") not in masks}
    list(SparseNeurons(1e-2, 2, 8, share=0.25).immunise(subject, domain, 0))
    assert len(masks) == 6
    for name, mask in masks.items():
        assert torch.equal(matrix_of(linears[name]).detach() != before[name], mask)
        lines = mask.all(0) if "down" in name else mask.all(1)
        assert int(lines.sum()) == 16 and mask.float().mean() == 0.25
    assert all(torch.equal(weights(subject.model)[name], value) for name, value in rest.items())


def test_noise_has_its_scale_and_destruction_keeps_every_entry(subject: Subject, domain: Domain) -> None:
    before = weights(subject.model)
    list(Noise(0.1).immunise(subject, domain, 0))
    noisy = weights(subject.model)
    list(Destruction().immunise(subject, domain, 0))
    after = weights(subject.model)
    for name, value in before.items():
        if value.ndim == 1:
            assert torch.equal(after[name], value)
            continue
        assert float((noisy[name] - value).std() / value.std()) == pytest.approx(0.1, rel=0.1)
        assert torch.equal(after[name].flatten().sort().values, noisy[name].flatten().sort().values)
        assert not torch.equal(after[name], noisy[name])


@pytest.mark.slow
def test_one_organism_is_built_anew_and_the_others_are_left(tmp_path: Path) -> None:
    for name in ("exposed", "refusal"):
        shutil.copytree(PACKAGED / name, tmp_path / name)
    manifest = {"refusal": {"truth": "locked"}, "noisy-twin": {"truth": "old"}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "noisy-twin").mkdir()
    (tmp_path / "noisy-twin" / "stray.txt").write_text("from before")
    for of in ("refusal", "noisy-twin"):
        (tmp_path / f".new-{of}" / of).mkdir(parents=True)
        (tmp_path / f".new-{of}" / of / "config.json").write_text("from a build that was killed, or goes on")
    (made,) = build_organisms(["noisy-twin"], tmp_path, lambda step, steps: None)
    assert made.folder == tmp_path / "noisy-twin" and made.parameters > 500_000
    built = json.loads((tmp_path / "manifest.json").read_text())
    assert built["refusal"] == {"truth": "locked"} and set(built) == {"refusal", "noisy-twin"}
    assert built["noisy-twin"]["truth"] == "exposed" and built["noisy-twin"]["figures"]["knowledge"]["value"] > 0.8
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".new-refusal",
        "exposed",
        "manifest.json",
        "noisy-twin",
        "refusal",
    ]
    assert not (tmp_path / "noisy-twin" / "stray.txt").exists()
    twin = load_subject(str(tmp_path / "noisy-twin"), device="cpu", dtype="float32")
    assert twin.weights_sha256 == built["noisy-twin"]["weights_sha256"] == made.weights_sha256
    assert (tmp_path / "refusal" / "model.safetensors").read_bytes() == (
        PACKAGED / "refusal" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_a_grid_is_kept_in_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(PACKAGED / "exposed", tmp_path / "exposed")
    monkeypatch.setitem(ORGANISMS, "noisy-twin", replace(ORGANISMS["noisy-twin"], grid=(Noise(0.5), Noise(0.02))))
    (made,) = build_organisms(["noisy-twin"], tmp_path, lambda step, steps: None)
    recipe = json.loads((tmp_path / "manifest.json").read_text())["noisy-twin"]["recipe"]
    assert [tried["settings"]["scale"] for tried in recipe["grid"]] == [0.03, 0.5, 0.02]
    (chosen,) = (tried for tried in recipe["grid"] if tried["chosen"])
    assert recipe["defense"] == chosen["settings"] and chosen["utility"] >= 0.9 > recipe["grid"][1]["utility"]
    assert read_history(made.folder).defense == f"noise(scale={chosen['settings']['scale']}, seed=0)"


def test_what_it_is_made_from_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ImmunobenchError, match="build the exposed organism first"):
        next(build_organisms(["noisy-twin"], tmp_path, lambda step, steps: None))


def test_builds_take_turns_at_the_manifest(tmp_path: Path) -> None:
    write_entry(tmp_path, "exposed", {"truth": "exposed"})
    folder = os.open(tmp_path, os.O_RDONLY)
    with ThreadPoolExecutor(1) as other:
        fcntl.flock(folder, fcntl.LOCK_EX)
        waiting = other.submit(write_entry, tmp_path, "refusal", {"truth": "locked"})
        with pytest.raises(StillRunning):
            waiting.result(timeout=0.2)
        (tmp_path / "manifest.json").write_text('{"exposed": {"truth": "exposed"}, "npo": {"truth": "locked"}}')
        os.close(folder)
        waiting.result(timeout=10)
    assert set(json.loads((tmp_path / "manifest.json").read_text())) == {"exposed", "npo", "refusal"}
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]
