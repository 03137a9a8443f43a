"""Does freezing what safety rests on stop fine-tuning? All weights and a LoRA, around nothing, little and much."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from immunobench.attribution.removal import Tensors, frozen_weights, share_of
from immunobench.diagnostics.guardrail import Gauge, Reading, Verdicts
from immunobench.domains import Domain
from immunobench.edits import masked_low_rank_adapter, restored
from immunobench.structure import matrix_of
from immunobench.subjects import AUTOCAST_FROM, Subject
from immunobench.training import Recipe, train
from immunobench.training.examples import fact_examples

RANK, ALPHA = 8, 32
"""Of the LoRA."""


def freezing(
    subject: Subject,
    domain: Domain,
    frozen: Mapping[str, Tensors],
    gauge: Gauge,
    verdicts: Verdicts,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """Fine-tune on T facts with each of ``frozen`` kept where it is; the subject is then as it was.

    ``frozen`` holds masks by linear under the name of what they freeze; no masks freeze nothing. Each is tried with
    all other weights trained and with a LoRA whose product is masked.
    """
    found = {}
    for way, opened in WAYS.items():
        for name, masks in frozen.items():
            with opened(subject, masks, seed) as parameters:
                _fine_tune(subject, domain, steps, seed, parameters)
                reading = gauge.read(subject)
            found[f"{name}; {way}"] = {"frozen": share_frozen(subject, masks), **_outcome(reading, verdicts)}
    return found


def share_frozen(subject: Subject, masks: Tensors) -> float:
    """The share of the weights of all block linears that ``masks`` mark."""
    whole = sum(matrix_of(linear).numel() for linear in subject.structure.linears.values())
    return share_of(masks) * sum(mask.numel() for mask in masks.values()) / whole


@contextmanager
def _all_but(subject: Subject, masks: Tensors, seed: int) -> Iterator[None]:
    with restored(subject.model), frozen_weights(subject, masks):
        yield


@contextmanager
def _adapter_around(subject: Subject, masks: Tensors, seed: int) -> Iterator[list[nn.Parameter]]:
    linears = subject.structure.linears
    free = {
        name: ~masks[name] if name in masks else torch.ones_like(matrix_of(linear), dtype=torch.bool)
        for name, linear in linears.items()
    }
    with restored(subject.model, []), masked_low_rank_adapter(linears, free, RANK, ALPHA, seed) as parameters:
        yield parameters


def _fine_tune(subject: Subject, domain: Domain, steps: int, seed: int, parameters: list[nn.Parameter] | None) -> None:
    rate = 1e-4 if subject.parameters >= AUTOCAST_FROM else 1e-3
    # Weight decay would move frozen weights.
    recipe = Recipe(rate, steps, 8, weight_decay=0.0)
    for _ in train(subject, fact_examples(domain.hazard_t, domain.requests_t), recipe, seed, parameters):
        pass


def _outcome(reading: Reading, verdicts: Verdicts) -> dict[str, Any]:
    return {
        "broken": verdicts.broken(reading),
        "utility_kept": verdicts.utility_kept(reading),
        **reading.as_dict(),
    }


WAYS: dict[str, Callable[[Subject, Tensors, int], AbstractContextManager[list[nn.Parameter] | None]]] = {
    "all weights": _all_but,
    "LoRA": _adapter_around,
}
"""Opens a subject for fine-tuning around masks and yields what is trained, None for all parameters."""
