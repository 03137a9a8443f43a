"""Models changed by known amounts, and whether vLLM answers as they do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from immunobench.domains import Domain
from immunobench.edits import low_rank_adapter, restored
from immunobench.engines.base import Artifact, Sampling
from immunobench.engines.hf import HFEngine
from immunobench.engines.parity import BOUNDS
from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_settings import installed_version
from immunobench.subjects import Subject

needs_vllm = pytest.mark.skipif(installed_version() is None, reason="vllm is not installed: make .venv/.vllm")
EXACT = BOUNDS["float32"]
UNTOUCHED, ADAPTER, WEIGHTS = Artifact(), Artifact("adapter"), Artifact("weights")


@contextmanager
def adapter(subject: Subject, size: float, seed: int = 0) -> Iterator[None]:
    """A LoRA of rank 16 on every block linear, none of its matrices zero."""
    with low_rank_adapter(subject.model, subject.structure.linears, 16, 32, seed) as parameters:
        move(parameters, size, seed)
        yield


@contextmanager
def changed(subject: Subject, size: float) -> Iterator[None]:
    """All weights moved."""
    with restored(subject.model):
        move(subject.model.parameters(), size, 1)
        yield


def move(parameters: Any, size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_((torch.randn(parameter.shape, generator=generator) * size).to(parameter.device))


def choices(subject: Subject, domain: Domain, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and continuations of four-way questions."""
    facts = domain.hazard_v[:count]
    prompts = [subject.renderer.prompt(fact.question) for fact in facts for _ in fact.choices]
    return prompts, [subject.renderer.ids(f"{choice}.") for fact in facts for choice in fact.choices]


def agrees(engine: VLLMEngine, domain: Domain, count: int = 8) -> None:
    """Choices within the bounds, and the greedy answers of the live model but for near ties."""
    reference = HFEngine(engine.subject)
    prompts, continuations = choices(engine.subject, domain, count)
    found, expected = engine.logprobs(prompts, continuations), reference.logprobs(prompts, continuations)
    assert [len(a) for a in found] == [len(b) for b in expected]
    difference = (torch.cat(found) - torch.cat(expected)).abs()
    bounds = BOUNDS[engine.settings.dtype]
    assert difference.mean() <= bounds.mean and difference.max() <= bounds.largest
    requests = [engine.subject.renderer.prompt(r.prompt) for r in domain.requests_v[:count]]
    sampling = Sampling(max_new_tokens=24)
    answers = [[c.ids for [c] in which.generate(requests, sampling)] for which in (engine, reference)]
    # In bfloat16 one near tie parts two answers for good, so only their first tokens are held to agree.
    compared = None if bounds == EXACT else 1
    same = [own[:compared] == other[:compared] for own, other in zip(*answers, strict=True)]
    assert sum(same) >= 0.75 * len(same)
