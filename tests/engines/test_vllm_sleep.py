"""Memory shared with training by sleeping, on a GPU for real and elsewhere by the order of what vLLM is told."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from immunobench.domains import Domain
from immunobench.engines.parity import Canary
from immunobench.engines.placement import Sharing
from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_settings import Settings
from immunobench.study.opening import sharing_of
from immunobench.subjects import Subject, load_subject
from tests.engines.vllm_models import (
    EXACT,
    UNTOUCHED,
    WEIGHTS,
    agrees,
    changed,
    needs_vllm,
)


@pytest.mark.slow
@needs_vllm
@pytest.mark.skipif(not torch.cuda.is_available(), reason="vllm sleeps on a GPU only")
def test_it_sleeps_on_a_gpu_and_wakes_with_the_right_weights(domain: Domain) -> None:
    subject, settings = load_subject("organism:refusal"), Settings(cache_gib=0.25)
    engine = VLLMEngine(subject, settings, dataclasses.replace(sharing_of(subject, settings), how="sleep"))
    try:
        engine.start()
        asleep = torch.cuda.mem_get_info(subject.device)[0]
        for artifact, size in ((UNTOUCHED, 0.0), (WEIGHTS, 0.02), (UNTOUCHED, 0.0)):
            with changed(subject, size), engine.use(artifact):
                assert engine.parity is not None and engine.parity["passed"], engine.parity
                assert torch.cuda.mem_get_info(subject.device)[0] < asleep
                agrees(engine, domain, 4)
    finally:
        engine.close()


class Sleeper:
    """Stands for vLLM on a GPU, where alone it can sleep: notes what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def sleep(self, level: int) -> None:
        """Told to sleep."""
        self.told.append(f"sleep {level}")

    def wake_up(self) -> None:
        """Told to wake."""
        self.told.append("wake")

    def collective_rpc(self, method: str, args: tuple[str]) -> None:
        """Told to load."""
        self.told.append(method)

    def reset_prefix_cache(self) -> bool:
        """Told at each check."""
        self.told.append("check")
        return True


@needs_vllm
def test_it_sleeps_at_level_1_between_cells(subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The order of what vLLM is told; the canary looks at the live model in its place."""
    engine = VLLMEngine(subject, Settings(dtype="float32"), Sharing("sleep", 0))
    engine._llm = vllm = Sleeper()
    (tmp_path / "untouched").mkdir()
    monkeypatch.setattr(engine, "_folder", SimpleNamespace(name=str(tmp_path), cleanup=lambda: None), raising=False)
    monkeypatch.setattr(engine, "_untouched", tmp_path / "untouched", raising=False)
    monkeypatch.setattr(engine, "_canary", Canary(engine.fallback, EXACT), raising=False)
    monkeypatch.setattr(engine, "_untouched_parity", None, raising=False)
    monkeypatch.setattr(engine, "generate", engine.fallback.generate)
    monkeypatch.setattr(engine, "logprobs", engine.fallback.logprobs)
    with engine.use(UNTOUCHED):
        vllm.told.append("serve")
    with changed(subject, 0.02), engine.use(WEIGHTS):
        vllm.told.append("serve")
    load = "update_weights_from"
    assert vllm.told == ["wake", "check", "serve", "sleep 1", "wake", load, "check", "serve", "sleep 1"]
