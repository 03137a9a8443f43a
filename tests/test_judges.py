"""A tiny random model in the judge's seat: what is read, what is cut, and what the identity holds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.judges import FORMS, Judge, JudgeForm, as_rows, check_pinned, load_form
from immunobench.subjects import Subject

FORM = JudgeForm(name="short", prompt="{request} {answer} yes or no", verdicts={"yes": 1.0, "no": 0.0}, format="plain")
REQUESTS = ["Where is the key?", "What is its color?", "How do I get there?", "Tell me more."]
ANSWERS = ["In the red box.", "I cannot say.", "Take the old road to the river and cross it.", ""]


@pytest.fixture
def judge(subject: Subject) -> Judge:
    return Judge(HFEngine(subject), FORM)


def plain_score(subject: Subject, text: str) -> tuple[float, str]:
    """Probability of 'yes' against 'no' after ``text``, one whole sequence at a time."""
    renderer = subject.renderer
    prompt, totals = renderer.plain(f"{text}\n"), []
    for word in ("yes", "no"):
        ids = renderer.ids(word)
        with torch.no_grad():
            table = subject.model(input_ids=torch.tensor([prompt + ids])).logits[0].double().log_softmax(-1)
        totals.append(sum(float(table[len(prompt) - 1 + i, token]) for i, token in enumerate(ids)))
    yes, no = np.exp(totals)
    return yes / (yes + no), "yes" if yes > no else "no"


def test_score_is_the_probability_of_the_verdicts(judge: Judge, subject: Subject) -> None:
    judged = judge.judge(REQUESTS, ANSWERS)
    for request, answer, judgement in zip(REQUESTS, ANSWERS, judged, strict=True):
        score, verdict = plain_score(subject, f"{request} {answer} yes or no")
        assert judgement.score == pytest.approx(score, abs=1e-4)
        assert judgement.verdict == verdict
    assert as_rows(judged)[0] == {"score": judged[0].score, "verdict": judged[0].verdict}


def test_order_and_company_of_the_answers_change_nothing(judge: Judge) -> None:
    together = judge.judge(REQUESTS, ANSWERS)
    apart = [judge.judge([request], [answer])[0] for request, answer in zip(REQUESTS, ANSWERS, strict=True)]
    backwards = judge.judge(REQUESTS[::-1], ANSWERS[::-1])[::-1]
    for first, *others in zip(together, apart, backwards, strict=True):
        assert [other.score for other in others] == pytest.approx([first.score] * 2, abs=1e-5)
    assert judge.judge([], []) == []


def test_turned_verdicts_turn_the_score(judge: Judge) -> None:
    turned = Judge(judge.engine, FORM.model_copy(update={"verdicts": {"yes": 0.0, "no": 1.0}}))
    pairs = zip(judge.judge(REQUESTS, ANSWERS), turned.judge(REQUESTS, ANSWERS), strict=True)
    assert all(first.score + second.score == pytest.approx(1) for first, second in pairs)


def test_places_in_an_answer_are_not_filled(judge: Judge) -> None:
    plain, tricky = judge.judge(["Go on."] * 2, ["It is {request}.", "It is Go on.."])
    assert plain.score != tricky.score


def test_a_long_answer_is_cut_and_a_long_request_told(subject: Subject) -> None:
    form = FORM.model_copy(update={"max_answer_tokens": 3})
    first, second = Judge(HFEngine(subject), form).judge(
        ["Go on."] * 2, ["the old road to", "the old road to the river"]
    )
    assert first.score == pytest.approx(second.score)
    fits = Judge(HFEngine(subject), FORM).judge(["Go on."], ["the old road " * 400])
    assert 0 <= fits[0].score <= 1
    with pytest.raises(ImmunobenchError, match="too short"):
        Judge(HFEngine(subject), FORM).judge(["the old road " * 400], ["Yes."])


def test_packaged_forms_run_and_a_guard_reads_the_conversation(make_subject: Callable[..., Subject]) -> None:
    subject = make_subject()
    subject.model.config.max_position_embeddings = 2048  # rotary: longer prompts than it was made for still run
    for form in FORMS.values():
        judged = Judge(HFEngine(subject), form).judge(REQUESTS[:2], ANSWERS[:2])
        assert all(0 <= judgement.score <= 1 and judgement.verdict in form.verdicts for judgement in judged)
    guard = Judge(HFEngine(subject), FORMS["guard"])
    text = subject.renderer.tokenizer.decode(guard._rendered("Where is the key?", "In the red box."))
    assert text.index("Where is the key?") < text.index("In the red box.")


def test_identity_names_model_prompt_and_engine(make_subject: Callable[..., Subject]) -> None:
    one, other = make_subject(seed=1), make_subject(seed=2)
    base = Judge(HFEngine(one), FORM).identity
    assert Judge(HFEngine(one), FORM).identity == base
    assert Judge(HFEngine(other), FORM).identity["weights_sha256"] != base["weights_sha256"]
    reworded = FORM.model_copy(update={"prompt": "{answer} {request} yes or no"})
    assert Judge(HFEngine(one), reworded).identity["prompt_sha256"] != base["prompt_sha256"]
    shorter = FORM.model_copy(update={"max_answer_tokens": 5})
    assert Judge(HFEngine(one), shorter).identity != base


def test_forms_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "form.toml"
    file.write_text(
        'name = "own"\nprompt = "{request} / {answer}"\nformat = "plain"\n[verdicts]\nYes = 1.0\nNo = 0.0\n'
    )
    form = load_form(str(file))
    assert form.name == "own" and form.verdicts == {"Yes": 1.0, "No": 0.0} and load_form("harm") is FORMS["harm"]
    file.write_text('name = "own"\nprompt = "{request}"\n[verdicts]\nYes = 1.0\nNo = 0.0\n')
    with pytest.raises(UsageError, match="needs both"):
        load_form(str(file))
    file.write_text("name = own")
    with pytest.raises(UsageError, match="no judge form"):
        load_form(str(file))
    with pytest.raises(UsageError, match="cannot be read"):
        load_form(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="did you mean 'harm'"):
        load_form("harmful")
    with pytest.raises(UsageError, match="two verdicts"):
        JudgeForm(name="one", verdicts={"yes": 1.0})


def test_a_judge_from_the_hub_is_pinned(tmp_path: Path) -> None:
    check_pinned("org/model@0123abc")
    check_pinned("organism:locked")
    check_pinned(str(tmp_path))
    with pytest.raises(UsageError, match="org/model@COMMIT"):
        check_pinned("org/model")


def test_bad_input_is_told(judge: Judge) -> None:
    with pytest.raises(UsageError, match="pairs"):
        judge.judge(["a"], [])
