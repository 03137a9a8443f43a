"""What this machine can do at best, to state figures as shares of it."""

import time

import torch

from immunobench.structure import weight_of
from immunobench.subjects import Subject


def matrix_peak(dtype: torch.dtype = torch.float32, size: int = 1536, seconds: float = 2.0) -> float:
    """Floating-point operations a second of a square matrix product on one thread, the best of several."""
    torch.set_num_threads(1)
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    best, end = 0.0, time.process_time() + seconds
    while time.process_time() < end:
        started = time.process_time()
        a @ b
        best = max(best, 2 * size**3 / (time.process_time() - started))
    return best


def multiply_adds(subject: Subject, tokens: int, unembedded: int) -> tuple[int, int]:
    """Of one forward pass: those of the blocks' linears on ``tokens``, and those of the head on the positions that are
    ``unembedded``. Attention's own products are left out, so shares of the peak are a little low."""
    in_blocks = sum(weight_of(linear).numel() for linear in subject.structure.linears.values())
    return in_blocks * tokens, weight_of(subject.structure.head).numel() * unembedded
