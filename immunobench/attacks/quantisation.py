"""Round-to-nearest quantisation, which can undo a small unlearning update.

An update smaller than the width of a quantisation bucket is rounded away (arXiv 2410.16454).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline
from immunobench.domains import Domain
from immunobench.edits import restored
from immunobench.engines.base import Artifact
from immunobench.structure import matrix_of, weight_of
from immunobench.subjects import Subject


@dataclass(frozen=True)
class RoundToNearest:
    """Rounds every block linear's weight to ``bits``, symmetric, one scale a group of ``group`` inputs.

    ``group`` None gives one scale an output channel. Costs no data and no training (Zhang et al., arXiv
    2410.16454). Leaves changed weights, de-quantised, so any engine can serve them.
    """

    bits: tuple[int, ...] = (8, 4, 3)
    group: int | None = 32
    access: ClassVar[Access] = "weights"
    leaves: ClassVar[Leaves] = ("weights",)

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(self.bits), len(self.bits))

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint for each number of bits."""
        linears = subject.structure.linears.values()
        for bits in self.bits:
            with restored(subject.model, map(weight_of, linears)):
                for matrix in (matrix_of(linear).detach() for linear in linears):
                    matrix.copy_(round_to_nearest(matrix, bits, self.group))
                yield Checkpoint(Cost(), Artifact("weights"), f"bits={bits}")


def round_to_nearest(weight: torch.Tensor, bits: int, group: int | None) -> torch.Tensor:
    """``weight`` of shape (out, in) rounded to the grid {-m..m}·s, m = 2^(bits-1) - 1, s = max|w|/m a group.

    A group is ``group`` inputs of one output; a last one may be shorter. Same shape and type out.
    """
    rows, columns = weight.shape
    size = columns if group is None else group
    padded = torch.nn.functional.pad(weight.float(), (0, -columns % size)).view(rows, -1, size)
    levels = 2 ** (bits - 1) - 1
    scale = padded.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / levels
    rounded = (padded / scale).round().clamp(-levels, levels) * scale
    return rounded.view(rows, -1)[:, :columns].to(weight.dtype)
