"""Soft prompts: input embeddings that are optimised freely, for all requests at once or for each of its own."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from immunobench.activations import virtual_tokens
from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline, checkpoint_steps
from immunobench.domains import Domain, Example
from immunobench.edits import restored
from immunobench.engines.base import Artifact
from immunobench.probes.behaviour import stem
from immunobench.rendering import PromptEdit, Rendered
from immunobench.structure import weight_of
from immunobench.subjects import Subject
from immunobench.training import Recipe
from immunobench.training.batches import Batch, endless, make_batch
from immunobench.training.examples import fact_examples
from immunobench.training.loop import cross_entropy, descend


@dataclass(frozen=True)
class UniversalSoftPrompt:
    """One prompt of ``tokens`` vectors before every request, trained on T facts with their answers.

    Prompt tuning (Lester et al., arXiv 2104.08691) as an attack (Schwinn et al., arXiv 2402.09063): the vectors
    start at embeddings of tokens drawn by the seed and stand right after the BOS. Leaves a soft prompt.
    """

    tokens: int = 16
    learning_rate: float = 1e-2
    batch_size: int = 16
    access: ClassVar[Access] = "activations"
    leaves: ClassVar[Leaves] = ("soft_prompt",)

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(checkpoint_steps(budget.steps)), 1, budget.steps, self.batch_size)

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """The cost curve of one prompt."""
        vectors = starting_vectors(subject, self.tokens, seed)
        first = len(weight_of(subject.structure.embedding))
        ids = range(first, first + self.tokens)
        edit = PromptEdit(virtual=lambda request: ids)
        examples = [e for e in fact_examples(domain.hazard_t, domain.requests_t) if e.prompt is not None]
        rendered = [subject.renderer.example(example, edit) for example in examples]
        recipe = Recipe(self.learning_rate, budget.steps, self.batch_size, weight_decay=0.0)
        batches = _endless(subject, rendered, self.batch_size, seed)
        stops = checkpoint_steps(budget.steps)
        with restored(subject.model, []), virtual_tokens(subject.structure.embedding, vectors):
            for step in descend(subject, batches, recipe, cross_entropy, [vectors]):
                if step.step in stops:
                    cost = Cost(step.step, step.examples, step.tokens, 4.0 * subject.parameters * step.tokens)
                    yield Checkpoint(cost, Artifact("soft_prompt", edit), last=step.step == budget.steps)


@dataclass(frozen=True)
class RequestSoftPrompt:
    """A prompt of ``tokens`` vectors for each measured request and question, trained on the stem of its answer.

    Schwinn et al. (arXiv 2402.09063) optimise for an affirmative start. A soft prompt can make a model say
    anything at all (Chen et al., arXiv 2502.15836), so nothing but the words before the value is ever a target: what
    follows them must come from the model. A step is one update of every prompt. Leaves a soft prompt.
    """

    tokens: int = 4
    learning_rate: float = 1e-2
    batch_size: int = 64
    """Prompts that are optimised together; it changes speed and not the result."""
    access: ClassVar[Access] = "activations"
    leaves: ClassVar[Leaves] = ("soft_prompt",)

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(checkpoint_steps(budget.steps)), 1, budget.steps, every_item=True)

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """The cost curve of all prompts together."""
        stems = {fact.question: fact.cloze for fact in domain.hazard_v}
        stems |= {request.prompt: stem(request) for request in domain.requests_v}
        first = len(weight_of(subject.structure.embedding))
        ids = {r: range(first + i * self.tokens, first + (i + 1) * self.tokens) for i, r in enumerate(stems)}
        edit = PromptEdit(virtual=lambda request: ids.get(request, ()), prefill="{stem}")
        start = starting_vectors(subject, self.tokens, seed).detach().repeat(len(stems), 1)
        states: dict[int, list[torch.Tensor]] = {}
        tokens: dict[int, int] = {}
        examples = [Example(prompt, answer) for prompt, answer in stems.items()]
        for begin in range(0, len(examples), self.batch_size):
            part = examples[begin : begin + self.batch_size]
            own = nn.Parameter(start[begin * self.tokens : (begin + len(part)) * self.tokens].clone())
            rendered = [_without_end(subject, example, edit, begin * self.tokens) for example in part]
            for step, seen in self._optimise(subject, rendered, own, budget.steps):
                states.setdefault(step, []).append(own.detach().clone())
                tokens[step] = tokens.get(step, 0) + seen
        for step, parts in sorted(states.items()):
            cost = Cost(step, step * len(stems), tokens[step], 4.0 * subject.parameters * tokens[step])
            with virtual_tokens(subject.structure.embedding, torch.cat(parts)):
                yield Checkpoint(cost, Artifact("soft_prompt", edit), last=step == budget.steps)

    def _optimise(
        self, subject: Subject, rendered: Sequence[Rendered], vectors: nn.Parameter, steps: int
    ) -> Iterator[tuple[int, int]]:
        """(step, tokens seen) at each checkpoint while ``vectors`` descend."""
        recipe = Recipe(self.learning_rate, steps, len(rendered), weight_decay=0.0, max_gradient_norm=None)
        batches = _endless(subject, rendered, len(rendered), 0)
        with restored(subject.model, []), virtual_tokens(subject.structure.embedding, vectors):
            for step in descend(subject, batches, recipe, cross_entropy, [vectors]):
                if step.step in checkpoint_steps(steps):
                    yield step.step, step.tokens


def starting_vectors(subject: Subject, tokens: int, seed: int) -> nn.Parameter:
    """Embeddings of ``tokens`` tokens drawn by ``seed``, shape (tokens, width), float32."""
    weight = weight_of(subject.structure.embedding).detach()
    return nn.Parameter(weight[random.Random(seed).choices(range(len(weight)), k=tokens)].float().clone())


def _without_end(subject: Subject, example: Example, edit: PromptEdit, offset: int) -> Rendered:
    """The prompt with its virtual tokens counted from ``offset``, and the response without an end of turn."""
    first = len(weight_of(subject.structure.embedding))
    assert example.prompt is not None
    ids = subject.renderer.prompt(example.prompt, replace(edit, prefill=""))
    return Rendered([i - offset if i >= first else i for i in ids], subject.renderer.ids(example.response))


def _endless(subject: Subject, rendered: Sequence[Rendered], size: int, seed: int) -> Iterator[Batch]:
    for indices in endless(len(rendered), size, seed):
        yield make_batch([rendered[i] for i in indices], subject.tokenizer.pad_token_id, subject.device)
