"""SNIP scores of all linears in one pass a batch, by per-sample outer products."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from immunobench.attribution.inputs import scored_batches
from immunobench.domains import Example
from immunobench.structure import matrix_of
from immunobench.subjects import Subject
from immunobench.training.batches import IGNORED, Batch
from immunobench.training.loop import token_logprobs


def snip_scores(subject: Subject, examples: Sequence[Example], batch_size: int = 16) -> dict[str, torch.Tensor]:
    """E_x |W_ij·∂L(x)/∂W_ij| for each block linear, shape (out, in), float32.

    L is the mean negative log-probability over the response tokens of one example (Lee et al., arXiv
    1810.02340; Wei et al., arXiv 2402.05162). The gradient of one example at a linear with input x_t
    and output gradient δ_t is Σ_t δ_t·x_tᵀ, so one forward and one backward pass through the activations of a
    batch give the exact per-example gradients of all linears: N/B passes where a loop over layers and examples
    takes layers·N. A subject that is trained in mixed precision is scored in it.
    Raises ImmunobenchError where there are no examples.
    """
    linears = subject.structure.linears
    totals = {name: torch.zeros_like(matrix_of(m), dtype=torch.float32) for name, m in linears.items()}
    for batch in scored_batches(subject, examples, batch_size):
        with _gathering(subject, totals, batch):
            with torch.enable_grad(), subject.autocast():
                loss = example_losses(subject, batch).sum()
            loss.backward()
    for name, total in totals.items():
        total.mul_(matrix_of(linears[name]).detach()).abs_().div_(len(examples))
    return totals


def example_losses(subject: Subject, batch: Batch) -> torch.Tensor:
    """Mean negative log-probability over the response tokens of each example, shape (examples,)."""
    return -token_logprobs(subject, batch).sum(1) / (batch.labels != IGNORED).sum(1)


@contextmanager
def _gathering(subject: Subject, totals: dict[str, torch.Tensor], batch: Batch) -> Iterator[None]:
    """Add |gradient| of every example at every linear to ``totals`` during a backward pass inside.

    Weights take no gradients: the graph hangs on the embeddings' output alone.
    """
    starts = (batch.mask == 0).sum(1).tolist()
    scratch: dict[torch.Size, torch.Tensor] = {}

    def watch(total: torch.Tensor) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def forward(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            read = inputs[0].detach()
            output.register_hook(
                lambda gradient: _add_outer_products(total, gradient, read.to(gradient.dtype), starts, scratch)
            )

        return forward

    def start_graph(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output.detach().requires_grad_()

    flags = [(parameter, parameter.requires_grad) for parameter in subject.model.parameters()]
    linears = subject.structure.linears
    handles = [linears[name].register_forward_hook(watch(total)) for name, total in totals.items()]
    handles.append(subject.structure.embedding.register_forward_hook(start_graph))
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _add_outer_products(
    total: torch.Tensor,
    gradient: torch.Tensor,
    read: torch.Tensor,
    starts: list[int],
    scratch: dict[torch.Size, torch.Tensor],
) -> None:
    """``total`` += Σ_b |Σ_t δ_bt·x_btᵀ|, from each example's first real token.

    ``scratch`` holds one example's gradient of each shape: written again and again, it stays in cache, and new
    memory is dear.
    """
    if total.shape not in scratch:
        scratch[total.shape] = torch.empty(total.shape, dtype=gradient.dtype, device=total.device)
    one = scratch[total.shape]
    for delta, x, start in zip(gradient, read, starts, strict=True):
        torch.mm(delta[start:].T, x[start:], out=one)
        total.add_(one.abs_())
