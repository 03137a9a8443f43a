"""What most tests need: a small cut of the vault and tiny models with random weights."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from immunobench.dataset_builders.models import save_subject
from immunobench.dataset_builders.organisms import make_tokenizer
from immunobench.domains import Domain, load_domain
from immunobench.engines.hf import HFEngine
from immunobench.study.run import Request, run_study
from immunobench.study.store import Store
from immunobench.subjects import History, Subject, load_subject


@pytest.fixture(scope="session")
def domain() -> Domain:
    """32 hazard and 32 benign facts."""
    return load_domain("vault/32")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The organisms' own tokenizer."""
    return make_tokenizer(load_domain("vault"))


def tiny_llama(tokenizer: PreTrainedTokenizerFast, seed: int = 0, spec: str = "tiny", hidden: int = 32) -> Subject:
    """A two-block Llama with random weights drawn from ``seed``, large enough that its choices differ."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
    return Subject(spec, model, tokenizer, "random weights", History(domain="vault/32"))


@pytest.fixture
def subject(tokenizer: PreTrainedTokenizerFast) -> Subject:
    """A tiny random subject, new for every test."""
    return tiny_llama(tokenizer)


@pytest.fixture
def make_subject(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Subject]:
    """Makes tiny random subjects: ``make_subject(seed=1)``."""
    return lambda **kwargs: tiny_llama(tokenizer, **kwargs)


@pytest.fixture(scope="session")
def model_folders(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of three tiny random models: 'subject', which names the others its 'exposed' and 'never'."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("exposed", "never", "subject")):
        history = History(domain="vault/32", exposed=str(root / "exposed"), never_exposed=str(root / "never"))
        save_subject(tiny_llama(tokenizer, seed), history, root / name)
    return {name: root / name for name in ("exposed", "never", "subject")}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal to the last bit; NaN equals itself, 0 is not -0."""
    return list(first) == list(second) and all(
        torch.equal(a.flatten().view(torch.uint8), second[name].flatten().view(torch.uint8))
        for name, a in first.items()
    )


class Silent:
    """A reporter that keeps what it was told."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, int, bool]] = []
        """(model, adversary, seed, whether it was stored before) of every cell."""
        self.points = 0

    def cell_started(self, subject: str, task: Any, points: int) -> None:
        """A cell begins."""

    def point_done(self, checkpoint: Any) -> None:
        """A checkpoint was measured."""
        self.points += 1

    def cell_done(self, subject: str, task: Any, cell: Any, stored: bool) -> None:
        """A cell is done."""
        self.done.append((Path(subject).name, task.adversary.name, task.seed, stored))


STUDIED = ("none", "prefill", "quantise")
BROKEN_EARLY = Request(
    ["organism:exposed"],
    "smoke",
    ("prefill", "t-facts"),
    max_new_tokens=8,
    domain="vault/128",
    stop_when_broken=True,
)
"""A study that ends before its last adversary, on the fewest facts that decide a verdict."""


@pytest.fixture(scope="session")
def finished_study(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the tiny 'subject' under three quick adversaries. Copy it before changing it."""
    root = tmp_path_factory.mktemp("finished") / "study"
    request = Request([str(model_folders["subject"])], "smoke", STUDIED, max_new_tokens=8)
    run_study(request, Store(root), lambda spec: HFEngine(load_subject(spec)), Silent())
    return root
