"""The transformers engine: the reference, and the only one that sees activations and hooks."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from immunobench.engines.base import Artifact, Completion, Sampling, request_seed, scored_pairs
from immunobench.engines.choice_tree import ChoiceTree, attention, choice_tree, pad_trees, positions
from immunobench.subjects import Subject

T = TypeVar("T")
Asked = tuple[list[int], ChoiceTree, list[list[int]]]
"""A prompt, its continuations as a tree, and the continuations."""

VERSION = 2
"""Raised when what the engine says of a model changes: 2 scores choices in trees, and draws by request."""
WORTH_SHARING = 8
"""Tokens that prompts must have in common for their beginning to be computed once."""


class HFEngine:
    """Runs the subject's own live model, so an attack's changes are served as they are.

    Batches hold sequences of like length and at most ``batch_tokens`` tokens; a batch that runs out of
    memory is halved and tried again, and the smaller size is kept. On a CPU, scoring takes an eighth of that:
    its batches run faster where they stay in the cache. ``instead_of`` names the engine whose cells this one takes
    because that one cannot serve them; a cell says so.
    """

    name = "hf"
    fallback = None
    parity: dict[str, Any] | None = None

    def __init__(self, subject: Subject, batch_tokens: int = 16384, instead_of: str = "") -> None:
        self.subject = subject
        self.instead_of = instead_of
        self.resolved: dict[str, Any] = {}
        self.batch_tokens = self._asked_batch_tokens = batch_tokens
        self.scored_weight = 8 if subject.device.type == "cpu" else 1
        """How many tokens of a batch a scored one counts for."""
        self.pad: int = subject.tokenizer.pad_token_id

    @property
    def flags(self) -> dict[str, Any]:
        """Settings that can change a result."""
        dtype = str(next(self.subject.model.parameters()).dtype).removeprefix("torch.")
        return {
            "dtype": dtype,
            "autocast": self.subject.autocasts,
            "device": self.subject.device.type,
            "batch_tokens": self._asked_batch_tokens,
            "version": VERSION,
            **({"instead_of": self.instead_of} if self.instead_of else {}),
        }

    def start(self) -> None:
        """Nothing to do: the live model is there."""

    def close(self) -> None:
        """Nothing to free: the live model is the subject's."""

    def serves(self, artifact: Artifact) -> bool:
        """The live model carries every artifact."""
        return True

    @contextmanager
    def use(self, artifact: Artifact) -> Iterator[None]:
        """Nothing to do: the live model carries the artifact."""
        yield

    @torch.no_grad()
    def logprobs(self, prompts: Sequence[list[int]], continuations: Sequence[list[int]]) -> list[torch.Tensor]:
        """See :class:`Engine`. Left padding puts the scored positions last, and only those are unembedded."""
        pairs = scored_pairs(prompts, continuations)
        groups = [[c for _, c in group] for _, group in itertools.groupby(pairs, key=lambda pair: pair[0])]
        if any(len(group) > 1 for group in groups):
            items = [
                (prompt, choice_tree(group), group)
                for (prompt, _), group in zip(itertools.groupby(prompts), groups, strict=True)
            ]
            begun = common_beginning([prompt for prompt, _, _ in items])
            if self._attends_to_trees(max(len(i[0]) for i in items) + max(len(i[1].tokens) for i in items)):
                return self._tree_logprobs(items, begun)
        return self._in_batches(
            pairs, lambda pair: self.scored_weight * (len(pair[0]) + len(pair[1])), self._logprobs_batch
        )

    def _attends_to_trees(self, places: int) -> bool:
        """Whether the model takes a mask of our own over so many places: a sliding window must not be shorter."""
        config: Any = self.subject.model.config
        layers: list[Any] = DynamicCache(config=config).layers
        windows = [layer.sliding_window for layer in layers if layer.is_sliding]
        return config._attn_implementation in ("sdpa", "eager") and places <= min(windows, default=places)

    def _tree_logprobs(self, items: list[Asked], begun: int) -> list[torch.Tensor]:
        """Continuations of each prompt as a tree after it.

        What all prompts begin with is computed once a batch, and each prompt's own rest with all its continuations in
        one sequence, where every token sees only what lies before it in its own continuation.
        """
        found = self._in_batches(
            items,
            lambda i: begun + self.scored_weight * (len(i[0]) - begun + sum(map(len, i[2]))),
            lambda batch: self._tree_batch(batch, begun),
        )
        return [scored for group in found for scored in group]

    def _tree_batch(self, items: list[Asked], begun: int) -> list[list[torch.Tensor]]:
        prompts, trees = [prompt for prompt, _, _ in items], [tree for _, tree, _ in items]
        ids, own = self._left_pad([prompt[begun:] for prompt in prompts])
        fed = pad_trees(trees, self.pad).to(ids.device)
        width = fed.shape[1]
        after = positions(trees, [len(prompt) for prompt in prompts], width).to(ids.device)
        mask = attention(trees, own, begun, width)
        if self.subject.model.config._attn_implementation == "eager":  # type: ignore[union-attr]
            lowest = torch.finfo(next(self.subject.model.parameters()).dtype).min
            mask = torch.zeros(mask.shape, device=ids.device).masked_fill(~mask, lowest)
        logits = self.subject.model(
            input_ids=torch.cat([ids, fed], 1),
            attention_mask=mask,
            position_ids=torch.cat([_positions(own) + begun, after], 1),
            past_key_values=self._cache(prompts[0][:begun], len(items)) if begun else None,
            logits_to_keep=width + 1,
            use_cache=bool(begun),
        ).logits
        scored = [
            (row, place, token)
            for row, (_, tree, group) in enumerate(items)
            for path, continuation in zip(tree.predictors, group, strict=True)
            for place, token in zip(path, continuation, strict=True)
        ]
        rows, places, tokens = torch.tensor(scored, device=ids.device).T
        chosen = (logits[rows, places, tokens].float() - _normaliser(logits)[rows, places]).cpu()
        apart = iter(chosen.split([len(continuation) for _, _, group in items for continuation in group]))
        return [[next(apart).clone() for _ in group] for _, _, group in items]

    def _cache(self, ids: list[int], copies: int) -> Any:
        """Keys and values of ``ids``, once for each of ``copies`` rows."""
        cache = self.subject.model(
            input_ids=torch.tensor([ids], device=self.subject.device), logits_to_keep=1, use_cache=True
        ).past_key_values
        cache.batch_repeat_interleave(copies)
        return cache

    def _logprobs_batch(self, pairs: list[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
        ids, mask = self._left_pad([prompt + continuation for prompt, continuation in pairs])
        keep = max(len(continuation) for _, continuation in pairs) + 1
        logits = self.subject.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=_positions(mask),
            logits_to_keep=keep,
            use_cache=False,
        ).logits
        # Virtual tokens of a soft prompt lie past the vocabulary; none of them is scored.
        rows = ids[:, 1 - keep :].clamp(max=logits.shape[-1] - 1)
        logits = logits[:, :-1]
        chosen = (logits.gather(-1, rows[..., None])[..., 0].float() - _normaliser(logits)).cpu()
        return [chosen[i, -len(continuation) :].clone() for i, (_, continuation) in enumerate(pairs)]

    @torch.no_grad()
    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[list[Completion]]:
        """See :class:`Engine`. A prompt's samples depend on the seed and its place, not on its batch."""
        return self._in_batches(
            list(enumerate(prompts)),
            lambda asked: (len(asked[1]) + min(sampling.max_new_tokens, 128)) * sampling.n,
            lambda batch: self._generate_batch(batch, sampling),
        )

    def _generate_batch(self, asked: list[tuple[int, list[int]]], sampling: Sampling) -> list[list[Completion]]:
        ids, mask = (t.repeat_interleave(sampling.n, 0) for t in self._left_pad([prompt for _, prompt in asked]))
        stops = self.stops()
        options = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sorted(stops) or None,
            pad_token_id=self.pad,
            do_sample=False,
        )
        draws = GumbelNoise(sampling, [place for place, _ in asked], ids.device) if sampling.temperature > 0 else None
        with _decoding_as(self.subject.model, options):
            output = self.subject.model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=mask, logits_processor=LogitsProcessorList([draws] if draws else [])
            )
        answers = [_completion(row.tolist(), stops) for row in output[:, ids.shape[1] :]]
        return [answers[i : i + sampling.n] for i in range(0, len(answers), sampling.n)]

    def stops(self) -> set[int]:
        """Tokens that end an answer: the model's own and the tokenizer's."""
        ends = self.subject.model.generation_config.eos_token_id  # type: ignore[union-attr]
        return {*(ends if isinstance(ends, list) else [ends]), self.subject.tokenizer.eos_token_id} - {None}

    def _left_pad(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, shape (rows, longest row)."""
        tensors = [torch.tensor(row) for row in rows]
        ids = pad_sequence(tensors, batch_first=True, padding_value=self.pad, padding_side="left")
        mask = pad_sequence(
            [torch.ones_like(t) for t in tensors], batch_first=True, padding_value=0, padding_side="left"
        )
        return ids.to(self.subject.device), mask.to(self.subject.device)

    def _in_batches(
        self, items: list[Any], length: Callable[[Any], int], run: Callable[[list[Any]], list[T]]
    ) -> list[T]:
        """Apply ``run`` to batches of like length; results in the order of ``items``."""
        order = sorted(range(len(items)), key=lambda i: length(items[i]), reverse=True)
        results: dict[int, T] = {}
        start = 0
        with self.subject.autocast():  # around all batches: it keeps the weights in bfloat16 until it ends
            while start < len(order):
                size = max(1, self.batch_tokens // length(items[order[start]]))
                batch = order[start : start + size]
                try:
                    results.update(zip(batch, run([items[i] for i in batch]), strict=True))
                except (torch.OutOfMemoryError, RuntimeError) as error:
                    if not _out_of_memory(error) or len(batch) == 1:
                        raise
                    self.batch_tokens = max(1, self.batch_tokens // 2)
                    continue
                start += len(batch)
        return [results[i] for i in range(len(items))]


class GumbelNoise(LogitsProcessor):
    """Makes the greedy token a draw at a temperature: the argmax of logits with Gumbel noise follows their softmax.

    Each prompt has a generator of its own, so that its draws depend on nothing else in the batch.
    """

    def __init__(self, sampling: Sampling, places: Sequence[int], device: torch.device) -> None:
        self.sampling, self.device = sampling, device
        seeds = [request_seed(sampling.seed, place) for place in places]
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores with noise, shape (prompts x n, vocabulary)."""
        drawn = [
            torch.empty(self.sampling.n, scores.shape[-1], device=self.device).exponential_(generator=generator).log()
            for generator in self.generators
        ]
        return scores / self.sampling.temperature - torch.cat(drawn)


@contextmanager
def _decoding_as(model: Any, options: GenerationConfig) -> Iterator[None]:
    """Decode by ``options`` alone: what a model's folder sets, such as a repetition penalty, would fill every gap."""
    own = model.generation_config
    model.generation_config = options
    try:
        yield
    finally:
        model.generation_config = own


def common_beginning(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, short of the last of each; 0 for fewer than ``WORTH_SHARING``."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    return shared if shared >= WORTH_SHARING and len(prompts) > 1 else 0


def _normaliser(logits: torch.Tensor) -> torch.Tensor:
    """What to subtract from ``logits``, (rows, places, vocabulary), for log-probabilities, (rows, places).

    Row by row, since in float32 the logits of a whole batch would leave the cache, and take memory twice.
    """
    return torch.stack([row.float().logsumexp(-1) for row in logits])


def _completion(ids: list[int], stops: set[int]) -> Completion:
    """The tokens before the first stop."""
    for position, token in enumerate(ids):
        if token in stops:
            return Completion(ids[:position], "stop")
    return Completion(ids, "length")


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Positions that start at 0 at the first real token of each left-padded row."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _out_of_memory(error: BaseException) -> bool:
    """On a GPU torch has a class for it; on the CPU a RuntimeError whose wording differs by platform."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
