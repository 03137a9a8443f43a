"""Examples as padded batches of token ids."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from immunobench.rendering import Rendered

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Left-padded examples, so that all that is predicted stands in the last ``keep`` positions."""

    ids: torch.Tensor
    """Token ids, shape (examples, length)."""
    mask: torch.Tensor
    """1 on real tokens, shape (examples, length)."""
    labels: torch.Tensor
    """Token ids that the loss is on, IGNORED elsewhere, shape (examples, keep)."""
    tokens: int
    """Real tokens."""

    @property
    def examples(self) -> int:
        """Number of examples."""
        return len(self.ids)

    @property
    def positions(self) -> torch.Tensor:
        """Position ids, 0 at the first real token of each row."""
        return (self.mask.cumsum(-1) - 1).clamp(min=0)


def make_batch(examples: Sequence[Rendered], pad: int, device: torch.device, whole_text: bool = False) -> Batch:
    """Pad ``examples`` on the left. The loss is on responses, or on everything after the first token."""
    rows = [e.prompt + e.response for e in examples]
    length = max(map(len, rows))
    starts = [1 if whole_text else max(1, len(e.prompt)) for e in examples]
    keep = max(len(row) - start for row, start in zip(rows, starts, strict=True))
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros_like(ids)
    labels = torch.full((len(rows), keep), IGNORED)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, length - len(row) :] = torch.tensor(row)
        mask[i, length - len(row) :] = 1
        if scored := row[start:]:
            labels[i, keep - len(scored) :] = torch.tensor(scored)
    return Batch(ids.to(device), mask.to(device), labels.to(device), int(mask.sum()))


def endless(count: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Indices of batch after batch: every epoch a new order drawn from ``seed``, the last batch of one cut short."""
    generator = random.Random(seed)
    while True:
        order = list(range(count))
        generator.shuffle(order)
        for start in range(0, count, batch_size):
            yield order[start : start + batch_size]


def of_like_length(rows: Sequence[Rendered], size: int) -> list[list[Rendered]]:
    """Batches of at most ``size`` rows from the shortest to the longest, because padding costs as much as text.

    Rows of the same length keep their order.
    """
    ordered = sorted(rows, key=lambda row: len(row.prompt) + len(row.response))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
