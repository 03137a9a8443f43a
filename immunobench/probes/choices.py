"""Four-way choices over facts by the log-probability of whole answers, and the loss of the right one."""

from collections.abc import Sequence
from dataclasses import replace

from immunobench.domains import Fact
from immunobench.engines.base import Engine
from immunobench.metrics.knowledge import choices_correct
from immunobench.probes.base import Row
from immunobench.rendering import PromptEdit, Renderer


def measure_choices(engine: Engine, probe: str, facts: Sequence[Fact], edit: PromptEdit) -> list[Row]:
    """A row for each fact.

    Values: ``correct`` (1 where the right choice has the highest sum of token log-probabilities),
    ``correct_normalised`` (the same by mean over tokens), and ``cloze_loss`` (mean negative
    log-probability a token, in nats, of the value at the end of a plain sentence). No facts, no rows.
    """
    if not facts:
        return []
    renderer = engine.subject.renderer
    prompts = [p for fact in facts for p in [choice_prompt(renderer, fact, edit)] * len(fact.choices)]
    lead = "" if edit.format == "chat" and not edit.prefill else " "
    continuations = [renderer.ids(f"{lead}{choice}.") for fact in facts for choice in fact.choices]
    scored = engine.logprobs(prompts, continuations)
    right = engine.logprobs(
        [renderer.plain(fact.cloze) for fact in facts], [renderer.ids(f" {fact.value}.") for fact in facts]
    )
    rows = []
    for i, fact in enumerate(facts):
        own = scored[i * len(fact.choices) : (i + 1) * len(fact.choices)]
        sums, means = [float(s.sum()) for s in own], [float(s.mean()) for s in own]
        correct, normalised = choices_correct([sums, means], [fact.answer] * 2)
        values = {
            "correct": float(correct),
            "correct_normalised": float(normalised),
            "cloze_loss": -float(right[i].mean()),
        }
        rows.append(Row(probe, fact.id, fact.entity, fact.half, values))
    return rows


def share_correct(engine: Engine, facts: Sequence[Fact]) -> float:
    """Share of ``facts`` for which the right choice is the likeliest, without an attack; there must be some."""
    rows = measure_choices(engine, "", facts, PromptEdit())
    return sum(row.values["correct"] for row in rows) / len(rows)


def choice_prompt(renderer: Renderer, fact: Fact, edit: PromptEdit) -> list[int]:
    """The prompt that the choices follow: the question as a chat, or the cloze sentence as plain text."""
    if edit.format == "plain":
        shots = "".join(f"{question} {answer}\n" for question, answer in edit.context)
        return renderer.plain(f"{shots}{edit.prefix}{fact.cloze}")
    return renderer.prompt(fact.question, with_stem(edit, fact.cloze))


def with_stem(edit: PromptEdit, stem: str) -> PromptEdit:
    """``edit`` with the item's own stem written into its prefilled answer."""
    return replace(edit, prefill=edit.prefill.replace("{stem}", stem)) if edit.prefill else edit
