"""Take weights or ranks out of a live model, or keep them from being trained, and put everything back."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from transformers.pytorch_utils import Conv1D

from immunobench.attribution import gram_matrices
from immunobench.attribution.ranking import ranks, set_difference, top_share
from immunobench.attribution.singular import left_singular, outside, projected_out
from immunobench.domains import Example
from immunobench.edits import restored
from immunobench.structure import matrix_of, weight_of
from immunobench.subjects import Subject

Tensors = Mapping[str, torch.Tensor]
"""A tensor for each block linear by its name, (out, in) where it is laid out as the weight."""


def critical_ranks(scores: Tensors) -> dict[str, torch.Tensor]:
    """Ranks of the scores within each matrix, 0 the highest; a weight that scores 0 is critical at no share."""
    return {name: ranks(each).masked_fill(each == 0, each.numel()) for name, each in scores.items()}


def critical(ranked: Tensors, share: float) -> dict[str, torch.Tensor]:
    """Masks of the top ``share`` of each matrix."""
    return {name: top_share(each, share) for name, each in ranked.items()}


def critical_difference(safety: Tensors, utility: Tensors, q: float, p: float) -> dict[str, torch.Tensor]:
    """Masks of what is in safety's top ``q`` and not in utility's top ``p``, from the ranks of both."""
    return {name: set_difference(each, utility[name], q, p) for name, each in safety.items()}


def share_of(masks: Tensors) -> float:
    """The share of entries that are marked, 0 where there are no masks."""
    return sum(int(m.sum()) for m in masks.values()) / max(1, sum(m.numel() for m in masks.values()))


@contextmanager
def without_weights(subject: Subject, masks: Tensors) -> Iterator[None]:
    """Inside, the marked weights are 0."""
    linears = subject.structure.linears
    with restored(subject.model, [weight_of(linears[name]) for name in masks]):
        for name, mask in masks.items():
            matrix_of(linears[name]).detach().masked_fill_(mask, 0)
        yield


@contextmanager
def frozen_weights(subject: Subject, masks: Tensors) -> Iterator[None]:
    """Inside, gradients of the marked weights are 0. They stay put where weight decay is off too."""
    linears = subject.structure.linears
    handles = []
    for name, mask in masks.items():
        stored = mask.T if isinstance(linears[name], Conv1D) else mask
        weight = weight_of(linears[name]).requires_grad_(True)
        handles.append(weight.register_hook(lambda gradient, stored=stored: gradient.masked_fill(stored, 0)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def output_bases(subject: Subject, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Left singular vectors of W·X on ``examples``, strongest first, for each linear, (out, min(out, in)), float32."""
    grams = gram_matrices(subject, examples)
    return {
        name: left_singular(matrix_of(linear).detach(), grams[name])[0].float()
        for name, linear in subject.structure.linears.items()
    }


@contextmanager
def without_ranks(subject: Subject, safety: Tensors, utility: Tensors, q: float, p: float) -> Iterator[float]:
    """Inside, W is W − (I − Π_u)·Π_s·W, Π_s on the top ``q`` of safety's output directions, Π_u on utility's top ``p``.

    Orthogonal projection (Wei et al., arXiv 2402.05162, sec. 3.3). Yields the share of ranks removed: the dimensions
    of safety's directions that lie outside utility's, over all that the matrices have.
    """
    linears = subject.structure.linears
    removed = full = 0
    with restored(subject.model, [weight_of(linears[name]) for name in safety]):
        for name, basis in safety.items():
            rank = basis.shape[1]
            take, keep = round(q * rank), round(p * rank)
            matrix = matrix_of(linears[name]).detach()
            guarding, serving = basis[:, :take].double(), utility[name][:, :keep].double()
            matrix.copy_(projected_out(matrix, guarding, serving))
            removed += outside(guarding, serving)
            full += rank
        yield removed / full
