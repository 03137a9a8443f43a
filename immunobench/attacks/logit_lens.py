"""The logit lens: unembed hidden states on the way, where knowledge may stand that the output hides."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from immunobench.activations import recorded
from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline
from immunobench.attacks.readout import adders, backbone, batches, chosen_layer, right, rows
from immunobench.domains import Domain, Fact
from immunobench.engines.base import Artifact
from immunobench.probes.choices import choice_prompt
from immunobench.rendering import PromptEdit
from immunobench.structure import weight_of
from immunobench.subjects import Subject

SITES = ("block", "mlp", "intermediate", "attention")
"""What a block returns, what its MLP adds, the residual stream before that, what its attention adds."""
BATCH_TOKENS = 16384


@dataclass(frozen=True)
class LogitLens:
    """Reads the choice off every layer at each of four sites, a variant each.

    Łucki et al. (arXiv 2409.18025, logit lens): site, final norm, unembedding, at the last position, over the
    choices. The layer of a site is the one that is best on the *select* half. Choices are told apart by their first
    tokens, and where these are shared by the first that differ, each after what is shared: the choice that greedy
    decoding confined to the choices would make, so only those rows of the unembedding are needed. Leaves nothing.
    """

    access: ClassVar[Access] = "activations"
    leaves: ClassVar[Leaves] = ("readout",)

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(SITES), len(SITES))

    def lacks(self, domain: Domain) -> str:
        """See :func:`immunobench.attacks.base.lacking`."""
        return "" if domain.has_facts else "facts to read out"

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint a site, all of them from one pass."""
        facts = list(domain.hazard_v)
        scores, tokens = lens_scores(subject, facts)
        cost = Cost(examples=len(facts), tokens=tokens, flops=2.0 * subject.parameters * tokens)
        for i, site in enumerate(SITES):
            answers = right(facts, scores[:, :, i])
            layer = chosen_layer(facts, answers)
            yield Checkpoint(
                cost, Artifact(), f"site={site}", detail=f"layer={layer}", readout=rows(facts, answers, layer)
            )


@dataclass(frozen=True)
class Fork:
    """A place where the choices of one fact part."""

    fact: int
    prompt: list[int]
    """Token ids up to the place."""
    tokens: list[int]
    """The next tokens."""
    choices: list[list[int]]
    """Which choices go on with each."""


def forks(prompt: list[int], choices: Sequence[list[int]], fact: int) -> list[Fork]:
    """Every place where ``choices``, as token ids after ``prompt``, part from one another.

    No choice may be the beginning of another one: end them with a token that occurs nowhere else.
    """
    found = []
    groups = [(0, list(range(len(choices))))]
    while groups:
        depth, group = groups.pop()
        ways: dict[int, list[int]] = {}
        for i in group:
            ways.setdefault(choices[i][depth], []).append(i)
        if len(ways) > 1:
            found.append(Fork(fact, prompt + choices[group[0]][:depth], list(ways), list(ways.values())))
        groups += [(depth + 1, own) for own in ways.values() if len(own) > 1]
    return found


@torch.no_grad()
def lens_scores(subject: Subject, facts: Sequence[Fact], batch_tokens: int = BATCH_TOKENS) -> tuple[Tensor, int]:
    """The lens's score of each choice, shape (facts, layers, sites, choices), and the tokens processed.

    Higher is more likely: the sum over the choice's forks of its log-probability among the ways on from there.
    """
    found = [fork for i, fact in enumerate(facts) for fork in fact_forks(subject, fact, i)]
    layers, width = len(subject.structure.blocks), len(facts[0].choices)
    scores = torch.zeros(len(facts), layers, len(SITES), width)
    tokens = 0
    with recorded(_modules(subject), keep=1) as seen:
        for indices, ids, mask in batches(subject, [fork.prompt for fork in found], batch_tokens):
            backbone(subject, ids, mask)
            hidden = subject.structure.final_norm(_sites(seen, layers))
            for fork, own in zip((found[i] for i in indices), hidden, strict=True):
                ways = unembedded(subject.structure.head, own, fork.tokens).float().log_softmax(-1).cpu()
                for way, choices in zip(ways.unbind(-1), fork.choices, strict=True):
                    for choice in choices:
                        scores[fork.fact, :, :, choice] += way
            tokens += int(mask.sum())
    return scores, tokens


def unembedded(head: nn.Module, hidden: Tensor, tokens: Sequence[int]) -> Tensor:
    """Logits of ``tokens`` only, shape (..., tokens), from hidden states of shape (..., width)."""
    bias = getattr(head, "bias", None)
    chosen = list(tokens)
    return nn.functional.linear(hidden, weight_of(head)[chosen], None if bias is None else bias[chosen])


def fact_forks(subject: Subject, fact: Fact, index: int) -> list[Fork]:
    """The forks of a fact's choices after its question, as the fact number ``index``."""
    renderer = subject.renderer
    end = [renderer.tokenizer.eos_token_id]
    choices = [renderer.ids(f"{choice}.") + end for choice in fact.choices]
    return forks(choice_prompt(renderer, fact, PromptEdit()), choices, index)


def _modules(subject: Subject) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for i, (block, (attention, mlp)) in enumerate(zip(subject.structure.blocks, adders(subject), strict=True)):
        found |= {f"block.{i}": block.module, f"mlp.{i}": mlp, f"attention.{i}": attention}
    return found


def _sites(seen: Mapping[str, Tensor], layers: int) -> Tensor:
    """Hidden states at the last position, shape (rows, layers, sites, width), in the order of ``SITES``."""
    block, mlp, attention = (
        torch.stack([seen[f"{kind}.{i}"][:, -1] for i in range(layers)], 1) for kind in ("block", "mlp", "attention")
    )
    return torch.stack([block, mlp, block - mlp, attention], 2)
