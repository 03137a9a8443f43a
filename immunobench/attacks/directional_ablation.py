"""Directional ablation by editing weights: what writes to the residual stream loses one direction.

Two sources of the direction: the difference to the exposed model, and harmful against harmless requests.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from immunobench.activations import recorded
from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline, given
from immunobench.attacks.data import calibration_data, passes_cost
from immunobench.attacks.refusal_direction import embeddings, find_refusal_direction
from immunobench.domains import Domain, Example
from immunobench.edits import restored, untied
from immunobench.engines.base import Artifact
from immunobench.errors import UsageError
from immunobench.structure import Structure, matrix_of
from immunobench.subjects import Subject
from immunobench.training.batches import make_batch
from immunobench.training.loop import render


@dataclass(frozen=True)
class DifferenceAblation:
    """Removes the direction in which the subject's residual stream differs from the exposed model's.

    Per layer d_l = mean h_l(subject) - mean h_l(exposed) over the tokens of ``data``, at block outputs (Łucki et
    al., arXiv 2409.18025, orthogonalization with the base model's activations on the same prompts). Variant
    'layers=each' keeps every block from writing its own d_l; the others keep all of the model from writing the d_l
    of the block at one of ``depths`` (1 is the last). That paper ablates activations as they pass; here weights are
    edited (Arditi et al., arXiv 2406.11717), which any engine can serve. Needs the same tokenizer in both
    models. Leaves changed weights.
    """

    data: str = "t-facts"
    depths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    calibration: int = 128
    access: ClassVar[Access] = "weights"
    leaves: ClassVar[Leaves] = ("weights",)
    needs_exposed: ClassVar[bool] = True

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(1 + len(self.depths), 1 + len(self.depths))

    def run(
        self, subject: Subject, domain: Domain, budget: Budget, seed: int, exposed: Subject | None = None
    ) -> Iterator[Checkpoint]:
        """One checkpoint for all layers' own directions and one a depth."""
        blocks = subject.structure.blocks
        depths = {f"depth={depth:g}": max(0, round(depth * len(blocks)) - 1) for depth in self.depths}
        if given(exposed) is subject:
            for variant in ("layers=each", *depths):
                yield Checkpoint(Cost(), Artifact(), variant, detail="nothing differs")
            return
        examples = calibration_data(subject, domain, self.data, self.calibration, seed)
        cost = passes_cost(subject, examples, 4.0)
        differences = mean_residuals(subject, subject, examples) - mean_residuals(given(exposed), subject, examples)
        with without_own_directions(subject, differences):
            yield Checkpoint(cost, Artifact("weights"), "layers=each")
        for variant, layer in depths.items():
            with without_direction(subject, differences[layer]):
                yield Checkpoint(cost, Artifact("weights"), variant, detail=f"layer={layer}")


@dataclass(frozen=True)
class RefusalAblation:
    """Removes the direction in which hazard requests differ from benign ones, so that the model cannot refuse.

    Candidates, selection by bypass, induce and KL, and the weight edit are those of Arditi et al. (arXiv 2406.11717,
    see :func:`find_refusal_direction`), from requests about T facts. A subject that never refuses has
    no such direction and is left as it is. Leaves changed weights.
    """

    train: int = 128
    validation: int = 32
    positions: int = 5
    access: ClassVar[Access] = "weights"
    leaves: ClassVar[Leaves] = ("weights",)

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(1)

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint."""
        found = find_refusal_direction(subject, domain, self.train, self.validation, self.positions, seed)
        if found.direction is None:
            yield Checkpoint(found.cost, Artifact(), detail=found.detail)
            return
        with without_direction(subject, found.direction):
            yield Checkpoint(found.cost, Artifact("weights"), detail=found.detail)


@torch.no_grad()
def mean_residuals(model: Subject, reader: Subject, examples: Sequence[Example], batch_size: int = 16) -> torch.Tensor:
    """Mean of every block's output over the tokens of ``examples`` but each first, shape (blocks, hidden), float64.

    ``reader`` renders, so that two models are given the same token ids. The first token is left out because its
    activations are far larger than all others in many models. Raises UsageError where ``model`` has a smaller
    vocabulary.
    """
    rows = render(reader, examples)
    if max(max(row.prompt + row.response) for row in rows) >= model.structure.embedding.num_embeddings:  # type: ignore[operator]
        raise UsageError(f"'{model.spec}' and '{reader.spec}' have different vocabularies: they cannot be compared.")
    blocks = {str(i): block.module for i, block in enumerate(model.structure.blocks)}
    total = torch.zeros(len(blocks), model.structure.hidden_size, dtype=torch.float64, device=model.device)
    count = 0
    for start in range(0, len(rows), batch_size):
        batch = make_batch(rows[start : start + batch_size], reader.tokenizer.pad_token_id, model.device)
        later = batch.mask.bool() & (batch.positions > 0)
        with model.autocast(), recorded(blocks) as outputs:
            model.model(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                position_ids=batch.positions,
                logits_to_keep=1,
                use_cache=False,
            )
        total += torch.stack([outputs[name][later].double().sum(0) for name in blocks])
        count += int(later.sum())
    return total / count


def writers(structure: Structure) -> list[list[nn.Module]]:
    """The linears of each block that write to the residual stream."""
    return [[block.attention_out, block.mlp_out] for block in structure.blocks]


@contextmanager
def without_direction(subject: Subject, direction: torch.Tensor) -> Iterator[None]:
    """Inside, nothing in the model writes along ``direction``, shape (hidden,): W ← W - r̂·r̂ᵀ·W for every writer.

    Equal to removing it from activations wherever they are written, save in models that norm a block's output
    before adding it. Output embeddings keep the direction, also where they share their weight with the input ones.
    A direction of length 0 changes nothing.
    """
    linears = [linear for block in writers(subject.structure) for linear in block]
    with untied(subject.model):
        tables = embeddings(subject)
        with restored(subject.model, _parameters([*linears, *tables])):
            for linear in linears:
                remove_output_direction(linear, direction)
            for table in tables:
                _remove(table.weight.detach().T, direction)
            yield


@contextmanager
def without_own_directions(subject: Subject, directions: torch.Tensor) -> Iterator[None]:
    """Inside, block l does not write along ``directions[l]``; shape (blocks, hidden)."""
    blocks = writers(subject.structure)
    with restored(subject.model, _parameters([linear for block in blocks for linear in block])):
        for block, direction in zip(blocks, directions, strict=True):
            for linear in block:
                remove_output_direction(linear, direction)
        yield


def remove_output_direction(linear: nn.Module, direction: torch.Tensor) -> None:
    """Make a linear's output, bias included, orthogonal to ``direction``, in place."""
    _remove(matrix_of(linear).detach(), direction)
    bias = getattr(linear, "bias", None)
    if bias is not None:
        _remove(bias.detach()[:, None], direction)


def _remove(columns: torch.Tensor, direction: torch.Tensor) -> None:
    """Take ``direction`` out of every column of a matrix (hidden, n), in place."""
    length = direction.norm()
    if length > 0:
        unit = (direction / length).to(columns.device, torch.float64)
        columns.copy_((columns.double() - torch.outer(unit, unit @ columns.double())).to(columns.dtype))


def _parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]
