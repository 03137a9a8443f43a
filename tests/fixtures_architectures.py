"""Tiny random subjects: two unlike architectures, Llama (nn.Linear) and GPT-2 (Conv1D, transposed weights), and every
family that is found by structure."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from immunobench.subjects import History, Subject
from tests.conftest import tiny_llama
from tests.test_structure import build

ARCHITECTURES = ("llama", "gpt2")


def tiny_gpt2(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Subject:
    """A two-block GPT-2 with random weights."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=256,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config).eval()
    return Subject("tiny-gpt2", model, tokenizer, "random weights", History(domain="vault/32"))


def tiny(architecture: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Subject:
    """A tiny random subject of one of ``ARCHITECTURES``."""
    return {"llama": tiny_llama, "gpt2": tiny_gpt2}[architecture](tokenizer, seed)


def tiny_family(family: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Subject:
    """A tiny random subject of one of ``FAMILIES`` in tests/test_structure.py."""
    positions = "n_positions" if family == "GPT2" else "max_position_embeddings"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(
            family,
            vocab_size=len(tokenizer),
            initializer_range=0.2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **{positions: 256},
        )
    return Subject(f"tiny-{family}", model, tokenizer, "random weights", History(domain="vault/32"))
