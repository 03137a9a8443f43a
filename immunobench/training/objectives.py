"""Unlearning objectives, one definition for training on them and for their G-effect.

Every objective is minimised and is a sum of terms, one a token or one a sequence of the forget set. Training
descends on the mean of the terms; the G-effect (arXiv 2502.19301) asks for the derivative of their sum with respect
to each token's log-probability, which :func:`gradient_weights` gives.

The default hyper-parameters are the diagnostics'; where a paper or a common implementation has its own, the function
says so.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import softplus

from immunobench.subjects import Subject
from immunobench.training.batches import IGNORED, Batch
from immunobench.training.loop import token_logprobs


@dataclass(frozen=True)
class Likelihoods:
    """Natural-log probabilities of the scored tokens, under the subject and under the reference model."""

    logprobs: torch.Tensor
    """(tokens,)"""
    reference: torch.Tensor
    """(tokens,)"""
    sequences: torch.Tensor
    """Index of the sequence that each token is in, (tokens,), int64."""

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Sums of ``values`` (tokens,) over each sequence, (sequences,)."""
        count = int(self.sequences.max()) + 1
        return values.new_zeros(count).index_add_(0, self.sequences, values)

    @property
    def log_ratios(self) -> torch.Tensor:
        """log p/p_o of each whole sequence, (sequences,)."""
        return self.summed(self.logprobs - self.reference)


def likelihoods(subject: Subject, batch: Batch, reference: Subject | None = None) -> Likelihoods:
    """Of the scored tokens of ``batch``; the subject's own present values stand in for a reference that is None."""
    scored = batch.labels != IGNORED
    logprobs = token_logprobs(subject, batch)[scored]
    with torch.no_grad():
        base = logprobs.detach() if reference is None else token_logprobs(reference, batch)[scored]
    return Likelihoods(logprobs, base, scored.nonzero()[:, 0])


def gradient_ascent(tokens: Likelihoods) -> torch.Tensor:
    """GA: log p_i, (tokens,)."""
    return tokens.logprobs


def weighted_gradient_ascent(tokens: Likelihoods, alpha: float = 1.0) -> torch.Tensor:
    """WGA: p_i^α log p_i with p_i^α held constant, (tokens,)."""
    return (alpha * tokens.logprobs).exp().detach() * tokens.logprobs


def negative_preference(tokens: Likelihoods, beta: float = 0.5) -> torch.Tensor:
    """NPO (arXiv 2404.05868): (2/β) log(1 + (p_s/p_o,s)^β) of whole sequences, (sequences,)."""
    return 2 / beta * softplus(beta * tokens.log_ratios)


def token_negative_preference(tokens: Likelihoods, beta: float = 4.0) -> torch.Tensor:
    """TNPO: NPO of every token by itself, (tokens,)."""
    return 2 / beta * softplus(beta * (tokens.logprobs - tokens.reference))


def weighted_token_negative_preference(tokens: Likelihoods, beta: float = 4.0, alpha: float = 1.5) -> torch.Tensor:
    """WTNPO: w_i log p_i with w_i = p_i^α · 2 p_i^β / (p_i^β + p_o,i^β) held constant, (tokens,)."""
    preference = 2 * torch.sigmoid(beta * (tokens.logprobs - tokens.reference))
    return (preference * (alpha * tokens.logprobs).exp()).detach() * tokens.logprobs


def simple_negative_preference(tokens: Likelihoods, beta: float = 2.5, gamma: float = 0.0) -> torch.Tensor:
    """SimNPO (arXiv 2410.07163): −(2/β) log σ(−(β/|s|) log p_s − γ), (sequences,).

    No reference model; |s| is the number of scored tokens of the sequence.
    """
    length = tokens.summed(torch.ones_like(tokens.logprobs))
    return 2 / beta * softplus(beta * tokens.summed(tokens.logprobs) / length + gamma)


Objective = Callable[[Likelihoods], torch.Tensor]

TOKEN_OBJECTIVES: dict[str, Objective] = {
    "GA": gradient_ascent,
    "WGA": weighted_gradient_ascent,
    "NPO": negative_preference,
    "TNPO": token_negative_preference,
    "WTNPO": weighted_token_negative_preference,
    "SimNPO": simple_negative_preference,
}


def direct_preference(rejected: Likelihoods, chosen: Likelihoods, beta: float = 0.5) -> torch.Tensor:
    """DPO (arXiv 2305.18290) of a refusal over the answer to the same request, scaled as NPO is, (sequences,).

    −(2/β) log σ(β (log-ratio of the refusal − log-ratio of the answer)). Sequence s of one is a pair with sequence s
    of the other.
    """
    return 2 / beta * softplus(-beta * (chosen.log_ratios - rejected.log_ratios))


def gradient_weights(objective: Callable[..., torch.Tensor], *sets: Likelihoods) -> tuple[torch.Tensor, ...]:
    """∂L/∂log p_i of L = Σ terms of ``objective``, at the values of each of ``sets``, (tokens,) each."""
    with torch.enable_grad():
        leaves = [replace(each, logprobs=each.logprobs.detach().requires_grad_()) for each in sets]
        return torch.autograd.grad(objective(*leaves).sum(), [each.logprobs for each in leaves])


def steering_target(width: int, length: float, seed: int) -> torch.Tensor:
    """RMU's c·u (arXiv 2403.03218): a vector (width,) drawn from [0, 1)^width and scaled to ``length``."""
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return length * drawn / drawn.norm()


def misdirection(hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """RMU's forget loss of every state: (h − c·u)² as a mean over the last dimension, which it removes."""
    return ((hidden.float() - target) ** 2).mean(-1)
