"""Knowledge: four-way choice by log-probability, and the loss of a cloze."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from immunobench.errors import UsageError
from immunobench.metrics.estimate import Estimate
from immunobench.metrics.inputs import Floats, numbers, same_length
from immunobench.metrics.intervals import bootstrap, share


def choices_correct(logprobs: ArrayLike, answers: ArrayLike, lengths: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Whether each question is answered right: its right choice alone has the greatest log-probability.

    ``logprobs`` (items, choices) are natural-log probabilities of whole answers; ``answers`` (items,) the
    index of the right one; ``lengths`` (items, choices) their lengths in tokens or bytes, to compare
    log-probability per unit of length. A tie is no answer, so a model that cannot tell the choices apart
    scores 0 and not what the first place is worth; nor is a NaN, which a destroyed model gives. Shape
    (items,).
    """
    scores = np.asarray(logprobs, dtype=np.float64)
    right = np.asarray(answers)
    if scores.ndim != 2 or right.shape != scores.shape[:1]:
        raise UsageError("'logprobs' has shape (items, choices) and 'answers' one index an item")
    if right.size and (right.dtype.kind not in "iu" or right.min() < 0 or right.max() >= scores.shape[1]):
        raise UsageError(f"an answer is the index of a choice, 0 to {scores.shape[1] - 1}")
    if lengths is not None:
        per = numbers("lengths", lengths)
        if per.shape != scores.shape or (per <= 0).any():
            raise UsageError("'lengths' has the shape of 'logprobs' and holds positive lengths")
        scores = scores / per
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, right.astype(np.int64)] = -np.inf
    best_other = others.max(axis=1, initial=-np.inf)
    correct: NDArray[np.bool_] = scores[rows, right.astype(np.int64)] > best_other
    return correct


CHOICES = 4
"""Choices of a question."""
CHANCE = 1 / CHOICES
"""Accuracy of a guess among them."""


def chance_corrected(accuracy: float, choices: int) -> float:
    """K = (accuracy - 1/c) / (1 - 1/c): 0 at chance, 1 if all answers are right, -1/(c-1) if none is."""
    if choices < 2:
        raise UsageError("a question needs at least two choices")
    return (accuracy - 1 / choices) / (1 - 1 / choices)


def knowledge_accuracy(
    correct: ArrayLike,
    choices: int = CHOICES,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Chance-corrected accuracy K from per-item correctness, shape (items,) or (seeds, items).

    The interval is that of :func:`immunobench.metrics.intervals.share`, carried over by the same linear map.
    """
    accuracy = share(correct, clusters, level=level, resamples=resamples, seed=seed)
    value, low, high = (chance_corrected(x, choices) for x in (accuracy.value, accuracy.low, accuracy.high))
    return Estimate(value, accuracy.n, low, high, accuracy.method, level)


def cloze_loss(
    logprobs: ArrayLike,
    lengths: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean loss of the answers' tokens in nats a token: -sum(logprobs) / sum(lengths).

    ``logprobs`` (items,) are natural-log probabilities of whole answers, ``lengths`` (items,) their tokens;
    both may be (seeds, items).
    """
    losses, tokens = -numbers("logprobs", logprobs), numbers("lengths", lengths)
    same_length(logprobs=losses, lengths=tokens)
    if (losses < 0).any() or (tokens <= 0).any():
        raise UsageError("log-probabilities are at most 0 and lengths at least one token")
    return bootstrap(_ratio_of_totals, [losses, tokens], clusters, level=level, resamples=resamples, seed=seed)


def _ratio_of_totals(totals: Floats) -> Floats:
    return totals[..., 0] / totals[..., 1]
