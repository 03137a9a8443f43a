"""Linear probes: a linear map learnt on T facts that reads V facts out of hidden states."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from immunobench.activations import recorded
from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline
from immunobench.attacks.readout import batches, chosen_layer, right, rows
from immunobench.domains import Domain, Fact
from immunobench.engines.base import Artifact
from immunobench.structure import weight_of
from immunobench.subjects import Subject

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties, as shares of the number of examples (inputs are standardised), chosen on held-out T facts."""
HELD_OUT = 0.25
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class LinearProbe:
    """Ridge regression at every block's output, learnt on T facts and tested on V facts.

    Facts are independent, so nothing about the value of a V fact can be learnt from T; what transfers is how the
    model writes down what it knows. Two variants: ``prompt`` maps the last position of the question to the mean
    unembedding of the value and takes the choice with the nearest one (a lens with a learnt map: Belrose et al.,
    arXiv 2303.08112); ``answer`` tells right from wrong at the last position of question and choice. The layer is
    the best on the *select* half. ``correct_shuffled`` is the same probe learnt on shuffled labels (after the
    control tasks of Hewitt & Liang, arXiv 1909.03368). Leaves nothing.
    """

    wordings: int = 2
    """Questions a T fact to learn from."""
    access: ClassVar[Access] = "activations"
    leaves: ClassVar[Leaves] = ("readout",)

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(2, 2)

    def lacks(self, domain: Domain) -> str:
        """See :func:`immunobench.attacks.base.lacking`."""
        return "" if domain.has_facts else "facts to read out"

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One checkpoint a variant."""
        learn = [fact for fact in domain.hazard_t for _ in fact.train_questions[: self.wordings]]
        questions = [q for fact in domain.hazard_t for q in fact.train_questions[: self.wordings]]
        test = list(domain.hazard_v)
        seen = hidden_states(subject, learn, questions)
        unseen = hidden_states(subject, test, [fact.question for fact in test])
        tokens = seen.tokens + unseen.tokens
        cost = Cost(0, len(learn) + len(test), tokens, 2.0 * subject.parameters * tokens)
        for name, problem in (("prompt", value_problem), ("answer", truth_problem)):
            answers, shuffled = (
                right(test, scores(problem, subject, (learn, states), (test, unseen), seed))
                for states in (seen, seen.shuffled(seed))
            )
            layer = chosen_layer(test, answers)
            found = rows(test, answers, layer, correct_shuffled=shuffled[:, layer])
            yield Checkpoint(cost, Artifact(), f"features={name}", detail=f"layer={layer}", readout=found)


@dataclass(frozen=True)
class HiddenStates:
    """Block outputs of one question and its choices for each of ``n`` facts."""

    prompt: Tensor
    """At the last position of the question, shape (n, layers, width)."""
    answer: Tensor
    """At the last position of each choice after it, shape (n, choices, layers, width)."""
    tokens: int
    """Tokens processed."""

    def shuffled(self, seed: int) -> "HiddenStates":
        """The same states in an order drawn by ``seed``: each fact has those of another, and nothing can be learnt."""
        order = torch.randperm(len(self.prompt), generator=torch.Generator().manual_seed(seed))
        return HiddenStates(self.prompt[order], self.answer[order], self.tokens)


@torch.no_grad()
def hidden_states(subject: Subject, facts: Sequence[Fact], questions: Sequence[str]) -> HiddenStates:
    """One pass over every question, whose cache all of its choices share."""
    renderer, blocks = subject.renderer, subject.structure.blocks
    modules = {str(i): block.module for i, block in enumerate(blocks)}
    prompts = [renderer.prompt(question) for question in questions]
    shape = (len(facts), len(facts[0].choices), len(blocks), subject.structure.hidden_size)
    prompt, answer, tokens = torch.zeros(shape[0], *shape[2:]), torch.zeros(shape), 0
    for indices, ids, mask in batches(subject, prompts, BATCH_TOKENS):
        choices = [renderer.ids(f"{choice}.") for i in indices for choice in facts[i].choices]
        with recorded(modules) as seen:
            first = subject.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                logits_to_keep=1,
                use_cache=True,
            )
            prompt[indices] = torch.stack([seen[name][:, -1] for name in modules], 1).float().cpu()
            cache = first.past_key_values
            cache.batch_repeat_interleave(shape[1])
            ends = torch.tensor([len(choice) - 1 for choice in choices], device=ids.device)
            following = torch.zeros(len(choices), int(ends.max()) + 1, dtype=torch.long, device=ids.device)
            for row, choice in enumerate(choices):
                following[row, : len(choice)] = torch.tensor(choice)
            wide = mask.repeat_interleave(shape[1], 0)
            subject.model(
                input_ids=following,
                attention_mask=torch.cat([wide, torch.ones_like(following)], 1),
                position_ids=wide.sum(-1, keepdim=True) + torch.arange(following.shape[1], device=ids.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            rows_of = torch.arange(len(choices), device=ids.device)
            last = torch.stack([seen[name][rows_of, ends] for name in modules], 1)
            answer[indices] = last.view(-1, *shape[1:]).float().cpu()
        tokens += int(mask.sum()) + sum(map(len, choices))
    return HiddenStates(prompt, answer, tokens)


@dataclass(frozen=True)
class Problem:
    """A regression whose predictions tell the choices of a fact apart."""

    inputs: Tensor
    """Shape (n, examples a fact, layers, width)."""
    targets: Tensor
    """Shape (n, examples a fact, outputs)."""
    judge: Callable[[Tensor], Tensor]
    """From predictions shaped like ``targets`` to scores of shape (n, choices)."""


def value_problem(subject: Subject, facts: Sequence[Fact], states: HiddenStates) -> Problem:
    """From the question to the mean unembedding of the value."""
    head = weight_of(subject.structure.head).detach().float().cpu()
    ids = subject.renderer.ids
    vectors = torch.stack([torch.stack([head[ids(choice)].mean(0) for choice in fact.choices]) for fact in facts])
    vectors = torch.nn.functional.normalize(vectors - head.mean(0), dim=-1)
    targets = vectors[torch.arange(len(facts)), [fact.answer for fact in facts]]
    return Problem(states.prompt[:, None], targets[:, None], lambda found: (vectors * found).sum(-1))


def truth_problem(subject: Subject, facts: Sequence[Fact], states: HiddenStates) -> Problem:
    """From question and choice to 1 where the choice is right and 0 where it is wrong."""
    right_ones = torch.tensor([fact.answer for fact in facts])
    targets = torch.nn.functional.one_hot(right_ones, states.answer.shape[1]).float()
    return Problem(states.answer, targets[..., None], lambda found: found[..., 0])


ProblemMaker = Callable[[Subject, Sequence[Fact], HiddenStates], Problem]
Side = tuple[Sequence[Fact], HiddenStates]


def scores(maker: ProblemMaker, subject: Subject, learn: Side, test: Side, seed: int) -> Tensor:
    """Scores of the test facts' choices by probes learnt on others, shape (facts, layers, choices).

    Each layer's penalty is the best on held-out T entities; then the probe is learnt again on all of T.
    """
    facts, states = learn
    problem = maker(subject, facts, states)
    unseen = maker(subject, *test)
    entities = sorted({fact.entity for fact in facts})
    held_entities = set(random.Random(seed).sample(entities, max(1, round(HELD_OUT * len(entities)))))
    held = torch.tensor([fact.entity in held_entities for fact in facts])
    truth = torch.tensor([fact.answer for fact in facts])
    layers = []
    for layer in range(problem.inputs.shape[2]):
        inputs = problem.inputs[:, :, layer]
        merits = []
        for found in ridge(inputs[~held], problem.targets[~held], inputs, PENALTIES):
            merits.append(float((problem.judge(found).argmax(-1) == truth)[held].float().mean()))
        penalty = PENALTIES[max(range(len(merits)), key=merits.__getitem__)]
        (found,) = ridge(inputs, problem.targets, unseen.inputs[:, :, layer], (penalty,))
        layers.append(unseen.judge(found))
    return torch.stack(layers, 1)


def ridge(inputs: Tensor, targets: Tensor, unseen: Tensor, penalties: Sequence[float]) -> Iterator[Tensor]:
    """Predictions for ``unseen`` (m, k, width) by ridge regression on (n, k, width) -> (n, k, outputs), a penalty each.

    Inputs are standardised; the intercept is not penalised. Yields tensors of shape (m, k, outputs).
    """
    x, y = inputs.flatten(0, 1).double(), targets.flatten(0, 1).double()
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-8)
    x = (x - mean) / scale
    values, vectors = torch.linalg.eigh(x.T @ x)
    moment = vectors.T @ (x.T @ (y - y.mean(0)))
    new = ((unseen.double() - mean) / scale) @ vectors
    for penalty in penalties:
        yield (new @ (moment / (values + penalty * len(x))[:, None]) + y.mean(0)).float()
