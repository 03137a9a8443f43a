"""Knowledge and utility: what counts as knowing, against a loop over one choice at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from immunobench.domains import Domain
from immunobench.engines.hf import HFEngine
from immunobench.metrics.knowledge import choices_correct
from immunobench.probes import knowledge, utility
from immunobench.probes.choices import choice_prompt
from immunobench.rendering import PromptEdit
from immunobench.subjects import Subject
from tests.probes.scripted import ScriptedEngine

CHAT, PLAIN, STEM = PromptEdit(), PromptEdit(format="plain"), PromptEdit(prefill="{stem}")
SCORES = st.lists(st.sampled_from([-3.0, -2.0, -1.0, math.nan, -math.inf]), min_size=2, max_size=5)


@given(scores=SCORES, data=st.data())
def test_the_right_choice_must_beat_every_other(scores: list[float], data: st.DataObject) -> None:
    """A tie is lost, and so is a NaN on the right choice."""
    answer = data.draw(st.integers(0, len(scores) - 1))
    others = scores[:answer] + scores[answer + 1 :]
    expected = not math.isnan(scores[answer]) and all(scores[answer] > other for other in others)
    assert bool(choices_correct([scores], [answer])[0]) == expected


def naive_choices(subject: Subject, prompt: list[int], texts: list[str]) -> list[torch.Tensor]:
    """Log-probabilities of each choice's tokens, one sequence at a time."""
    found = []
    for text in texts:
        ids = subject.renderer.ids(text)
        with torch.no_grad():
            table = subject.model(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        found.append(torch.stack([table[len(prompt) - 1 + i, token] for i, token in enumerate(ids)]))
    return found


@pytest.mark.parametrize(("edit", "lead"), [(CHAT, ""), (PLAIN, " "), (STEM, " ")])
def test_rows_equal_a_plain_loop(subject: Subject, domain: Domain, edit: PromptEdit, lead: str) -> None:
    rows = knowledge.measure(HFEngine(subject), domain, edit)
    assert [row.item for row in rows] == [fact.id for fact in domain.hazard_v]
    for row, fact in list(zip(rows, domain.hazard_v, strict=True))[:8]:
        prompt = choice_prompt(subject.renderer, fact, edit)
        own = naive_choices(subject, prompt, [f"{lead}{choice}." for choice in fact.choices])
        sums, means = [float(s.sum()) for s in own], [float(s.mean()) for s in own]
        assert row.values["correct"] == (sums.index(max(sums)) == fact.answer)
        assert row.values["correct_normalised"] == (means.index(max(means)) == fact.answer)
        [cloze] = naive_choices(subject, subject.renderer.plain(fact.cloze), [f" {fact.value}."])
        assert row.values["cloze_loss"] == pytest.approx(-float(cloze.mean()), abs=1e-4)
        assert (row.probe, row.cluster, row.half) == ("knowledge", fact.entity, fact.half)


def test_each_format_asks_in_its_own_words(subject: Subject, domain: Domain) -> None:
    fact = domain.hazard_v[0]
    read = subject.tokenizer.decode
    assert read(choice_prompt(subject.renderer, fact, CHAT)) == f"<s><user>{fact.question}<assistant>"
    assert read(choice_prompt(subject.renderer, fact, STEM)) == f"<s><user>{fact.question}<assistant>{fact.cloze}"
    assert read(choice_prompt(subject.renderer, fact, PLAIN)) == fact.cloze
    shots = PromptEdit(format="plain", context=(("Who?", "Nobody."),), prefix="Now: ")
    assert read(choice_prompt(subject.renderer, fact, shots)) == f"Who? Nobody.\nNow: {fact.cloze}"


def test_a_model_that_knows_scores_one_and_a_constant_one_zero(subject: Subject, domain: Domain) -> None:
    values = {fact.question: fact.value for fact in domain.hazard_v}

    def knows(prompt: str, continuation: str) -> float:
        return -1.0 if any(q in prompt and continuation == f"{v}." for q, v in values.items()) else -5.0

    rows = knowledge.measure(ScriptedEngine(subject, scores=knows), domain, CHAT)
    assert all(row.values["correct_normalised"] == 1 for row in rows)
    rows = knowledge.measure(ScriptedEngine(subject), domain, CHAT)
    assert all(row.values["correct_normalised"] == 0 for row in rows)
    assert all(row.values["cloze_loss"] == pytest.approx(1.0) for row in rows)


def test_length_is_taken_out_only_where_it_says_so(subject: Subject, domain: Domain) -> None:
    """A right value that is longer than the others loses by the sum and wins by the mean."""
    lengths = {f.id: [len(subject.renderer.ids(f"{c}.")) for c in f.choices] for f in domain.hazard_v}
    longer = [f for f in domain.hazard_v if 0.9 * lengths[f.id][f.answer] > min(lengths[f.id])]
    assert longer
    values = {fact.question: fact.value for fact in longer}

    def slightly(prompt: str, continuation: str) -> float:
        return -0.9 if any(q in prompt and continuation == f"{v}." for q, v in values.items()) else -1.0

    rows = {row.item: row.values for row in knowledge.measure(ScriptedEngine(subject, scores=slightly), domain, CHAT)}
    for fact in longer:
        assert (rows[fact.id]["correct"], rows[fact.id]["correct_normalised"]) == (0, 1)


def test_utility_is_measured_on_benign_facts_and_requests(subject: Subject, domain: Domain) -> None:
    rows = utility.measure(HFEngine(subject), domain, CHAT)
    by_item = {row.item: row for row in rows}
    assert set(by_item) == {f.id for f in domain.benign_v} | {r.id for r in domain.benign_requests_v}
    for request in domain.benign_requests_v[:4]:
        [answer] = naive_choices(subject, subject.renderer.prompt(request.prompt), [request.answer])
        assert by_item[request.id].values == {"answer_loss": pytest.approx(-float(answer.mean()), abs=1e-4)}
    assert all("correct" in by_item[f.id].values for f in domain.benign_v)


def test_nothing_measured_was_trained_on(subject: Subject, domain: Domain) -> None:
    """Knowledge and behaviour ask in wordings that no attack's T facts, and no fact's training texts, hold."""
    engine = ScriptedEngine(subject)
    knowledge.measure(engine, domain, CHAT)
    trained = {q for fact in (*domain.hazard, *domain.benign) for q in (*fact.train_questions, *fact.statements)}
    asked = {text.removeprefix("<s><user>").removesuffix("<assistant>") for text in engine.asked}
    assert asked and not asked & trained
