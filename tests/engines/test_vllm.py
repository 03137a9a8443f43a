"""vLLM for real: the engine against the live model, and planted failures that its canary has to catch.

One engine process serves all tests of the organism; each leaves it on the untouched subject.
"""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from immunobench.activations import virtual_tokens
from immunobench.domains import Domain
from immunobench.edits import untied
from immunobench.engines.base import Artifact, EngineDiedError, NotServedError, Sampling
from immunobench.engines.hf import HFEngine
from immunobench.engines.parity import BOUNDS
from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_settings import Settings
from immunobench.rendering import PromptEdit
from immunobench.study.opening import sharing_of
from immunobench.subjects import load_subject, multiplies_bfloat16
from tests.engines.vllm_models import ADAPTER, EXACT, UNTOUCHED, WEIGHTS, adapter, agrees, changed, choices, needs_vllm

slow_with_vllm = [pytest.mark.slow, needs_vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def engine() -> Iterator[VLLMEngine]:
    """The refusal organism in vLLM, in float32."""
    subject, settings = load_subject("organism:refusal"), Settings(adapters=True, cache_gib=0.25)
    engine = VLLMEngine(subject, settings, sharing_of(subject, settings))
    engine.start()
    yield engine
    engine.close()


@pytest.fixture
def served(engine: VLLMEngine) -> Iterator[VLLMEngine]:
    """The engine, and afterwards the proof that it serves the untouched subject again."""
    yield engine
    with engine.use(UNTOUCHED):
        assert engine.parity is not None and engine.parity["passed"], engine.parity


def cores() -> set[int]:
    """The engine processes that this one started."""
    return {child.pid for child in psutil.Process().children(recursive=True) if "EngineCore" in child.name()}


class TestWithVLLM:
    """What needs the engine process."""

    pytestmark = slow_with_vllm

    def test_the_untouched_subject(self, served: VLLMEngine, domain: Domain) -> None:
        with served.use(UNTOUCHED):
            agrees(served, domain)
        assert served.flags["dtype"] == "float32" and served.flags["max_model_len"] == 256
        assert served.resolved["cache_blocks"] > 0 and served.resolved["cache_gib"] == 0.25

    def test_scores_do_not_depend_on_what_is_cached(self, served: VLLMEngine) -> None:
        """A text that the prefix cache holds whole was not computed: it is asked for again, not made up."""
        size = len(served.subject.tokenizer)
        tokens = torch.randint(5, size, (150,), generator=torch.Generator().manual_seed(0)).tolist()
        prompts = [tokens[:n] for n in (64, 65, 40, 100, 149)]
        continuations = [tokens[n : n + 40] for n in (64, 65, 40, 100, 149)]
        first = served.logprobs(prompts, continuations)
        again = served.logprobs(prompts, continuations)
        expected = HFEngine(served.subject).logprobs(prompts, continuations)
        for a, b, c in zip(first, again, expected, strict=True):
            torch.testing.assert_close(a, c, atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(b, c, atol=1e-3, rtol=1e-3)
        assert served.logprobs([], []) == [] and served.generate([], Sampling()) == []

    def test_an_adapter_by_request(self, served: VLLMEngine, domain: Domain) -> None:
        requests = []
        for seed in (0, 1, 1):
            with adapter(served.subject, 0.05, seed), served.use(ADAPTER):
                assert served.parity is not None and served.parity["passed"], served.parity
                assert served.parity["moved"] > EXACT.mean
                requests.append(served._adapter)
                agrees(served, domain, 4)
            assert not Path(requests[-1].lora_path).exists()
        names, ids = [r.lora_name for r in requests], [r.lora_int_id for r in requests]
        assert names[0] != names[1] == names[2] and len(set(ids)) == 3

    def test_changed_weights_in_place(self, served: VLLMEngine, domain: Domain) -> None:
        prompts, continuations = choices(served.subject, domain, 4)
        before = served.logprobs(prompts, continuations)
        with changed(served.subject, 0.02), served.use(WEIGHTS):
            assert served.parity is not None and served.parity["passed"] and served.parity["moved"] > EXACT.mean
            agrees(served, domain, 4)
        with served.use(UNTOUCHED):
            after = served.logprobs(prompts, continuations)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

    def test_an_adapter_after_changed_weights_sits_on_the_untouched_ones(self, served: VLLMEngine) -> None:
        with changed(served.subject, 0.02), served.use(WEIGHTS):
            pass
        with adapter(served.subject, 0.05), served.use(ADAPTER):
            assert served.parity is not None and served.parity["passed"]

    def test_soft_prompts_go_in_as_embeddings(self, served: VLLMEngine, domain: Domain) -> None:
        embedding = served.subject.structure.embedding
        assert isinstance(embedding, nn.Embedding)
        edit = PromptEdit(virtual=lambda _: range(embedding.num_embeddings, embedding.num_embeddings + 3))
        drawn = torch.randn(3, embedding.embedding_dim, generator=torch.Generator().manual_seed(0))
        vectors = drawn.to(embedding.weight.device)
        prompts = [served.subject.renderer.prompt(r.prompt, edit) for r in domain.requests_v[:4]]
        answers = [served.subject.renderer.ids(r.answer) for r in domain.requests_v[:4]]
        reference = HFEngine(served.subject)
        with virtual_tokens(embedding, vectors), served.use(Artifact("soft_prompt", edit)):
            found, expected = served.logprobs(prompts, answers), reference.logprobs(prompts, answers)
            assert served.parity is not None and served.parity["passed"] and served.parity["moved"] > EXACT.mean
            assert served.generate(prompts, Sampling(max_new_tokens=8)) == reference.generate(
                prompts, Sampling(max_new_tokens=8)
            )
        torch.testing.assert_close(torch.cat(found), torch.cat(expected), atol=1e-3, rtol=1e-3)

    def test_samples_follow_the_seed_and_not_the_batch(self, served: VLLMEngine) -> None:
        warm = Sampling(max_new_tokens=6, temperature=1.0, n=3, seed=1)
        both = served.generate([[1, 5, 6, 7], [1, 5, 6, 7]], warm)
        assert served.generate([[1, 5, 6, 7]], warm) == both[:1]
        assert both[0] != both[1] and len({tuple(c.ids) for c in both[0]}) > 1
        cold = Sampling(max_new_tokens=6, temperature=1.0, n=3, seed=2)
        assert served.generate([[1, 5, 6, 7]], cold) != both[:1]

    def test_what_it_cannot_serve_it_says(self, served: VLLMEngine) -> None:
        assert not served.serves(Artifact("hooks")) and not served.serves(Artifact("readout"))
        with pytest.raises(NotServedError, match="hooks"), served.use(Artifact("hooks")):
            pass
        with pytest.raises(NotServedError, match="257 tokens"):
            served.generate([[5] * 200], Sampling(max_new_tokens=57))
        with untied(served.subject.model), pytest.raises(NotServedError, match="parted"), served.use(WEIGHTS):
            pass

    def test_a_stale_adapter_under_a_used_name_is_caught(
        self, served: VLLMEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """vLLM knows an adapter by its name and id: other content under the same ones is never looked at."""
        from vllm.lora.request import LoRARequest

        own, folders = VLLMEngine._new_adapter, itertools.count()

        def same_name(engine: VLLMEngine) -> Any:
            next(folders)
            return LoRARequest("attack", 1000, own(engine).lora_path)

        monkeypatch.setattr(VLLMEngine, "_new_adapter", same_name)
        monkeypatch.setattr(served._llm.llm_engine, "remove_lora", lambda number: True)
        with adapter(served.subject, 0.05, seed=0), served.use(ADAPTER):
            assert served.parity is not None and served.parity["passed"]
        with adapter(served.subject, 0.05, seed=1), served.use(ADAPTER):
            assert not served.parity["passed"], served.parity
        monkeypatch.undo()
        served._llm.llm_engine.remove_lora(1000)

    @pytest.mark.parametrize("size", [0.02, 3e-5])
    def test_weights_that_were_not_taken_over_are_caught(
        self, served: VLLMEngine, monkeypatch: pytest.MonkeyPatch, size: float
    ) -> None:
        """Be the change large, or within the bounds that noise is allowed."""
        monkeypatch.setattr(served, "_load", lambda folder: None)
        monkeypatch.setattr(served, "_restart", lambda folder: None)
        with changed(served.subject, size), served.use(WEIGHTS):
            assert served.parity is not None and not served.parity["passed"], served.parity
        served._changed, served._renews = False, True

    @pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU vllm keeps no packed copy")
    def test_an_output_matrix_that_stayed_behind_is_caught(
        self, served: VLLMEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """vLLM's own reload leaves the packed copy of a tied output matrix as it was on CPU."""

        def plain_reload(folder: Path) -> None:
            served._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})

        with monkeypatch.context() as planted, changed(served.subject, 0.02):
            planted.setattr(served, "_load", plain_reload)
            planted.setattr(served, "_restart", lambda folder: None)
            with served.use(WEIGHTS):
                assert served.parity is not None and not served.parity["passed"], served.parity

    def test_a_prefix_cache_of_other_weights_is_caught(
        self, served: VLLMEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as planted, changed(served.subject, 0.05):
            planted.setattr(served._llm, "reset_prefix_cache", lambda: True)
            planted.setattr(served, "_restart", lambda folder: None)
            with served.use(WEIGHTS):
                assert served.parity is not None and not served.parity["passed"], served.parity

    @pytest.mark.parametrize("raises", [True, False])
    def test_a_new_process_where_weights_cannot_be_loaded_in_place(
        self, served: VLLMEngine, monkeypatch: pytest.MonkeyPatch, domain: Domain, raises: bool
    ) -> None:
        """Be it that the load fails, or that the canary sees that it did nothing."""

        def fails(folder: Path) -> None:
            if raises:
                raise RuntimeError("no weight loader for this layer")

        before = cores()
        with monkeypatch.context() as planted:
            planted.setattr(served, "_load", fails)
            for artifact, size in ((WEIGHTS, 0.02), (UNTOUCHED, 0.0)):
                with changed(served.subject, size), served.use(artifact):
                    assert served.parity is not None and served.parity["passed"], served.parity
                    assert ("no weight loader" if raises else "difference") in served.parity["new_process"]
                    assert len(cores()) == len(before) and cores().isdisjoint(before)
                    agrees(served, domain, 2)
                    before = cores()

    def test_after_an_adapter_the_canary_looks_again(self, served: VLLMEngine) -> None:
        with served.use(UNTOUCHED):
            before = served.parity
        with served.use(UNTOUCHED):
            assert served.parity is before
        with adapter(served.subject, 0.05), served.use(ADAPTER):
            pass
        with served.use(UNTOUCHED):
            assert served.parity is not before and served.parity is not None and served.parity["passed"]

    def test_choices_read_their_prompt_from_the_prefix_cache(
        self, served: VLLMEngine, domain: Domain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A block of 32 tokens is the least that is kept; the questions have more."""
        outputs: list[Any] = []
        own = served._run

        def watched(ids: list[list[int]], parameters: list[Any]) -> list[Any]:
            found = own(ids, parameters)
            if parameters and not parameters[0].skip_reading_prefix_cache:
                outputs.extend(found)
            return found

        monkeypatch.setattr(served, "_run", watched)
        prompts, continuations = choices(served.subject, domain, 8)
        long = [prompt[:1] + prompt[1:-1] * 3 + prompt[-1:] for prompt in prompts]
        served._llm.reset_prefix_cache()
        served.logprobs(long, continuations)
        assert len(outputs) == len(long)
        assert all(output.num_cached_tokens >= 32 for i, output in enumerate(outputs) if i % 4)

    def test_a_process_killed_while_it_generates_is_told_at_once(self, engine: VLLMEngine) -> None:
        """Last: it ends the process that the other tests share."""
        victims = cores()
        assert victims
        killer = threading.Timer(0.5, lambda: [psutil.Process(pid).kill() for pid in victims])
        killer.start()
        prompts = [[5, 6, 7 + i] for i in range(200)]
        with pytest.raises(EngineDiedError, match="the same command goes on"):
            for _ in range(100):
                engine.generate(prompts, Sampling(max_new_tokens=240))
        killer.join()


@pytest.mark.slow
@needs_vllm
@pytest.mark.timeout(900)
def test_smollm2_in_bfloat16(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real model, from a GGUF file, in the type that its training is measured in where that is native."""
    native = multiplies_bfloat16("cuda" if torch.cuda.is_available() else "cpu")
    settings = Settings("bfloat16", max_model_len=512, cache_gib=0.5, adapters=False)
    engine = VLLMEngine(load_subject("smollm2-135m"), settings)
    try:
        with engine.use(UNTOUCHED):
            flags = engine.flags
            assert (flags["served_dtype"], flags["dtype"], flags["autocast"]) == ("bfloat16", "float32", native)
            assert engine.parity is not None and engine.parity["passed"], engine.parity
            agrees(engine, domain, 4)
            assert engine.serves(WEIGHTS) and not engine.serves(ADAPTER)
        with changed(engine.subject, 0.005), engine.use(WEIGHTS):
            assert engine.parity["passed"] and engine.parity["moved"] > 0.1, engine.parity
        with monkeypatch.context() as planted, changed(engine.subject, 3e-4):
            with engine.use(WEIGHTS):
                assert engine.parity["passed"], engine.parity
            with engine.use(UNTOUCHED):
                pass
            planted.setattr(engine, "_load", lambda folder: None)
            planted.setattr(engine, "_restart", lambda folder: None)
            with engine.use(WEIGHTS):
                assert not engine.parity["passed"] and "stale" in engine.parity["reason"], engine.parity
                assert engine.parity["moved"] < BOUNDS["bfloat16"].mean, "the bounds alone would not tell"
    finally:
        engine.close()


KILLED = """
import os, signal, psutil
from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_settings import Settings
from immunobench.subjects import load_subject

if __name__ == "__main__":
    engine = VLLMEngine(load_subject("organism:refusal"), Settings(cache_gib=0.25))
    engine.start()
    cores = [child.pid for child in psutil.Process().children(recursive=True) if "EngineCore" in child.name()]
    print(*cores, engine._folder.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@needs_vllm
@pytest.mark.timeout(300)
def test_the_process_leaves_with_the_study_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    with (tmp_path / "said").open("w+") as said:  # a pipe would stay open as long as the process that should leave
        subprocess.run([sys.executable, str(tmp_path / "killed.py")], stdout=said, check=False)
        said.seek(0)
        *cores, folder = said.read().splitlines()[-1].split()
    assert cores and Path(folder).name.startswith("immunobench-")
    end = time.monotonic() + 20
    while any(psutil.pid_exists(int(pid)) for pid in cores) and time.monotonic() < end:
        time.sleep(0.2)
    left = [pid for pid in cores if psutil.pid_exists(int(pid))]
    for pid in left:
        psutil.Process(int(pid)).kill()
    assert not left and not Path(folder).exists()
