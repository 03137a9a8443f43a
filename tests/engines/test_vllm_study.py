"""A whole study on vLLM: cut off by a kill, taken up again, and held against the same study on transformers."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from immunobench.engines.base import Engine, EngineDiedError
from immunobench.engines.hf import HFEngine
from immunobench.engines.placement import Choice
from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_settings import Settings, installed_version
from immunobench.errors import ImmunobenchError
from immunobench.hub.verify import verify
from immunobench.study import opening
from immunobench.study.compare import compare
from immunobench.study.executors.local import LocalProcesses, Place
from immunobench.study.request import Request
from immunobench.study.reread import load_study
from immunobench.study.run import run_study
from immunobench.study.store import Store
from immunobench.subjects import load_subject
from tests.conftest import Silent

ROWS = ("none", "prefill", "quantise", "sampling", "unrelated-10")
REQUEST = Request(["organism:refusal"], "smoke", ROWS, domain="vault/32", max_new_tokens=24)


class Killer(Silent):
    """Kills the engine process when the second cell is done, as someone in need of memory would."""

    def cell_done(self, subject: str, task: Any, cell: Any, stored: bool) -> None:
        """A cell is done."""
        super().cell_done(subject, task, cell, stored)
        if len(self.done) == 2:
            for child in psutil.Process().children(recursive=True):
                if "EngineCore" in child.name():
                    child.kill()


def on_vllm(spec: str) -> Engine:
    """The model in vLLM."""
    return VLLMEngine(load_subject(spec), Settings(cache_gib=0.25))


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(installed_version() is None, reason="vllm is not installed: make .venv/.vllm"),
]


def engine_processes() -> list[psutil.Process]:
    """Those of vLLM on this machine."""
    return [process for process in psutil.process_iter(["name"]) if "EngineCore" in process.info["name"]]


def test_workers_end_the_engines_that_they_started(tmp_path: Path) -> None:
    before = {process.pid for process in engine_processes()}
    asked = dataclasses.replace(REQUEST, only=("none",), max_new_tokens=8)
    _, record = run_study(asked, Store(tmp_path), on_vllm, Silent(), LocalProcesses(tmp_path, on_vllm, [Place(())]))
    assert not record["failed"]
    stored = [Store(tmp_path).read(entry["cell_ids"][0]) for entry in record["cells"]]
    assert {cell.identity["engine"]["name"] for cell in stored if cell} == {"vllm"}
    assert {process.pid for process in engine_processes()} <= before


def test_auto_falls_back_where_vllm_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name it is an error, which says what to do."""
    monkeypatch.setattr(opening, "choose", lambda *_: Choice("vllm", "it pays"))
    subject, impossible = load_subject("organism:refusal"), Settings(quantization="none-such", cache_gib=0.25)
    told: list[str] = []
    engine, settled = opening.Opener("auto", impossible, warn=told.append).open(subject)
    assert engine.name == settled.engine == "hf" and "instead_of" not in engine.flags
    assert len(told) == 1 and "hf takes this study" in told[0] and "none-such" in engine.resolved["chosen"]
    short = Settings(max_model_len=16, cache_gib=0.25)
    engine, settled = opening.Opener("auto", short, warn=told.append).open(subject)
    assert engine.name == settled.engine == "hf" and "started for 16" in told[1]
    named, _ = opening.Opener("vllm", impossible).open(subject)
    with pytest.raises(ImmunobenchError, match="choose --engine hf"):
        named.start()


def test_both_engines_come_to_the_same(tmp_path: Path) -> None:
    with pytest.raises(EngineDiedError, match="the same command goes on"):
        run_study(REQUEST, Store(tmp_path / "vllm"), on_vllm, Killer())
    told = Silent()
    found, _ = run_study(REQUEST, Store(tmp_path / "vllm"), on_vllm, told)
    assert [stored for *_, stored in told.done].count(True) == 2
    expected, _ = run_study(REQUEST, Store(tmp_path / "hf"), lambda spec: HFEngine(load_subject(spec)), Silent())
    assert found[0].verdict.name == expected[0].verdict.name
    for ours, theirs in zip(found[0].scores, expected[0].scores, strict=True):
        assert (ours.adversary, ours.outcome.name) == (theirs.adversary, theirs.outcome.name)

    (vllm, _, _), (hf, _, _) = (load_study(tmp_path / name) for name in ("vllm", "hf"))
    for key, cells in vllm.cells.items():
        for cell, reference in zip(cells, hf.cells[key], strict=True):
            assert cell.engine == "vllm"
            assert cell.cell.environment["engine"]["cache_blocks"] > 0
            for point in cell.cell.points:
                assert point.parity is not None and point.parity["passed"], (key, point)
                right = [m.values(point.index, "knowledge", "correct") for m in (cell, reference)]
                assert np.mean(right[0] == right[1]) >= 0.97
                losses = [m.values(point.index, "knowledge", "cloze_loss") for m in (cell, reference)]
                np.testing.assert_allclose(*losses, atol=0.01)

    compared = compare(tmp_path / "hf", tmp_path / "vllm")
    assert {setting.severity for setting in compared.settings} == {"serious"}, compared.settings
    [subject] = compared.subjects
    assert {change.adversary for change in subject.adversaries} == set(ROWS)
    for change in subject.adversaries:
        assert change.first == change.second
        known, loss = change.measures["K"], change.measures["loss"]
        assert known.alike is not None and known.alike.value >= 0.97
        assert loss.distance is not None and loss.distance.high < 0.01

    again = [cell for cell in verify(str(tmp_path / "vllm"), sample=2).cells if cell.again]
    assert [cell.again in ("same", "within tolerance") for cell in again] == [True, True], again
