"""Derivatives of token log-probabilities: all tokens along one direction, or all parameters for one sum of tokens.

Everything is in float32 and goes through examples in chunks, so that memory does not grow with their number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from immunobench.domains import Example
from immunobench.errors import ImmunobenchError
from immunobench.rendering import PromptEdit
from immunobench.subjects import Subject
from immunobench.training.batches import IGNORED, Batch, make_batch
from immunobench.training.loop import token_logprobs

Direction = Mapping[str, torch.Tensor]
"""A tensor for each parameter by its name; a parameter that is left out does not move."""
Quantity = Callable[[Subject, Batch], torch.Tensor]
"""Something of every scored token, (..., examples, keep)."""

AT_ONCE = 1 << 20
"""Products taken in double at a time (16 MB)."""


@dataclass(frozen=True)
class TokenSet:
    """The scored tokens of some examples: those of their responses, in the order of ``batches``."""

    batches: list[Batch]
    sequences: torch.Tensor
    """Index of the example that each token is in, (tokens,)."""
    ids: torch.Tensor
    """Token ids, (tokens,)."""

    def __len__(self) -> int:
        return len(self.ids)


def token_set(subject: Subject, examples: Sequence[Example], chunk: int = 2048) -> TokenSet:
    """``examples`` as the training loop renders and masks them, in batches of like length.

    A batch holds at most ``chunk`` token ids, padding counted, or one example. Raises ImmunobenchError where
    there are none.
    """
    if not examples:
        raise ImmunobenchError("there are no examples to differentiate: check the domain.")
    edit = PromptEdit(format="chat" if subject.renderer.has_template else "plain")
    rendered = [subject.renderer.example(example, edit) for example in examples]
    lengths = [len(r.prompt) + len(r.response) for r in rendered]
    order = sorted(range(len(rendered)), key=lengths.__getitem__)
    cuts: list[list[int]] = [[]]
    for index in order:
        if cuts[-1] and (len(cuts[-1]) + 1) * lengths[index] > chunk:
            cuts.append([])
        cuts[-1].append(index)
    pad = subject.tokenizer.pad_token_id
    batches = [make_batch([rendered[i] for i in cut], pad, subject.device) for cut in cuts]
    rows = torch.cat([(batch.labels != IGNORED).sum(1) for batch in batches])
    sequences = torch.tensor(order, device=rows.device).repeat_interleave(rows)
    return TokenSet(batches, sequences, torch.cat([scored(batch, batch.labels) for batch in batches]))


def scored(batch: Batch, values: torch.Tensor) -> torch.Tensor:
    """Of ``values`` (..., examples, keep) those of scored tokens, (..., tokens)."""
    return values[..., batch.labels != IGNORED]


class _Bound(nn.Module):
    """A model called with other parameters than its own."""

    def __init__(self, model: nn.Module, parameters: Direction) -> None:
        super().__init__()
        self._call = lambda inputs: functional_call(model, dict(parameters), (), inputs)

    def forward(self, **inputs: Any) -> Any:
        return self._call(inputs)


def float_parameters(subject: Subject) -> dict[str, torch.Tensor]:
    """Every parameter by name, detached, in float32: shared with the model where it is float32 already."""
    return {name: parameter.detach().float() for name, parameter in subject.model.named_parameters()}


@torch.no_grad()
def values(subject: Subject, tokens: TokenSet, quantity: Quantity = token_logprobs) -> torch.Tensor:
    """``quantity`` of every scored token, (..., tokens), in float32."""
    bound = replace(subject, model=_Bound(subject.model, float_parameters(subject)))
    return torch.cat([scored(batch, quantity(bound, batch)) for batch in tokens.batches], -1)


def derivatives(
    subject: Subject,
    tokens: TokenSet,
    direction: Direction,
    quantity: Quantity = token_logprobs,
    at: Direction | None = None,
) -> torch.Tensor:
    """d/dε of ``quantity`` of every scored token at θ + ε·direction, (..., tokens), by one forward-mode pass.

    θ is ``at``, or the subject's own parameters. The fused attention kernels have no forward mode, so attention
    runs as plain matrix products. No reverse graph is kept.
    """
    parameters = dict(at or float_parameters(subject))
    moved = {name: parameters[name] for name in direction}
    parts = []
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for batch in tokens.batches:

            def of_moved(moved: dict[str, torch.Tensor], batch: Batch = batch) -> torch.Tensor:
                bound = replace(subject, model=_Bound(subject.model, parameters | moved))
                return scored(batch, quantity(bound, batch))

            parts.append(jvp(of_moved, (moved,), (dict(direction),))[1])
    return torch.cat(parts, -1)


def gradient(
    subject: Subject,
    tokens: TokenSet,
    weights: torch.Tensor,
    quantity: Quantity = token_logprobs,
    at: Direction | None = None,
) -> dict[str, torch.Tensor]:
    """∇ Σ_i w_i q_i over all parameters, for ``weights`` (..., tokens) held constant; one backward a chunk."""
    parameters = {name: value.detach().requires_grad_() for name, value in (at or float_parameters(subject)).items()}
    bound = replace(subject, model=_Bound(subject.model, parameters))
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    start = 0
    for batch in tokens.batches:
        with torch.enable_grad():
            found = scored(batch, quantity(bound, batch))
            loss = (weights[..., start : start + found.shape[-1]] * found).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for sum_so_far, value in zip(total.values(), gradients, strict=True):
            if value is not None:
                sum_so_far += value
        start += found.shape[-1]
    return total


def risk_gradient(subject: Subject, tokens: TokenSet, at: Direction | None = None) -> dict[str, torch.Tensor]:
    """∇R, with R the mean negative log-probability over all scored tokens."""
    weight = torch.full((len(tokens),), -1 / len(tokens), device=subject.device)
    return gradient(subject, tokens, weight, at=at)


def norm(one: Direction) -> float:
    """Euclidean norm over all parameters."""
    return inner(one, one, list(one)) ** 0.5


def inner(one: Direction, two: Direction, names: Sequence[str]) -> float:
    """Σ of the products over the parameters called ``names``."""
    # In double: products of small gradients underflow in single, and millions of terms of one sign lose digits.
    return sum(
        float(first.double() @ second.double())
        for name in names
        for first, second in zip(one[name].flatten().split(AT_ONCE), two[name].flatten().split(AT_ONCE), strict=True)
    )


def parameter_groups(subject: Subject) -> dict[str, list[str]]:
    """Every parameter in one group: 'embedding', 'block 0' ..., 'head', in the order of the forward pass.

    The head is the final norm and the unembedding; an unembedding tied to the embedding counts there, and so
    does any other parameter that lies outside the blocks.
    """
    structure = subject.structure
    where = {id(p): f"block {i}" for i, block in enumerate(structure.blocks) for p in block.module.parameters()}
    late = [*structure.final_norm.parameters(), *structure.head.parameters()]
    early = {id(p) for p in structure.embedding.parameters()}
    where |= {id(p): "head" for p in late if id(p) not in early}
    groups: dict[str, list[str]] = {"embedding": []}
    groups |= {f"block {i}": [] for i in range(len(structure.blocks))} | {"head": []}
    for name, parameter in subject.model.named_parameters():
        groups[where.get(id(parameter), "embedding")].append(name)
    return groups


THIRDS = ("shallow", "middle", "deep")


def depth_groups(groups: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The same parameters with the blocks joined to thirds: embedding, shallow, middle, deep, head; none is empty."""
    blocks = [name for name in groups if name.startswith("block ")]
    joined: dict[str, list[str]] = {"embedding": groups["embedding"]} | {third: [] for third in THIRDS}
    for index, block in enumerate(blocks):
        joined[THIRDS[3 * index // len(blocks)]] += groups[block]
    return {name: group for name, group in (joined | {"head": groups["head"]}).items() if group}
