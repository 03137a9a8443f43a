"""Soft prompts are trained, served and taken away, and a request's own prompt never depends on the value."""

from dataclasses import replace

import torch

from immunobench.attacks.base import Budget
from immunobench.attacks.soft_prompt import RequestSoftPrompt, UniversalSoftPrompt, starting_vectors
from immunobench.domains import Domain
from immunobench.engines.base import Sampling
from immunobench.engines.hf import HFEngine
from immunobench.rendering import PromptEdit
from immunobench.structure import weight_of
from immunobench.subjects import Subject
from tests.conftest import same_bits, weights


def answer_loss(subject: Subject, domain: Domain, edit: PromptEdit) -> float:
    renderer = subject.renderer
    prompts = [renderer.prompt(r.prompt, edit) for r in domain.requests_t]
    found = HFEngine(subject).logprobs(prompts, [renderer.ids(r.answer) for r in domain.requests_t])
    return -float(torch.cat(found).mean())


def test_a_universal_prompt_makes_t_answers_likelier_and_leaves_nothing(subject: Subject, domain: Domain) -> None:
    before, attack, losses = weights(subject.model), UniversalSoftPrompt(tokens=4, learning_rate=0.05), []
    points = attack.run(subject, domain, Budget(10), 0)
    for point in points:
        assert point.artifact.kind == "soft_prompt"
        losses.append(answer_loss(subject, domain, point.artifact.prompt))
    assert losses[-1] < losses[0]
    assert len(losses) == attack.outline(Budget(10)).points
    assert same_bits(before, weights(subject.model))
    assert all(parameter.requires_grad for parameter in subject.model.parameters())


def test_virtual_tokens_stand_right_after_the_bos_and_can_be_generated_from(subject: Subject, domain: Domain) -> None:
    run = UniversalSoftPrompt(tokens=3).run(subject, domain, Budget(0), 0)
    point = next(run)
    plain = subject.renderer.prompt("Where is it?")
    prompt = subject.renderer.prompt("Where is it?", point.artifact.prompt)
    size = len(weight_of(subject.structure.embedding))
    assert prompt == [plain[0], size, size + 1, size + 2, *plain[1:]]
    answers = HFEngine(subject).generate([prompt, prompt[:-1]], Sampling(max_new_tokens=3))
    assert len(answers) == 2


def test_vectors_start_at_embeddings_drawn_by_the_seed(subject: Subject) -> None:
    table = weight_of(subject.structure.embedding)
    first = starting_vectors(subject, 5, 0)
    assert all(any(torch.equal(v, row) for row in table) for v in first)
    assert torch.equal(first, starting_vectors(subject, 5, 0))
    assert not torch.equal(first, starting_vectors(subject, 5, 1))


def stem_losses(subject: Subject, domain: Domain, steps: int, size: int = 7) -> list[torch.Tensor]:
    """Log-probabilities of every fact's stem at the last checkpoint, under its own prompt."""
    renderer = subject.renderer
    attack = RequestSoftPrompt(tokens=2, learning_rate=0.01, batch_size=size)
    for point in attack.run(subject, domain, Budget(steps), 0):
        edit = replace(point.artifact.prompt, prefill="")
        prompts = [renderer.prompt(fact.question, edit) for fact in domain.hazard_v]
        found = HFEngine(subject).logprobs(prompts, [renderer.ids(fact.cloze) for fact in domain.hazard_v])
    return found


def test_every_request_gets_a_prompt_that_makes_its_own_stem_likelier(subject: Subject, domain: Domain) -> None:
    start, end = stem_losses(subject, domain, 0), stem_losses(subject, domain, 5)
    assert all(e.mean() > s.mean() for s, e in zip(start, end, strict=True))


def test_a_requests_prompt_does_not_depend_on_the_values(subject: Subject, domain: Domain) -> None:
    hidden = replace(
        domain,
        hazard_v=[replace(fact, value="nothing", choices=["a", "b", "c", "d"]) for fact in domain.hazard_v],
        requests_v=[
            replace(r, value="nothing", answer=r.answer.replace(r.value, "nothing")) for r in domain.requests_v
        ],
    )
    first, second = stem_losses(subject, domain, 2), stem_losses(subject, hidden, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_benign_requests_are_left_alone(subject: Subject, domain: Domain) -> None:
    point = next(RequestSoftPrompt(tokens=2).run(subject, domain, Budget(0), 0))
    edit = replace(point.artifact.prompt, prefill="")
    for fact in domain.benign_v:
        assert subject.renderer.prompt(fact.question, edit) == subject.renderer.prompt(fact.question)


def test_prompts_optimised_together_do_not_touch_one_another(subject: Subject, domain: Domain) -> None:
    few = replace(domain, hazard_v=domain.hazard_v[:4], requests_v=[])
    alone, together = (stem_losses(subject, few, 3, size) for size in (1, 4))
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(alone, together, strict=True))
