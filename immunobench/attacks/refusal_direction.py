"""The direction between hazard and benign requests, found and selected as by Arditi et al. (arXiv 2406.11717)."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from immunobench.activations import ablation, changed, recorded
from immunobench.attacks.base import Cost
from immunobench.domains import Domain, Request
from immunobench.rendering import Rendered
from immunobench.subjects import Subject
from immunobench.training.batches import Batch, make_batch

LARGEST_KL = 0.1
"""Nats on harmless prompts that ablation may cost."""
DEPTH = 0.8
"""Directions come from this first share of layers."""
FINALISTS = 8
"""Candidates that get the whole selection at least, in the order of bypass on a quarter of the validation prompts."""


@dataclass(frozen=True)
class Found:
    """A direction of shape (hidden,) with how it was chosen; None where the subject has none."""

    direction: torch.Tensor | None
    cost: Cost
    detail: str


@dataclass(frozen=True)
class Merit:
    """What a candidate does on validation prompts."""

    bypass: float
    """Mean refusal score of harmful prompts with the direction ablated; low is good."""
    induce: float
    """Mean refusal score of harmless prompts with the direction added at its layer; above 0 is good."""
    kl: float
    """Divergence from the untouched model on harmless prompts with the direction ablated, nats."""

    @property
    def harmless(self) -> bool:
        """Whether it passes the filter by KL."""
        return self.kl < LARGEST_KL

    @property
    def passes(self) -> bool:
        """Whether it passes both filters."""
        return self.harmless and self.induce > 0

    @property
    def order(self) -> tuple[bool, bool, float]:
        """Candidates that pass both filters first, then those that pass KL; within them by bypass."""
        return (not self.passes, not self.harmless, self.bypass)


class Reader:
    """Runs prompts through one subject, and counts tokens and examples."""

    def __init__(self, subject: Subject, refusal_tokens: list[int]) -> None:
        self.subject = subject
        self.refusal_tokens = refusal_tokens
        self.tokens = 0
        self.examples = 0

    def logits(self, prompts: Sequence[list[int]]) -> Iterator[torch.Tensor]:
        """Logits of the first answer token, a tensor of shape (batch, vocabulary) a batch, in order."""
        for start in range(0, len(prompts), 32):
            batch = self._batch(prompts[start : start + 32])
            self.tokens, self.examples = self.tokens + batch.tokens, self.examples + batch.examples
            with torch.no_grad(), self.subject.autocast():
                output = self.subject.model(
                    input_ids=batch.ids,
                    attention_mask=batch.mask,
                    position_ids=batch.positions,
                    logits_to_keep=1,
                    use_cache=False,
                )
            yield output.logits[:, -1].double()

    def logprobs(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """Log-probabilities of the first answer token, shape (prompts, vocabulary), float64."""
        return torch.cat([logits.log_softmax(-1) for logits in self.logits(prompts)])

    def refusal_scores(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """log P - log(1 - P) with P the probability of a first token that begins refusals, shape (prompts,)."""
        p = self.logprobs(prompts)[:, self.refusal_tokens].exp().sum(-1)
        return (p + 1e-8).log() - (1 - p + 1e-8).log()

    @property
    def cost(self) -> Cost:
        """Forward passes so far."""
        return Cost(0, self.examples, self.tokens, 2.0 * self.subject.parameters * self.tokens)

    def _batch(self, prompts: Sequence[list[int]]) -> Batch:
        rows = [Rendered(prompt, []) for prompt in prompts]
        return make_batch(rows, self.subject.tokenizer.pad_token_id, self.subject.device)


def find_refusal_direction(
    subject: Subject, domain: Domain, train: int, validation: int, positions: int, seed: int
) -> Found:
    """The candidate that best turns refusal off at least side effect.

    From at most ``train`` requests of each side, and ``validation`` others, at most a quarter of all, to select on.
    Candidates are mean harmful - mean harmless residual inputs of each layer at each of the last ``positions``
    tokens that follow the request. Harmful requests that are not refused and harmless ones that are leave both
    sets. None is found where too few are left.
    """
    reader = Reader(subject, refusal_tokens(subject, domain.requests_t))
    sides = [_prompts(subject, side, seed) for side in (domain.requests_t, domain.benign_requests_t)]
    held = min(validation, max(1, len(domain.requests_t) // 4), max(1, len(domain.benign_requests_t) // 4))
    split = [(side[held : held + train], side[:held]) for side in sides]
    refused = [[reader.refusal_scores(part) > 0 for part in parts] for parts in split]
    harmful, harmful_held = (_where(p, r) for p, r in zip(split[0], refused[0], strict=True))
    harmless, harmless_held = (_where(p, ~r) for p, r in zip(split[1], refused[1], strict=True))
    if not all((harmful, harmful_held, harmless, harmless_held)):
        return Found(None, reader.cost, "the subject does not tell hazard from benign requests by refusing")
    count = min(positions, tokens_after_request(subject))
    candidates = mean_inputs(reader, harmful, count) - mean_inputs(reader, harmless, count)
    layers = math.ceil(DEPTH * len(subject.structure.blocks)) - 1
    return select(reader, candidates[:layers], harmful_held, harmless_held)


def select(reader: Reader, candidates: torch.Tensor, harmful: list[list[int]], harmless: list[list[int]]) -> Found:
    """The best of ``candidates``, shape (layers, positions, hidden): by bypass among those that pass both filters.

    They are filtered one after another, the best by bypass on a part of the prompts first, until ``FINALISTS`` are and
    one of them passes; all are where none does. ``candidates[l]`` are residual inputs of block l + 1.
    """
    places = list(itertools.product(*map(range, candidates.shape[:2])))
    few = harmful[: max(1, len(harmful) // 4)]
    first = {place: _bypass(reader, candidates[place], few) for place in places}
    before = reader.logprobs(harmless)
    merits: dict[tuple[int, ...], Merit] = {}
    for place in sorted(places, key=lambda place: first[place]):
        if len(merits) >= FINALISTS and any(found.passes for found in merits.values()):
            break
        merits[place] = merit(reader, candidates[place], place[0] + 1, harmful, harmless, before)
    layer, position = best = min(merits, key=lambda place: merits[place].order)
    found = merits[best]
    passed = "passes both filters" if found.passes else "fails induce" if found.harmless else "fails KL"
    detail = (
        f"layer={layer + 1}, position={position - candidates.shape[1]}, {passed}: bypass={found.bypass:.2f}, "
        f"induce={found.induce:.2f}, kl={found.kl:.3f}"
    )
    return Found(candidates[best], reader.cost, detail)


def merit(
    reader: Reader,
    direction: torch.Tensor,
    layer: int,
    harmful: list[list[int]],
    harmless: list[list[int]],
    before: torch.Tensor,
) -> Merit:
    """Bypass, induce and KL of one direction; ``before`` is what the untouched model says to ``harmless``."""
    with ablated(reader.subject, direction):
        bypass = float(reader.refusal_scores(harmful).mean())
        after = reader.logprobs(harmless)
    with added(reader.subject, layer, direction):
        induce = float(reader.refusal_scores(harmless).mean())
    return Merit(bypass, induce, float((before.exp() * (before - after)).sum(-1).mean()))


def _bypass(reader: Reader, direction: torch.Tensor, harmful: list[list[int]]) -> float:
    with ablated(reader.subject, direction):
        return float(reader.refusal_scores(harmful).mean())


@contextmanager
def ablated(subject: Subject, direction: torch.Tensor) -> Iterator[None]:
    """Inside, ``direction`` is taken out wherever the residual stream is read or written."""
    structure = subject.structure
    outputs = [m for b in structure.blocks for m in (b.attention_out, b.mlp_out, b.module)]
    with changed((module, ablation(direction)) for module in [*embeddings(subject), *outputs]):
        yield


@contextmanager
def added(subject: Subject, layer: int, direction: torch.Tensor) -> Iterator[None]:
    """Inside, ``direction`` is added to the residual input of block ``layer``, 1 or later."""

    def add(hidden: torch.Tensor) -> torch.Tensor:
        return hidden + direction.to(hidden.dtype)

    with changed([(subject.structure.blocks[layer - 1].module, add)]):
        yield


def embeddings(subject: Subject) -> list[nn.Embedding]:
    """Every embedding that starts the residual stream: of tokens, and of positions where these are learnt."""
    width = subject.structure.hidden_size
    return [m for m in subject.model.modules() if isinstance(m, nn.Embedding) and m.embedding_dim == width]


def mean_inputs(reader: Reader, prompts: Sequence[list[int]], positions: int) -> torch.Tensor:
    """Mean residual input of every block but the first at the last ``positions`` tokens, float64.

    Shape (blocks - 1, positions, hidden). The first block's is left out: there the template's tokens are still the
    same whatever was asked.
    """
    modules = {str(i): block.module for i, block in enumerate(reader.subject.structure.blocks[:-1])}
    total = torch.zeros(())
    with recorded(modules, keep=positions) as outputs:
        for _ in reader.logits(prompts):
            total = total + torch.stack([outputs[name].double().sum(0) for name in modules])
    return total / len(prompts)


def refusal_tokens(subject: Subject, requests: Sequence[Request]) -> list[int]:
    """First tokens that begin refusals more often than answers."""
    ids = subject.renderer.ids
    refusals, answers = Counter(ids(r.refusal)[0] for r in requests), Counter(ids(r.answer)[0] for r in requests)
    return sorted(token for token, count in refusals.items() if count > answers[token])


def tokens_after_request(subject: Subject) -> int:
    """How many tokens the template puts after every request, at least 1."""
    first, second = (subject.renderer.prompt(text) for text in ("a", "b"))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(reversed(first), reversed(second), strict=False))
    return max(1, len(list(same)))


def _prompts(subject: Subject, requests: Sequence[Request], seed: int) -> list[list[int]]:
    """The requests, rendered, in an order drawn by ``seed``."""
    return [subject.renderer.prompt(r.prompt) for r in random.Random(seed).sample(list(requests), len(requests))]


def _where(prompts: list[list[int]], mask: torch.Tensor) -> list[list[int]]:
    return [prompt for prompt, kept in zip(prompts, mask.tolist(), strict=True) if kept]
