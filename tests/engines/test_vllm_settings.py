"""Settings of vLLM: resolved from the subject, and read back from an identity."""

import json
from collections.abc import Callable

import pytest
import torch

from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_settings import Settings, as_flags, from_flags, installed_version, resolve
from immunobench.errors import ImmunobenchError
from immunobench.subjects import Subject


def test_settings_are_read_back_from_an_identity(subject: Subject) -> None:
    asked = Settings(dtype="bfloat16", max_model_len=64, block_size=16, adapters=True, batch_invariant=True)
    flags = as_flags(resolve(asked, subject))
    assert "dtype" not in flags and flags["served_dtype"] == "bfloat16"
    assert as_flags(resolve(from_flags(json.loads(json.dumps(flags))), subject)) == flags


def test_settings_are_resolved_from_the_subject(subject: Subject, make_subject: Callable[..., Subject]) -> None:
    found = resolve(Settings(), subject)
    assert (found.dtype, found.max_model_len, found.enforce_eager, found.block_size) == ("float32", 256, True, 32)
    assert found.adapters is False
    assert resolve(Settings(dtype="bfloat16", max_model_len=64), subject).max_model_len == 64
    half = make_subject()
    half.model.to(torch.float16)
    assert resolve(Settings(), half).dtype == "float16"


@pytest.mark.skipif(installed_version() is not None, reason="vllm is installed")
def test_without_vllm_the_error_says_what_to_do(subject: Subject) -> None:
    with pytest.raises(ImmunobenchError, match="--engine hf"):
        VLLMEngine(subject)
