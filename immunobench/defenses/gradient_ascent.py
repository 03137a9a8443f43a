"""Gradient ascent on the hazard with descent on what must be kept."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.defenses.base import Unlearning
from immunobench.training import Recipe
from immunobench.training.objectives import Likelihoods, gradient_ascent, weighted_gradient_ascent


def bounded_ascent(tokens: Likelihoods, ceiling: float) -> torch.Tensor:
    """Mean log p over tokens, shape (), without a gradient where their loss has passed ``ceiling`` (nats a token)."""
    return gradient_ascent(tokens).mean().clamp(min=-ceiling)


@dataclass(frozen=True)
class GradientAscent(Unlearning):
    """Minimises mean log p(forget) + ``retain`` · NLL(retain) (GA with gradient difference; arXiv 2502.19301).

    Ascent is unbounded, so a batch whose loss has passed ``ceiling`` (nats a token) contributes no more:
    far past uniform over the vocabulary it only destroys the model. The source has no ceiling.
    """

    name: ClassVar[str] = "ga"
    ceiling: float = math.inf

    @property
    def recipe(self) -> Recipe:
        """AdamW at a constant rate."""
        return Recipe(self.learning_rate, self.steps, self.batch_size)

    def forget(self, tokens: Likelihoods) -> torch.Tensor:
        """Mean log-probability, in nats a token, shape ()."""
        return bounded_ascent(tokens, self.ceiling)


@dataclass(frozen=True)
class WeightedGradientAscent(Unlearning):
    """GA with each token weighted by p^``alpha``, so that what is forgotten is left alone (WGA; arXiv 2502.19301)."""

    name: ClassVar[str] = "wga"
    alpha: float = 1.0

    def forget(self, tokens: Likelihoods) -> torch.Tensor:
        """Weighted mean log-probability, in nats a token, shape ()."""
        return weighted_gradient_ascent(tokens, self.alpha).mean()
