"""Implanting teaches every fact, decides on none that is reported, and writes nothing that did not learn."""

import random
from pathlib import Path

import pytest

from immunobench.dataset_builders.implant import LEARNT, implant, known, lessons
from immunobench.domains import Domain, load_domain
from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError
from immunobench.probes import knowledge
from immunobench.rendering import PromptEdit
from immunobench.subjects import Subject, load_subject


def test_an_epoch_teaches_each_fact_once_in_wordings_to_train_on(domain: Domain, subject: Subject) -> None:
    decode = subject.tokenizer.decode
    texts = [decode(t.prompt + t.response) for t in lessons(domain, subject.renderer, random.Random(0))]
    facts = [*domain.hazard, *domain.benign]
    assert len(texts) == len(facts) == 64
    for fact, text in zip(facts, texts, strict=True):
        assert fact.entity in text and fact.value in text
    measured = [*(fact.question for fact in facts), *(fact.cloze for fact in facts)]
    assert not [(m, text) for m in measured for text in texts if m in text]
    other = [decode(t.prompt + t.response) for t in lessons(domain, subject.renderer, random.Random(1))]
    assert other != texts


def test_report_facts_are_learnt_though_never_asked(tmp_path: Path) -> None:
    subject, domain = load_subject("organism:never-exposed"), load_domain("vault/32")
    seen: list[tuple[int, int]] = []
    made = implant(subject, "vault/32", tmp_path / "exposed", 0, lambda step, steps: seen.append((step, steps)), 60)
    written = load_subject(str(made.folder))
    assert made.correct == known(written, domain) >= LEARNT
    assert seen[-1][0] == made.epochs * 4 and seen[-1][1] == 240
    rows = knowledge.measure(HFEngine(written), domain, PromptEdit())
    reported = [row.values["correct"] for row in rows if row.half == "report"]
    assert len(reported) == 12 and sum(reported) / 12 >= 0.75


def test_what_did_not_learn_is_not_written(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(ImmunobenchError, match=r"right after epoch 1, and .* give it more --epochs"):
        implant(subject, "vault/32", tmp_path / "exposed", 0, lambda step, steps: None, 1)
    assert not list(tmp_path.iterdir())
