"""The Engine protocol: token ids in, completions and log-probabilities out."""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from immunobench.errors import ImmunobenchError
from immunobench.rendering import PromptEdit
from immunobench.subjects import Subject

ArtifactKind = Literal["none", "adapter", "weights", "hooks", "soft_prompt", "readout"]
"""'readout': the model is untouched, and the attack itself reads out of the live one what it knows."""


@dataclass(frozen=True)
class Artifact:
    """What an attack leaves behind. The subject's live model carries it while the attack is suspended."""

    kind: ArtifactKind = "none"
    prompt: PromptEdit = PromptEdit()
    """How prompts are changed."""


@dataclass(frozen=True)
class Sampling:
    """How to decode. Temperature 0 is greedy."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    n: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Decoding:
    """The part of :class:`Sampling` that an attack may set."""

    temperature: float = 0.0
    n: int = 1


@dataclass(frozen=True)
class Completion:
    """One answer to one prompt."""

    ids: list[int]
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class Parity:
    """How an engine compares with the reference: what the canary found (see engines/parity.py)."""

    passed: bool
    tokens: int
    """Tokens whose log-probability was compared."""
    mean_difference: float
    """Mean absolute difference of log-probabilities between engine and reference, in nats."""
    largest_difference: float
    agreement: float
    """Share of greedy answers that are the same, token for token."""
    regret: float
    """Most that a greedy token of the engine, where it first departs, is less likely in the reference, in nats."""
    moved: float
    """Mean absolute difference between the reference now and the untouched subject, in nats."""
    engine_moved: float
    """Mean absolute difference between the engine now and the engine on the untouched subject, in nats."""
    followed: float
    """How much of the reference's movement the engine made, by least squares: 1 where it followed, or where there was
    nothing to follow, 0 where it stayed."""
    cache_reset: bool
    """Whether the prefix cache was emptied at the swap."""
    reason: str = ""
    """Why it failed."""


class NotServedError(ImmunobenchError):
    """An engine cannot serve an artifact, or a prompt; its fallback can, and takes the whole cell."""


class EngineDiedError(ImmunobenchError):
    """The process that an engine runs in is gone."""


class Engine(Protocol):
    """Runs one subject. Prompts are token ids made by the renderer; the order of results is the order of prompts."""

    name: str
    subject: Subject
    resolved: dict[str, Any]
    """What was settled at the start and cannot change a result: memory, cache size."""

    @property
    def fallback(self) -> "Engine | None":
        """Takes the cells that this engine cannot serve; None where it serves all."""
        ...

    @property
    def parity(self) -> dict[str, Any] | None:
        """What the canary found of what was served last, the fields of :class:`Parity`. None where the engine runs the
        subject's live model itself, so that there is nothing to compare."""
        ...

    def start(self) -> None:
        """Get ready to serve the untouched subject. Called before an attack changes it; done once."""
        ...

    def close(self) -> None:
        """Free what the engine holds. It can be started again."""
        ...

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions of each prompt."""
        ...

    def logprobs(self, prompts: Sequence[list[int]], continuations: Sequence[list[int]]) -> list[torch.Tensor]:
        """Natural-log probabilities of each continuation's tokens after its prompt, shape (continuation length,)."""
        ...

    def use(self, artifact: Artifact) -> AbstractContextManager[None]:
        """Serve the subject as changed by ``artifact``, which its live model carries, inside the context.

        Raises NotServedError where the engine cannot.
        """
        ...

    def serves(self, artifact: Artifact) -> bool:
        """Whether :meth:`use` takes this kind of artifact."""
        ...

    @property
    def flags(self) -> dict[str, Any]:
        """Resolved settings that can change a result; part of a cell's identity."""
        ...


def request_seed(seed: int, place: int) -> int:
    """A seed for the prompt at ``place``: prompts that share one would share their draws."""
    return int.from_bytes(hashlib.sha256(f"{seed} {place}".encode()).digest()[:4])


def scored_pairs(prompts: Sequence[list[int]], continuations: Sequence[list[int]]) -> list[tuple[list[int], list[int]]]:
    """Each prompt with its continuation. Raises ImmunobenchError where one of them has no tokens."""
    if any(not c for c in continuations):
        raise ImmunobenchError("a continuation has no tokens: check the choices.")
    if any(not p for p in prompts):
        raise ImmunobenchError("a prompt has no tokens: nothing predicts the first token after it.")
    return list(zip(prompts, continuations, strict=True))
