"""Negative preference optimisation and its kin: ascent that stops by itself.

Steps, batch and rate of NPO, TNPO and WTNPO are those of the G-effect study (arXiv 2502.19301), which compares them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.defenses.base import Unlearning
from immunobench.training.objectives import (
    Likelihoods,
    negative_preference,
    simple_negative_preference,
    token_negative_preference,
    weighted_token_negative_preference,
)


@dataclass(frozen=True)
class NegativePreference(Unlearning):
    """Makes hazard answers less likely than the model before found them, as whole sequences (NPO; arXiv 2404.05868).

    Minimises mean (2/β) log(1 + (p/p_o)^β) + ``retain`` · NLL(retain).
    """

    name: ClassVar[str] = "npo"
    compares: ClassVar[bool] = True
    beta: float = 0.1

    def forget(self, tokens: Likelihoods) -> torch.Tensor:
        """The mean over sequences or tokens, in nats, shape ()."""
        return negative_preference(tokens, self.beta).mean()


@dataclass(frozen=True)
class TokenNegativePreference(Unlearning):
    """NPO of every token by itself (TNPO; arXiv 2502.19301)."""

    name: ClassVar[str] = "tnpo"
    compares: ClassVar[bool] = True
    beta: float = 4.0

    def forget(self, tokens: Likelihoods) -> torch.Tensor:
        """The mean over sequences or tokens, in nats, shape ()."""
        return token_negative_preference(tokens, self.beta).mean()


@dataclass(frozen=True)
class WeightedTokenNegativePreference(Unlearning):
    """TNPO with each token weighted by p^``alpha`` as well (WTNPO; arXiv 2502.19301)."""

    name: ClassVar[str] = "wtnpo"
    compares: ClassVar[bool] = True
    beta: float = 4.0
    alpha: float = 1.5

    def forget(self, tokens: Likelihoods) -> torch.Tensor:
        """The mean over sequences or tokens, in nats, shape ()."""
        return weighted_token_negative_preference(tokens, self.beta, self.alpha).mean()


@dataclass(frozen=True)
class SimpleNegativePreference(Unlearning):
    """NPO by mean log-probability and without a reference model (SimNPO; arXiv 2410.07163).

    β, γ, the weight of what is kept and the rate are those of its release for WMDP; steps and batch as for NPO.
    """

    name: ClassVar[str] = "simnpo"
    learning_rate: float = 4e-6
    retain: float = 5.0
    beta: float = 5.5
    gamma: float = 0.0

    def forget(self, tokens: Likelihoods) -> torch.Tensor:
        """The mean over sequences or tokens, in nats, shape ()."""
        return simple_negative_preference(tokens, self.beta, self.gamma).mean()
