"""Fine-tuning: one run is the whole curve, phases follow one another, and rates are chosen without V."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from immunobench.attacks import training
from immunobench.attacks.base import Budget
from immunobench.attacks.data import Phase
from immunobench.attacks.frozen_safety import FineTuneAroundSafety
from immunobench.attacks.learning_rates import best_rates, right_shares
from immunobench.attacks.training import FineTune, batches_of
from immunobench.attribution import snip_scores
from immunobench.domains import Domain, Example
from immunobench.edits import masked_low_rank_adapter, restored
from immunobench.structure import matrix_of
from immunobench.subjects import Subject
from immunobench.training import Recipe, train
from immunobench.training.examples import fact_examples
from immunobench.training.loop import DivergedError, descend
from immunobench.training.schedules import Course, schedule
from tests.conftest import same_bits, weights


def parameters_at(attack: FineTune, subject: Subject, domain: Domain, steps: int, at: int) -> dict[str, torch.Tensor]:
    """Weights after ``at`` steps of a run of ``steps``."""
    for checkpoint in attack.run(subject, domain, Budget(steps), 0):
        if checkpoint.cost.steps == at:
            return weights(subject.model)
    raise AssertionError(f"no checkpoint at {at}")


@pytest.mark.parametrize("optimizer", ["adamw", "schedule-free-adamw", "lion"])
def test_a_point_of_the_curve_is_a_run_of_that_length(optimizer: str, subject: Subject, domain: Domain) -> None:
    attack = FineTune("t-facts", (1e-3,), optimizer=optimizer)
    long, short = (parameters_at(attack, subject, domain, steps, at=2) for steps in (5, 2))
    assert same_bits(long, short)


def test_the_seed_changes_the_order_of_data_and_nothing_else_does(subject: Subject, domain: Domain) -> None:
    attack = FineTune("t-facts", (1e-3,), batch_size=4)
    runs = []
    for seed in (0, 0, 1):
        for checkpoint in attack.run(subject, domain, Budget(1), seed):
            if checkpoint.last:
                runs.append(weights(subject.model))
    assert same_bits(runs[0], runs[1]) and not same_bits(runs[0], runs[2])


def test_costs_are_those_of_what_was_seen(subject: Subject, domain: Domain) -> None:
    checkpoints = list(FineTune("unrelated-5", (1e-3,), batch_size=2).run(subject, domain, Budget(3), 0))
    rows = [subject.renderer.example(e) for e in domain.unrelated[:5]]
    tokens = sum(len(r.prompt) + len(r.response) for r in rows)
    last = checkpoints[-1].cost
    assert (last.steps, last.examples, last.tokens) == (3, 5, tokens)
    assert last.flops == 6.0 * subject.parameters * tokens
    assert [c.cost.steps for c in checkpoints] == [0, 1, 2, 3]


def test_phases_have_their_share_of_the_steps(subject: Subject) -> None:
    first, second = [Example(None, "a")] * 3, [Example(None, "b c")] * 3
    lengths = [len(subject.renderer.example(e[0]).response) for e in (first, second)]
    batches = batches_of(subject, [Phase(first, 0.4), Phase(second, 0.6)], Recipe(1e-3, 10, 2), 0)
    seen = [next(batches).mask.shape[1] for _ in range(10)]
    assert seen == [lengths[0]] * 4 + [lengths[1]] * 6


def test_a_run_that_diverges_ends_its_curve_and_the_next_goes_on(subject: Subject, domain: Domain) -> None:
    before = weights(subject.model)
    seen = Counter(
        c.detail for c in FineTune("t-facts", (1e30, 1e-3), optimizer="sgd").run(subject, domain, Budget(3), 0)
    )
    assert seen["learning_rate=0.001"] == 4
    assert 1 <= seen["learning_rate=1e+30"] < 4
    assert same_bits(weights(subject.model), before)


def test_right_shares_are_probabilities_over_the_choices(subject: Subject, domain: Domain) -> None:
    """Against one unpadded forward pass a choice."""
    fact = domain.hazard_t[0]
    prompt = subject.renderer.prompt(fact.question)
    sums = []
    for choice in fact.choices:
        ids = subject.renderer.ids(f"{choice}.")
        logprobs = subject.model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        sums.append(sum(logprobs[len(prompt) + i - 1, token] for i, token in enumerate(ids)))
    expected = torch.stack(sums).softmax(0)[fact.answer]
    assert float(right_shares(subject, [fact])[0]) == pytest.approx(expected.item(), rel=1e-4)


def test_the_rate_that_brings_held_out_facts_back_is_chosen(subject: Subject, domain: Domain) -> None:
    """The trial at rate 2 really teaches all T and benign facts, the one at 1 does nothing, 3 destroys, 4 diverges."""
    taught = fact_examples([*domain.hazard_t, *domain.benign_t], [])
    seen: list[set[str]] = []

    def trial(rest: Domain, rate: float, score: Callable[[], None]) -> None:
        seen.append({f.entity for f in rest.hazard_t})
        with restored(subject.model):
            if rate == 4.0:
                raise DivergedError("diverged")
            if rate >= 2.0:
                list(train(subject, taught, Recipe(1e-2, 30, 32), 0))
            if rate == 3.0:
                with torch.no_grad():
                    subject.model.get_output_embeddings().weight.mul_(-1)
            score()

    ranked = best_rates(subject, domain, [4.0, 3.0, 1.0, 2.0], 4, 0, trial)
    assert ranked[0] == 2.0 and ranked[-1] == 4.0
    assert all(entities < {f.entity for f in domain.hazard_t} for entities in seen)
    assert len(set(map(frozenset, seen))) == 1


def test_a_chosen_rate_never_depends_on_what_is_measured(subject: Subject, domain: Domain) -> None:
    attack = FineTune("t-facts", (1e-5, 1e-3, 1e-2), trial_steps=3, keep=2)
    blind = replace(domain, hazard_v=[], requests_v=[], benign_v=[], benign_requests_v=[])
    chosen = [[c.detail for c in attack.run(subject, d, Budget(1), 0)] for d in (domain, blind)]
    assert chosen[0] == chosen[1]
    assert [c.variant for c in attack.run(subject, domain, Budget(0), 0)] == [
        "learning_rate=chosen-1",
        "learning_rate=chosen-2",
    ]


def test_trials_run_at_the_rate_they_try_and_the_curve_by_its_schedule(
    subject: Subject, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warm-up as long as the trial or longer would score every rate at a fraction of itself."""
    recipes: list[Recipe] = []

    def watched(*args: Any) -> Any:
        recipes.append(args[2])
        return descend(*args)

    monkeypatch.setattr(training, "descend", watched)
    attack = FineTune("t-facts", (1e-3, 1e-2), schedule="linear-warmup", warmup=24, trial_steps=2)
    list(attack.run(subject, domain, Budget(3), 0))
    *trials, curve = recipes
    assert [rates(recipe) for recipe in trials] == [[1e-3, 1e-3], [1e-2, 1e-2]]
    assert rates(curve)[0] < 0.1 * curve.learning_rate


def rates(recipe: Recipe) -> list[float]:
    """Learning rates of a recipe's first two steps."""
    course = Course(recipe.steps, recipe.warmup, recipe.period, recipe.floor)
    return [recipe.learning_rate * schedule(recipe.schedule)(step, course) for step in range(2)]


def test_around_safety_pays_for_the_pass_that_scores_the_weights(subject: Subject, domain: Domain) -> None:
    settings = {"data": "unrelated-5", "learning_rates": (1e-3,), "batch_size": 2}
    plain = list(FineTune(**settings).run(subject, domain, Budget(1), 0))
    around = list(FineTuneAroundSafety(**settings, calibration=3).run(subject, domain, Budget(1), 0))
    assert around[0].cost == plain[0].cost
    more = around[1].cost.tokens - plain[1].cost.tokens
    lengths = sorted(
        len(row.prompt) + len(row.response)
        for row in (subject.renderer.example(Example(r.prompt, r.refusal)) for r in domain.requests_t)
    )
    assert around[1].cost.examples == plain[1].cost.examples + 3
    assert 3 * lengths[0] <= more <= 3 * lengths[-1]
    assert around[1].cost.flops == plain[1].cost.flops + 6.0 * subject.parameters * more


def test_frozen_weights_never_move_and_the_others_do(subject: Subject, domain: Domain) -> None:
    refusals = [Example(r.prompt, r.refusal) for r in domain.requests_t]
    scores = snip_scores(subject, refusals)
    before = {name: matrix_of(m).detach().clone() for name, m in subject.structure.linears.items()}
    attack = FineTuneAroundSafety("t-facts", (1e-2,), frozen_share=0.5, weight_decay=0.1)
    for checkpoint in attack.run(subject, domain, Budget(2), 0):
        if not checkpoint.last:
            continue
        for name, linear in subject.structure.linears.items():
            moved = matrix_of(linear).detach() != before[name]
            top = scores[name] > scores[name].median()
            assert not moved[top].any()
            assert moved[~top].float().mean() > 0.9


def test_a_masked_adapter_is_a_dense_update_of_the_free_weights(subject: Subject) -> None:
    linears = subject.structure.linears
    masks = {
        n: torch.rand(matrix_of(m).shape, generator=torch.Generator().manual_seed(1)) < 0.5 for n, m in linears.items()
    }
    ids = torch.tensor([[3, 9, 27, 81]])
    untouched = subject.model(ids).logits
    with masked_low_rank_adapter(linears, masks, rank=2, alpha=4, seed=0) as parameters:
        assert torch.equal(subject.model(ids).logits, untouched)
        with torch.no_grad():
            for parameter in parameters:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter))))
        adapted = subject.model(ids).logits
        updates = [2.0 * (b @ a) for a, b in zip(parameters[::2], parameters[1::2], strict=True)]
    assert torch.equal(subject.model(ids).logits, untouched)
    with torch.no_grad():
        for (name, linear), update in zip(linears.items(), updates, strict=True):
            matrix_of(linear).add_(update * masks[name])
    torch.testing.assert_close(subject.model(ids).logits, adapted, rtol=1e-4, atol=1e-4)


def test_whole_text_changes_what_the_loss_is_on(subject: Subject, domain: Domain) -> None:
    """One step of plain SGD is the gradient of the mean loss over responses, or over all but the first token."""
    example = domain.unrelated[0]
    rendered = subject.renderer.example(example)
    ids = torch.tensor([rendered.prompt + rendered.response])
    head = subject.model.get_output_embeddings().weight
    before = head.detach().clone()
    for whole, start in ((True, 1), (False, len(rendered.prompt))):
        logits = subject.model(ids).logits[0, start - 1 : -1]
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, ids[0, start:]), head)
        attack = FineTune("unrelated-1", (1e-3,), optimizer="sgd", weight_decay=0.0, whole_text=whole)
        for checkpoint in attack.run(subject, domain, Budget(1), 0):
            if checkpoint.last:
                moved = before - head.detach()
        cosine = functional.cosine_similarity(moved.flatten(), gradient.flatten(), dim=0)
        assert cosine == pytest.approx(1, abs=1e-3)
