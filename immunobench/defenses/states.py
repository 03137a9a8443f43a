"""Hidden states of a batch, and what each layer would say by itself."""

from dataclasses import dataclass

import torch

from immunobench.activations import recorded
from immunobench.subjects import Subject
from immunobench.training.batches import IGNORED, Batch
from immunobench.training.loop import label_logits, label_logprobs


@dataclass(frozen=True)
class States:
    """One forward pass with everything that representation losses need."""

    residual: list[torch.Tensor]
    """The residual stream after the embedding and after each block, (examples, length, width) each."""
    mlp: list[torch.Tensor]
    """What each block's MLP writes, (examples, length, width) each."""
    logits: torch.Tensor
    """(examples, keep, vocabulary)"""


def states(subject: Subject, batch: Batch) -> States:
    """Run ``batch``; gradients flow through what is returned."""
    structure = subject.structure
    residual = {"embedding": structure.embedding} | {f"block {i}": b.module for i, b in enumerate(structure.blocks)}
    mlp = {f"mlp {i}": b.mlp for i, b in enumerate(structure.blocks)}
    with recorded(residual | mlp) as found:
        logits = label_logits(subject, batch)
    return States([found[name] for name in residual], [found[name] for name in mlp], logits)


def layerwise_losses(subject: Subject, found: States, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-probability of ``labels`` as read from each layer by the logit lens, (layers,).

    Layers are the embedding and every block; labels (examples, keep) are IGNORED where they do not count.
    """
    keep = labels.shape[1]
    structure = subject.structure
    losses = []
    for hidden in found.residual:
        logits = structure.head(structure.final_norm(hidden[:, -keep - 1 : -1])).float()
        losses.append(-label_logprobs(logits, labels).sum() / (labels != IGNORED).sum())
    return torch.stack(losses)


def damped_ascent(losses: torch.Tensor) -> torch.Tensor:
    """−log(1 + mean loss): ascent on the losses of all layers that slows as they grow."""
    return -torch.log1p(losses.mean())
