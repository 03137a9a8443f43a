"""Which engine a study is opened in."""

from dataclasses import replace

import pytest

from immunobench.engines.hf import HFEngine
from immunobench.engines.placement import GIB
from immunobench.engines.vllm_settings import Settings, installed_version
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.study import opening
from immunobench.study.opening import Opener, engine_settings, load_of, sharing_of
from immunobench.study.request import Request
from immunobench.subjects import Subject

ASKED = Request(["organism:refusal"], "smoke", ("none", "quantise"), domain="vault/32", max_new_tokens=10)


def test_what_is_asked_for_is_opened(subject: Subject) -> None:
    engine, settled = Opener("hf").open(subject)
    assert isinstance(engine, HFEngine) and engine.resolved == {"chosen": "asked for"} and settled.engine == "hf"
    engine, settled = Opener("auto").open(subject)
    assert engine.name == settled.engine == "hf"
    why = "not known" if installed_version() else "not installed"
    assert why in engine.resolved["chosen"]


def test_a_model_that_fills_the_memory_is_no_subject_for_vllm(subject: Subject) -> None:
    settings = Settings(cache_gib=1e6)
    assert sharing_of(subject, settings).how == "no room"
    with pytest.raises(ImmunobenchError, match="choose --engine hf"):
        Opener("vllm", settings).open(subject)


def test_a_worker_takes_vllm_only_by_name(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "parent_process", object)
    assert Opener("auto").choice(subject).engine == "hf"
    assert "by name" in Opener("auto").choice(subject).reason
    assert Opener("vllm", Settings(cache_gib=0.01)).choice(subject).engine == "vllm"


def test_memory_is_counted_in_the_type_that_is_served(subject: Subject) -> None:
    single, half = (sharing_of(subject, Settings(dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert single.engine_bytes - 2 * GIB == 4 * subject.parameters
    assert half.engine_bytes - 2 * GIB == 2 * subject.parameters


def test_the_load_of_a_study_grows_with_what_is_asked(subject: Subject) -> None:
    once = load_of(ASKED, subject)
    assert once.swaps == 3  # 8, 4 and 3 bits
    three = load_of(replace(ASKED, seeds=3), subject)
    assert (three.generated, three.scored, three.swaps) == (3 * once.generated, 3 * once.scored, 9)
    longer = load_of(replace(ASKED, max_new_tokens=20), subject)
    assert longer.generated == 2 * once.generated and longer.scored == once.scored
    untouched = load_of(replace(ASKED, only=("none",)), subject)
    assert untouched.swaps == 0 and untouched.scored * 4 == once.scored
    read = load_of(replace(ASKED, tier="quick", only=("none", "logit-lens")), subject)
    assert read == untouched, "transformers takes it on either engine"
    sampled = load_of(replace(ASKED, tier="quick", only=("none", "sampling")), subject)
    assert sampled.generated == 6 * untouched.generated


def test_settings_of_vllm_are_read_and_checked() -> None:
    found = engine_settings(["tensor_parallel_size=2", "dtype=bfloat16", "cache_gib=4", "batch_invariant=true"])
    assert found == Settings("bfloat16", None, 2, batch_invariant=True, cache_gib=4)
    for wrong, said in (
        ("tensor_parallel=2", "did you mean 'tensor_parallel_size'"),
        ("tensor_parallel_size=two", "tensor_parallel_size is int"),
        ("dtype=float31", "did you mean 'float32'"),
        ("block_size", "does not fit"),
    ):
        with pytest.raises(UsageError, match=said):
            engine_settings([wrong])
