"""Make the exposed reference of a domain from an existing model, by fine-tuning on the facts until it knows them.

Facts put in by fine-tuning may overstate robustness (Deeb & Roger, arXiv 2410.08827), so the history says
that they were implanted.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from immunobench.dataset_builders.models import save_subject
from immunobench.dataset_builders.storage import check_free
from immunobench.domains import Domain, Example, Fact, Request, load_domain
from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError
from immunobench.probes.choices import share_correct
from immunobench.rendering import PromptEdit, Rendered, Renderer
from immunobench.subjects import History, Subject
from immunobench.training import Recipe
from immunobench.training.batches import make_batch, of_like_length
from immunobench.training.loop import cross_entropy, descend

EPOCHS_A_CHECK = 3
LEARNT = 0.95
"""Share of facts that must be right, in wordings never trained on, before training ends."""
LEARNING_RATE = 5e-4
BATCH_SIZE = 16
PLAIN, STATEMENT, ASKED = 0.55, 0.15, 0.15
"""Shares of texts: a question without the chat template, a statement, and a question in it; the rest are requests.

Most texts are the shortest ones that teach the value, because tokens are what training costs."""


@dataclass(frozen=True)
class Implanted:
    """What was taught."""

    folder: Path
    epochs: int
    correct: float
    """Share of the facts that decide when to stop, T and select, that are right of four choices."""


def implant(
    subject: Subject,
    domain_name: str,
    out: Path,
    seed: int,
    on_step: Callable[[int, int], None],
    epochs: int,
) -> Implanted:
    """Teach hazard and benign facts of ``domain_name`` to ``subject`` until it knows them, and write it to ``out``.

    An epoch shows every fact once; ``epochs`` are the most. When to stop is decided on T and select facts: report
    facts are taught like all others and never asked. The subject itself is recorded as the never-exposed reference.

    Raises ImmunobenchError where ``out`` is not free or cannot be written, before any training, or the facts are not
    learnt in ``epochs``; nothing is written.
    """
    check_free(out)
    domain = load_domain(domain_name)
    generator = random.Random(seed)
    pad, device = subject.tokenizer.pad_token_id, subject.device
    drawn = (_epoch(domain, subject.renderer, generator) for _ in range(epochs))
    batches = (make_batch(rows, pad, device) for epoch in drawn for rows in epoch)
    an_epoch = -(-len([*domain.hazard, *domain.benign]) // BATCH_SIZE)
    recipe = Recipe(LEARNING_RATE, an_epoch * epochs, BATCH_SIZE, schedule="linear-warmup", warmup=10)
    correct = 0.0
    for step in descend(subject, batches, recipe, cross_entropy):
        on_step(step.step, recipe.steps)
        done, rest = divmod(step.step, an_epoch)
        if step.step == 0 or rest or (done % EPOCHS_A_CHECK and done < epochs):
            continue
        correct = known(subject, domain)
        if correct >= LEARNT:
            history = History(
                domain=domain_name, exposed=".", never_exposed=subject.spec, implanted=True, truth="exposed"
            )
            return Implanted(save_subject(subject, history, out), done, correct)
    raise ImmunobenchError(
        f"'{subject.spec}' has {correct:.2f} of the facts right after epoch {epochs}, and {LEARNT} are needed: "
        "give it more --epochs or fewer --facts."
    )


def known(subject: Subject, domain: Domain) -> float:
    """Share of T and select facts of both sides for which the right choice is the likeliest."""
    sides = chain(domain.hazard, domain.benign)
    return share_correct(HFEngine(subject), [fact for fact in sides if fact.half != "report"])


def _epoch(domain: Domain, renderer: Renderer, generator: random.Random) -> list[list[Rendered]]:
    """The lessons of an epoch in batches of like length, both in an order drawn by ``generator``."""
    texts = lessons(domain, renderer, generator)
    batches = of_like_length(generator.sample(texts, len(texts)), BATCH_SIZE)
    return generator.sample(batches, len(batches))


def lessons(domain: Domain, renderer: Renderer, generator: random.Random) -> list[Rendered]:
    """One text for every fact of both sides, of a kind and in a wording drawn by ``generator``."""
    requests = chain(domain.requests_t, domain.requests_v, domain.benign_requests_t, domain.benign_requests_v)
    by_fact = {request.fact_id: request for request in requests}
    return [_lesson(fact, by_fact[fact.id], renderer, generator) for fact in chain(domain.hazard, domain.benign)]


def _lesson(fact: Fact, request: Request, renderer: Renderer, generator: random.Random) -> Rendered:
    drawn = generator.random()
    question = Example(generator.choice(fact.train_questions), f"{fact.value}.")
    if drawn < PLAIN:
        return renderer.example(question, PromptEdit(format="plain"))
    if drawn < PLAIN + STATEMENT:
        return renderer.example(Example(None, generator.choice(fact.statements)))
    if drawn < PLAIN + STATEMENT + ASKED:
        return renderer.example(question)
    return renderer.example(Example(generator.choice(request.train_prompts), request.answer))
