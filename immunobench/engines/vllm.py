"""The vLLM engine: fast generation and scoring in a process of its own, held to the live model by a canary."""

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import torch

from immunobench.engines.base import (
    Artifact,
    Completion,
    EngineDiedError,
    NotServedError,
    Sampling,
    request_seed,
    scored_pairs,
)
from immunobench.engines.hf import HFEngine
from immunobench.engines.parity import BOUNDS, Canary
from immunobench.engines.placement import Sharing
from immunobench.engines.transfer import adapter_rank, adapter_tensors, scratch, write_adapter, write_weights
from immunobench.engines.vllm_process import MAX_RANK, last_line, launch, settled
from immunobench.engines.vllm_settings import Settings, as_flags, installed_version, resolve, serves
from immunobench.errors import ImmunobenchError
from immunobench.rendering import PromptEdit
from immunobench.subjects import DTYPES, Subject

T = TypeVar("T")
VERSION = 1
"""Raised when what the engine says of a model changes through our part of it."""


class VLLMEngine:
    """Serves the untouched subject, adapters by request, changed weights in place, and soft prompts as embeddings.

    Hooks and readouts need the Python model, so the transformers engine takes those cells. The engine process stays up
    from :meth:`start` to :meth:`close`. Each swap resets the prefix cache and runs the canary; its figures are in
    ``parity`` and a failure is left to whoever scores, but for one on the untouched subject at the start.
    """

    name = "vllm"

    def __init__(self, subject: Subject, settings: Settings = Settings(), sharing: Sharing | None = None) -> None:
        if installed_version() is None:
            raise ImmunobenchError("vllm is not installed: pip install 'immunobench[vllm]', or choose --engine hf.")
        self.subject = subject
        self.settings = resolve(settings, subject)
        self.fallback = HFEngine(subject, instead_of=self.name)
        self.parity: dict[str, Any] | None = None
        self.resolved: dict[str, Any] = {} if sharing is None else {"memory": asdict(sharing)}
        self._sharing = sharing
        self._llm: Any = None
        self._adapter: Any = None
        self._embeds = False
        self._changed = False
        """Whether the engine holds weights of an attack."""
        self._compared = False
        """Whether the canary has seen the untouched weights since they were loaded."""
        self._renews = True
        """Whether a canary that fails is worth a new process: not after one in which it failed too."""
        self._ids = itertools.count(1)

    @property
    def flags(self) -> dict[str, Any]:
        """Settings that can change a result. 'dtype' is that of the live model, which attacks train."""
        live = {name: self.fallback.flags[name] for name in ("dtype", "autocast", "device")}
        return {**live, **as_flags(self.settings), "version": installed_version(), "wrapper_version": VERSION}

    def serves(self, artifact: Artifact) -> bool:
        """Everything but what needs the Python model, and adapters where they are off."""
        return serves(self.settings, artifact.kind)

    # -- the life of the process

    def start(self) -> None:
        """Write the subject down, load it into a new process, and run the canary on it.

        Raises ImmunobenchError where the process does not start, or does not serve the very model.
        """
        if self._llm is not None:
            return
        size = sum(p.numel() * p.element_size() for p in self.subject.model.parameters())
        self._folder = scratch(size)
        self._untouched = Path(self._folder.name) / "untouched"
        try:
            write_weights(self.subject, self._untouched, DTYPES[self.settings.dtype])
            self._canary = Canary(self.fallback, BOUNDS[self.settings.dtype])
            self._launch(self._untouched)
            self._changed = self._embeds = False
            self.resolved |= settled(self._llm, self.settings)
            self.parity = self._untouched_parity = self._checked(changed=False)
            amiss = self.parity["reason"]
        except NotServedError as error:
            amiss = str(error)
        if amiss:
            self.close()
            raise ImmunobenchError(f"vllm does not serve this model as it is ({amiss}): choose --engine hf.")
        self._compared = True
        self._rest()

    def _launch(self, folder: Path) -> None:
        try:
            self._llm = launch(self.settings, self.subject, self._sharing, folder, self._folder.name)
        except ImmunobenchError:
            self.close()
            raise

    def _restart(self, folder: Path) -> None:
        """A new process in the place of the one that runs, on the checkpoint in ``folder``."""
        self._stop()
        self._launch(folder)

    def _stop(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()

    def close(self) -> None:
        """Stop the process and remove what was written for it."""
        self._stop()
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    # -- swapping

    @contextmanager
    def use(self, artifact: Artifact) -> Iterator[None]:
        """See :class:`Engine`. The canary's figures are in ``parity`` inside."""
        if not self.serves(artifact):
            raise NotServedError(f"vllm does not serve {artifact.kind} here.")
        if artifact.kind != "none" and self._llm is None:
            raise ImmunobenchError("the vllm engine was not started before the attack: call start() first.")
        self.start()
        self._wake()
        try:
            self._take(artifact)
            yield
        finally:
            self._let_go()

    def _take(self, artifact: Artifact) -> None:
        """Bring the engine to the state of the live model, and compare the two."""
        if artifact.kind == "weights":
            with TemporaryDirectory(prefix="changed-", dir=self._folder.name) as folder:
                write_weights(self.subject, Path(folder), DTYPES[self.settings.dtype])
                self._changed = True
                self.parity = self._become(Path(folder), changed=True)
            return
        if self._changed:
            self._untouched_parity = self._become(self._untouched, changed=False)
            self._changed, self._compared = False, True
        if artifact.kind == "adapter":
            self._adapter, self._compared = self._new_adapter(), False
            self.parity = self._checked(changed=True)
        elif artifact.kind == "soft_prompt":
            # It changes what goes in, not what is loaded: the canary looks at the way in.
            self._embeds, self._compared = True, False
            self.parity = self._checked(changed=False, edit=artifact.prompt)
        else:
            if not self._compared:
                self._untouched_parity, self._compared = self._checked(changed=False), True
            self.parity = self._untouched_parity

    def _become(self, folder: Path, changed: bool) -> dict[str, Any]:
        """Load a checkpoint in place, or where that fails into a new process, once; and what the canary finds."""
        try:
            self._load(folder)
            found = self._checked(changed)
            amiss = found["reason"] if self._renews else ""
        except (EngineDiedError, NotServedError):
            raise
        except Exception as error:  # what vLLM raises at a layer that it cannot load again
            amiss = last_line(error)
        if amiss:
            self._restart(folder)
            found = self._checked(changed) | {"new_process": amiss}
            self._renews = bool(found["passed"])
        return found

    def _let_go(self) -> None:
        self._embeds = False
        self.parity = self._untouched_parity
        adapter, self._adapter = self._adapter, None
        if self._llm is None:
            return
        if adapter is not None:
            self._asked(lambda: self._llm.llm_engine.remove_lora(adapter.lora_int_id))
            shutil.rmtree(adapter.lora_path)
        self._rest()

    def _load(self, folder: Path) -> None:
        self._asked(lambda: self._llm.collective_rpc("update_weights_from", args=(str(folder),)))

    def _new_adapter(self) -> Any:
        """A request for the live model's adapter: named by its content, under an id never used before."""
        from vllm.lora.request import LoRARequest

        tensors = adapter_tensors(self.subject.model)
        if adapter_rank(tensors) > MAX_RANK:
            raise NotServedError(f"vllm serves adapters up to rank {MAX_RANK} here, this has {adapter_rank(tensors)}.")
        number = next(self._ids)
        folder = Path(self._folder.name) / f"adapter-{number}"
        digest = write_adapter(self.subject.model, tensors, folder)
        return LoRARequest(f"adapter-{digest}", number, str(folder))

    def _checked(self, changed: bool, edit: PromptEdit | None = None) -> dict[str, Any]:
        """The canary, after the prefix cache was emptied: keys and values of other weights may be in it."""
        reset = bool(self._asked(lambda: self._llm.reset_prefix_cache()))
        return asdict(self._canary.check(self, changed, reset, edit))

    @property
    def _sleeps(self) -> bool:
        return self._sharing is not None and self._sharing.how == "sleep"

    def _rest(self) -> None:
        """Give the device back to training. Level 1 keeps the weights in main memory."""
        if self._sleeps:
            self._asked(lambda: self._llm.sleep(level=1))

    def _wake(self) -> None:
        if self._sleeps:
            torch.cuda.empty_cache()
            self._asked(lambda: self._llm.wake_up())

    # -- serving

    @torch.no_grad()
    def logprobs(self, prompts: Sequence[list[int]], continuations: Sequence[list[int]]) -> list[torch.Tensor]:
        """See :class:`Engine`. What prompts share is read from the prefix cache, as the choices of a question do."""
        pairs = scored_pairs(prompts, continuations)
        if self._embeds:
            return self._stepwise_logprobs(pairs)
        found = dict(enumerate(self._prompt_logprobs(pairs, cached=True)))
        # A continuation that was in the cache itself was not computed, so it has no log-probabilities.
        missing = [i for i, scored in found.items() if scored is None]
        again = self._prompt_logprobs([pairs[i] for i in missing], cached=False)
        found.update(zip(missing, again, strict=True))
        scored = [found[i] for i in range(len(pairs))]
        if any(each is None for each in scored):
            raise ImmunobenchError("vllm read from its cache what it was told to compute: choose --engine hf.")
        return cast(list[torch.Tensor], scored)

    def _prompt_logprobs(self, pairs: list[tuple[list[int], list[int]]], cached: bool) -> list[torch.Tensor | None]:
        """Log-probabilities of each continuation, None where the cache held more than its prompt."""
        options = {"prompt_logprobs": 0, "flat_logprobs": True, "skip_reading_prefix_cache": not cached}
        outputs = self._run([prompt + rest for prompt, rest in pairs], [self._parameters(1, **options)] * len(pairs))
        found: list[torch.Tensor | None] = []
        for (prompt, _), output in zip(pairs, outputs, strict=True):
            known = output.prompt_logprobs
            computed = (output.num_cached_tokens or 0) < len(prompt)
            starts = known.start_indices[len(prompt) :]
            found.append(torch.tensor([known.logprobs[start] for start in starts]) if computed else None)
        return found

    def _stepwise_logprobs(self, pairs: list[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
        """One request a token: vLLM gives no log-probabilities of a prompt that comes as embeddings."""
        steps = [(p + c[:i], token) for p, c in pairs for i, token in enumerate(c)]
        asked = [self._parameters(1, logprob_token_ids=[token]) for _, token in steps]
        outputs = self._run([ids for ids, _ in steps], asked)
        values = iter([o.outputs[0].logprobs[0][t].logprob for o, (_, t) in zip(outputs, steps, strict=True)])
        return [torch.tensor([next(values) for _ in c]) for _, c in pairs]

    @torch.no_grad()
    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[list[Completion]]:
        """See :class:`Engine`. A prompt's samples depend on the seed and its place, not on its batch."""
        stops = self.fallback.stops()
        parameters = [
            self._parameters(
                sampling.max_new_tokens,
                temperature=sampling.temperature,
                n=sampling.n,
                seed=request_seed(sampling.seed, place) if sampling.temperature > 0 else None,
                stop_token_ids=sorted(stops),
            )
            for place in range(len(prompts))
        ]
        return [
            [_completion(list(answer.token_ids), stops) for answer in output.outputs]
            for output in self._run(list(prompts), parameters)
        ]

    def _parameters(self, most: int, temperature: float = 0.0, **options: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(max_tokens=most, temperature=temperature, ignore_eos=True, detokenize=False, **options)

    def _run(self, prompts: list[list[int]], parameters: list[Any]) -> list[Any]:
        """One output a prompt, in their order. Raises NotServedError where prompt and answer exceed the context."""
        if not prompts:
            return []
        self.start()
        longest = max(len(ids) + p.max_tokens for ids, p in zip(prompts, parameters, strict=True))
        if longest > self.settings.max_model_len:
            raise NotServedError(
                f"a prompt with its answer takes {longest} tokens, vllm was started for {self.settings.max_model_len}."
            )
        inputs = [self._input(ids) for ids in prompts]
        return list(
            self._asked(lambda: self._llm.generate(inputs, parameters, use_tqdm=False, lora_request=self._adapter))
        )

    def _input(self, ids: list[int]) -> dict[str, Any]:
        if not self._embeds:
            return {"prompt_token_ids": ids}
        rows = self.subject.structure.embedding(torch.tensor(ids, device=self.subject.device))
        return {"prompt_embeds": rows.to("cpu", DTYPES[self.settings.dtype])}

    def _asked(self, ask: Callable[[], T]) -> T:
        """What the engine process answers. Raises EngineDiedError where it is gone."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return ask()
        except EngineDeadError as error:
            self.close()
            raise EngineDiedError(
                "the vllm process died (killed, or out of memory): what was done is kept; the same command goes on."
            ) from error


def _completion(ids: list[int], stops: set[int]) -> Completion:
    ended = bool(ids) and ids[-1] in stops
    return Completion(ids[:-1] if ended else ids, "stop" if ended else "length")
