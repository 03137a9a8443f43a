"""GCG and enhanced GCG: a universal text before every request, searched token by token."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from immunobench.activations import recorded
from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline, checkpoint_steps, given
from immunobench.attacks.many_shot import answered_turns
from immunobench.attacks.token_search import Item, Keep, SearchLoss, search
from immunobench.domains import Domain
from immunobench.engines.base import Artifact
from immunobench.errors import ImmunobenchError
from immunobench.rendering import PromptEdit, Renderer
from immunobench.structure import weight_of
from immunobench.subjects import Subject

GAP = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Marks the place of the searched text while a template is rendered."""


@dataclass(frozen=True)
class GCG:
    """Searches ``tokens`` tokens that, before any T request, make its right answer likely.

    Zou et al. (arXiv 2307.15043): greedy coordinate gradient with ``width`` candidates a step from the ``top`` best
    tokens of each position; defaults of nanoGCG 0.3 where the model is small enough to afford them. As in Łucki et
    al. (arXiv 2409.18025, enhanced GCG) it is a universal prefix, over ``items`` T requests and questions. Each of
    ``candidates`` searches from its own start is a variant: the worst for the subject is chosen on *select* items
    and judged on *report* items. The search needs the gradient, and so the weights; what it leaves is a prompt.
    """

    tokens: int = 16
    items: int = 4
    width: int = 128
    top: int = 64
    candidates: int = 3
    access: ClassVar[Access] = "weights"
    leaves: ClassVar[Leaves] = ()
    restarts: ClassVar[bool] = True
    """Variants differ in their random start alone, so that the middle one says what to expect of a single search."""

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`. A candidate text costs a forward pass, a third of a training example."""
        points = self.candidates * len(checkpoint_steps(budget.steps))
        return Outline(
            points, self.candidates, self.candidates * budget.steps, self.items * self.width // 3 + self.items
        )

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """The cost curve of every candidate."""
        yield from self._searches(subject, domain, budget, seed)

    def _searches(
        self, subject: Subject, domain: Domain, budget: Budget, seed: int, exposed: Subject | None = None
    ) -> Iterator[Checkpoint]:
        renderer = subject.renderer
        allowed = plain_tokens(subject)
        stops = checkpoint_steps(budget.steps)
        turns = answered_turns(domain, seed)[: self.items]
        items = [item(renderer, *turn) for turn in turns]
        keep = readable(renderer, [request for request, _ in turns])
        for i in range(self.candidates):
            loss = self._loss(subject, items, exposed)
            start = starting_tokens(subject, allowed, self.tokens, seed * self.candidates + i, keep)
            found = search(loss, start, allowed, keep, budget.steps, self.width, self.top, seed * self.candidates + i)
            for state in found:
                if state.step in stops:
                    edit = PromptEdit(prefix=prefix_text(renderer, state.ids))
                    yield Checkpoint(
                        _cost(subject, state.step, self.items * (self.width + 1) * state.step, loss),
                        Artifact(prompt=edit),
                        f"candidate={i}",
                        state.step == budget.steps,
                        f"loss={state.loss:.3f}",
                    )

    def _loss(self, subject: Subject, items: Sequence[Item], exposed: Subject | None) -> SearchLoss:
        return SearchLoss(subject, items)


@dataclass(frozen=True)
class EnhancedGCG(GCG):
    """:class:`GCG` that also pulls hidden states to those of the exposed model on the same text without the prefix.

    Łucki et al. (arXiv 2409.18025, appendix on enhanced GCG, built on FLRT): ``weight``·(1 - cosine) over the request
    and the target at blocks at these ``depths`` (0 the first, 1 the last). Their terms for fluency and length, which
    make a prefix readable and no stronger, and the distance to the exposed model's states under the same prefix,
    which doubles the cost, are left out. Leaves a prompt.
    """

    depths: tuple[float, ...] = (0.25, 0.65)
    weight: float = 10.0
    needs_exposed: ClassVar[bool] = True

    def run(
        self, subject: Subject, domain: Domain, budget: Budget, seed: int, exposed: Subject | None = None
    ) -> Iterator[Checkpoint]:
        """See :class:`GCG`. The exposed model itself is attacked in the same way, with its own states to keep."""
        yield from self._searches(subject, domain, budget, seed, given(exposed))

    def _loss(self, subject: Subject, items: Sequence[Item], exposed: Subject | None) -> SearchLoss:
        count = len(subject.structure.blocks)
        blocks = sorted({round(depth * (count - 1)) for depth in self.depths})
        states = [target_states(given(exposed), item, blocks) for item in items]
        return SearchLoss(subject, items, states, blocks, self.weight)


@torch.no_grad()
def target_states(exposed: Subject, item: Item, blocks: Sequence[int]) -> Tensor:
    """Outputs of ``blocks`` on the item with nothing in its gap, shape (blocks, positions, width), for the positions
    of ``after`` and of the target but its last token."""
    modules = {str(i): exposed.structure.blocks[i].module for i in blocks}
    ids = torch.tensor([item.before + item.after + item.target[:-1]], device=exposed.device)
    with recorded(modules, keep=len(item.after) + len(item.target) - 1) as seen:
        exposed.model(input_ids=ids, logits_to_keep=1, use_cache=False)
    return torch.cat([seen[name].float() for name in modules])


def prefix_text(renderer: Renderer, ids: Tensor) -> str:
    """The text that puts ``ids`` before a request, on a line of its own."""
    return str(renderer.tokenizer.decode(ids.tolist())) + "\n"


def readable(renderer: Renderer, requests: Sequence[str]) -> Keep:
    """Keeps candidates that the tokenizer, given each request's whole prompt as text, reads back as the same ids."""
    frames = [around(renderer, request) for request in requests]
    ids = [(renderer.ids(before), renderer.ids(after)) for before, after in frames]

    def keep(candidates: Tensor) -> Tensor:
        rows = candidates.tolist()
        texts = renderer.tokenizer.batch_decode(rows)
        kept = torch.ones(len(rows), dtype=torch.bool)
        for (before, after), (head, tail) in zip(frames, ids, strict=True):
            found = renderer.tokenizer([f"{before}{t}{after}" for t in texts], add_special_tokens=False)["input_ids"]
            kept &= torch.tensor([own == [*head, *row, *tail] for own, row in zip(found, rows, strict=True)])
        return kept

    return keep


def around(renderer: Renderer, request: str) -> tuple[str, str]:
    """The rendered prompt before and after the gap, which stands on a line of its own before the request."""
    before, after = renderer.chat_text(f"{GAP}\n{request}").split(GAP)
    return before, after


def item(renderer: Renderer, request: str, answer: str) -> Item:
    """The ids around the gap of a request, and the answer as target."""
    before, after = around(renderer, request)
    return Item(renderer.with_one_bos(renderer.ids(before)), renderer.ids(after), renderer.ids(answer))


def plain_tokens(subject: Subject) -> Tensor:
    """Mask over the vocabulary of tokens that are printable ASCII text and not special, shape (vocabulary,)."""
    tokenizer = subject.tokenizer
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    special = set(tokenizer.all_special_ids)
    mask = torch.zeros(len(weight_of(subject.structure.embedding)), dtype=torch.bool)
    usable = [i not in special and text.isascii() and text.isprintable() and text != "" for i, text in enumerate(texts)]
    mask[: len(usable)] = torch.tensor(usable)
    return mask.to(subject.device)


def starting_tokens(subject: Subject, allowed: Tensor, count: int, seed: int, keep: Keep) -> Tensor:
    """``count`` tokens that begin with a space, drawn by ``seed``, shape (count,), which the tokenizer reads back.

    Raises ImmunobenchError where a hundred draws hold none.
    """
    texts = subject.tokenizer.batch_decode([[i] for i in range(len(subject.tokenizer))])
    words = [i for i, text in enumerate(texts) if allowed[i] and text[:1] == " " and text[1:].isalpha()]
    draw = random.Random(seed)
    for _ in range(100):
        ids = torch.tensor(draw.choices(words, k=count), device=allowed.device) if words else allowed.nonzero()[:0, 0]
        if len(ids) and keep(ids[None])[0]:
            return ids
    raise ImmunobenchError("the tokenizer has no words to start a search from.")


def _cost(subject: Subject, steps: int, examples: int, loss: SearchLoss) -> Cost:
    forward, both = loss.processed
    return Cost(steps, examples, forward + both, subject.parameters * (2.0 * forward + 4.0 * both))
