"""The adaptive search against a made-up subject whose best attack is known."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from immunobench.metrics.estimate import Estimate
from immunobench.protocol.adversary import Adversary
from immunobench.protocol.search import Plan, Reading, counted, found, open_study, search
from immunobench.protocol.space import parameters_of, suggest
from immunobench.protocol.v1 import ADVERSARIES

PLAN = Plan(trials=24, steps=20)
STEPS = (0, 1, 2, 5, 10, 20)


def estimate(high: float) -> Estimate:
    return Estimate(high - 0.02, 100, high - 0.04, high, "test", 0.90)


def curve(adversary: Adversary, seed: int) -> Iterator[Reading]:
    """Only T facts bring knowledge back, most near a rate of 1e-3; above that they cost utility."""
    assert seed == PLAN.seed
    settings = adversary.settings
    if not adversary.attack.endswith("FineTune"):
        yield Reading(0, 0.1, estimate(0.05), True)
        return
    rate = settings["learning_rates"][0]
    most = max(0.0, 1 - abs(math.log10(rate) + 3) / 3) * (1.0 if settings["data"] == "t-facts" else 0.2)
    for steps in STEPS:
        yield Reading(steps, most * steps / 20, estimate(0.05 if rate <= 2e-3 else 0.5), True)


def drawn(journal: Path) -> list[tuple[dict[str, Any], str, float | None]]:
    """Parameters, state and value of every trial that counts."""
    trials = sorted(counted(open_study(journal)), key=lambda t: t.number)
    return [(t.params, t.state.name, t.value) for t in trials]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a search that ran to its end."""
    journal = tmp_path_factory.mktemp("search") / "a.journal"
    search(PLAN, journal, curve)
    return journal


def test_the_budget_is_spent_and_winners_keep_utility(undisturbed: Path) -> None:
    result = found(PLAN, undisturbed, 0.0)
    assert result.trials == PLAN.trials == len(drawn(undisturbed))
    assert 1 <= len(result.winners) <= PLAN.winners
    assert all(list(curve(winner, PLAN.seed))[-1].violation <= 0 for winner in result.winners)
    values = [best["knowledge"] for best in result.best]
    assert values == sorted(values, reverse=True)
    assert values[0] == max(v for _, state, v in drawn(undisturbed) if state == "COMPLETE" and v is not None)
    assert list(result.expected_maximum) == sorted(result.expected_maximum)
    assert result.expected_maximum[-1] == pytest.approx(values[0])
    assert result.states["complete"] + result.states["pruned"] + result.states["failed"] == PLAN.trials
    assert len({winner.name for winner in result.winners}) == len(result.winners)
    assert all(winner.search == PLAN.identity() and winner.family == "adaptive" for winner in result.winners)


def test_hopeless_runs_are_given_up_and_their_curves_kept(undisturbed: Path) -> None:
    pruned = [t for t in counted(open_study(undisturbed)) if t.state.name == "PRUNED"]
    assert pruned and all(len(t.user_attrs["curve"]) < len(STEPS) for t in pruned)
    assert all("violation" in t.user_attrs for t in pruned)
    complete = [t for t in counted(open_study(undisturbed)) if t.state.name == "COMPLETE"]
    assert all(t.user_attrs["curve"][-1]["knowledge"] is not None for t in complete)


def stopping_after(trials: int) -> Callable[[Adversary, int], Iterator[Reading]]:
    """The curve, and Ctrl-C in the middle of the trial after ``trials``."""
    left = iter(range(trials))

    def stopping(adversary: Adversary, seed: int) -> Iterator[Reading]:
        for i, reading in enumerate(curve(adversary, seed)):
            if i == 0 and next(left, None) is None:
                raise KeyboardInterrupt
            yield reading

    return stopping


ROWS = [("t-facts", "learning_rate=0.0003"), ("prune-snip", "p=0.05,q=0.025"), ("benign", "learning_rate=0.001")]
BEGIN = [point for name, detail in ROWS if (point := parameters_of(ADVERSARIES[name], detail))]


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 13])
def test_a_search_that_begins_from_the_table_may_be_stopped_too(tmp_path: Path, stop: int) -> None:
    """And goes on from what it began from, whatever the table says by then."""
    undisturbed, journal = tmp_path / "a.journal", tmp_path / "b.journal"
    search(PLAN, undisturbed, curve, BEGIN)
    assert [params.get("data", params.get("method")) for params, *_ in drawn(undisturbed)[:3]] == [
        "t-facts",
        "prune-snip",
        "benign",
    ]
    with pytest.raises(KeyboardInterrupt):
        search(PLAN, journal, stopping_after(stop), BEGIN)
    search(PLAN, journal, curve, BEGIN[::-1])
    assert drawn(journal) == drawn(undisturbed)


def test_a_crash_at_any_entry_of_the_journal_loses_no_row_of_the_table(tmp_path: Path) -> None:
    """What a search writes up to its second trial, cut off after every entry."""
    plan, undisturbed, journal = Plan(trials=4, steps=20), tmp_path / "a.journal", tmp_path / "b.journal"
    search(plan, undisturbed, curve, BEGIN)
    lines = undisturbed.read_bytes().splitlines(keepends=True)
    for kept in range(0, len(lines), 3):
        journal.write_bytes(b"".join(lines[:kept]))
        search(plan, journal, curve, BEGIN)
        assert drawn(journal) == drawn(undisturbed), kept


def test_the_sampler_sees_the_utility_bound(undisturbed: Path) -> None:
    for trial in counted(open_study(undisturbed)):
        assert trial.system_attrs["constraints"] == [trial.user_attrs["violation"]]


@pytest.mark.parametrize("stop", [0, 3, 13])
def test_a_search_that_was_stopped_ends_as_if_it_had_not_been(undisturbed: Path, tmp_path: Path, stop: int) -> None:
    journal = tmp_path / "b.journal"
    with pytest.raises(KeyboardInterrupt):
        search(PLAN, journal, stopping_after(stop))
    assert len(counted(open_study(journal))) == stop
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')  # what a crash in the middle of a line leaves
    search(PLAN, journal, curve)
    assert drawn(journal) == drawn(undisturbed)
    search(PLAN, journal, curve)
    assert len(counted(open_study(journal))) == PLAN.trials, "a search that is spent is not run again"


def test_more_trials_go_on_in_the_same_journal(undisturbed: Path, tmp_path: Path) -> None:
    journal = tmp_path / "c.journal"
    search(Plan(trials=10, steps=20), journal, curve)
    search(PLAN, journal, curve)
    assert drawn(journal) == drawn(undisturbed)


def test_the_tables_best_rows_are_tried_first(tmp_path: Path) -> None:
    point = parameters_of(ADVERSARIES["t-facts"], "learning_rate=0.0003")
    assert point is not None
    seen: list[Adversary] = []

    def watched(adversary: Adversary, seed: int) -> Iterator[Reading]:
        seen.append(adversary)
        return curve(adversary, seed)

    search(Plan(trials=3, steps=20), tmp_path / "d.journal", watched, [point])
    assert seen[0].settings["data"] == "t-facts" and seen[0].settings["learning_rates"] == pytest.approx((3e-4,))


def broken(adversary: Adversary, seed: int) -> Iterator[Reading]:
    raise RuntimeError("out of memory")
    yield


def silent(adversary: Adversary, seed: int) -> Iterator[Reading]:
    yield from ()


@pytest.mark.parametrize(("fails", "words"), [(broken, "out of memory"), (silent, "yielded no checkpoint")])
def test_a_trial_that_fails_is_recorded_and_counts(
    tmp_path: Path, fails: Callable[[Adversary, int], Iterator[Reading]], words: str
) -> None:
    plan = Plan(trials=3, steps=20)
    search(plan, tmp_path / "e.journal", fails)
    trials = counted(open_study(tmp_path / "e.journal"))
    assert len(trials) == 3 and all(words in t.user_attrs["error"] for t in trials)
    result = found(plan, tmp_path / "e.journal", 0.1)
    assert not result.winners and list(result.expected_maximum) == [pytest.approx(0.1)] * 3


def test_what_collapses_or_costs_utility_never_wins(tmp_path: Path) -> None:
    def costly(adversary: Adversary, seed: int) -> Iterator[Reading]:
        yield Reading(0, 1.0, estimate(0.05), sound=False)
        yield Reading(1, 1.0, estimate(0.2), sound=True)
        yield Reading(2, 1.0, Estimate.undefined(0, "test"), sound=True)

    plan = Plan(trials=4, steps=20)
    search(plan, tmp_path / "f.journal", costly)
    assert not found(plan, tmp_path / "f.journal", 0.0).winners


def test_rows_in_the_space_come_back_as_they_are() -> None:
    for name in ("t-facts", "unrelated-10", "lora-t-facts", "mixed-t-facts", "t-facts-cosine"):
        row = ADVERSARIES[name]
        point = parameters_of(row, "learning_rate=0.001")
        assert point is not None
        again = suggest(optuna.trial.FixedTrial(point), 20)  # type: ignore[arg-type]
        for setting in ("optimizer", "schedule", "rank"):
            assert getattr(again.instance, setting) == getattr(row.instance, setting)
        assert again.settings["data"].removesuffix("/10") == row.settings["data"]
        assert again.settings["learning_rates"] == pytest.approx((1e-3,))
    assert parameters_of(ADVERSARIES["gcg"], "") is None
    assert parameters_of(ADVERSARIES["difference-ablation"], "layers=each") is None
    assert parameters_of(ADVERSARIES["t-facts-adadelta"], "learning_rate=0.1") is None


@pytest.mark.parametrize(
    ("name", "variant", "settings"),
    [
        ("quantise-channel", "bits=3", {"bits": (3,), "group": None}),
        ("weight-noise", "scale=0.2", {"scales": (0.2,)}),
        ("prune-hazard", "p=0.1,q=0.05", {"shares": (0.05,), "score": "snip", "safety": "t-facts"}),
        ("prune-wanda", "p=0.1,q=0.1", {"shares": (0.1,), "score": "wanda", "safety": "refusals"}),
        ("orthogonal-projection", "safety=0.2,utility=0.35", {"shares": ((0.2, 0.35),)}),
        ("difference-ablation", "depth=0.5,layer=2", {"depths": (0.5,)}),
        ("refusal-ablation", "", {"positions": 5}),
    ],
)
def test_weight_rows_come_back_as_the_variant_that_was_best(name: str, variant: str, settings: dict[str, Any]) -> None:
    point = parameters_of(ADVERSARIES[name], variant)
    assert point is not None
    again = suggest(optuna.trial.FixedTrial(point), 20)  # type: ignore[arg-type]
    assert again.settings == settings and again.attack == ADVERSARIES[name].attack


def test_the_budget_is_part_of_the_identity() -> None:
    plans = [PLAN, Plan(trials=25, steps=20), Plan(trials=24, steps=21), Plan(trials=24, steps=20, seed=1)]
    assert len({json.dumps(plan.identity(), sort_keys=True) for plan in plans}) == 4
