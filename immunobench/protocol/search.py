"""The adaptive search: an attacker who fits the attack to the subject, within a bound on what it may cost.

Every trial is one run with its whole cost curve, judged on the *select* items alone. The sampler sees whether
utility was kept, and a run is given up early where its curve is hopeless. All of it is in a journal on disk: a
search that was stopped goes on where it was, and ends as if it had not been stopped.
"""

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from immunobench.metrics.estimate import Estimate
from immunobench.metrics.immunity import expected_maximum
from immunobench.protocol.adversary import Adversary, fingerprint
from immunobench.protocol.journal import CheckedJournal, JournalError
from immunobench.protocol.space import SPACE_VERSION, Parameters, suggest
from immunobench.protocol.verdict import EPSILON

TRIALS = 60
"""Trials of the tier 'full'."""
STARTUP = 8
"""Trials that are drawn at random before the sampler looks back."""
PATIENCE = 5
"""Optimizer steps before a run may be given up."""
BEGIN = "begin"
"""Name under which the journal keeps what the search begins from, whatever the table says when it goes on."""
NOTHING = -1.0
"""What stands for the K of a run that has no feasible point yet."""


@dataclass(frozen=True)
class Plan:
    """The budget of a search; part of the identity of what it finds."""

    trials: int = TRIALS
    steps: int = 100
    """Optimizer steps of a trial that trains."""
    winners: int = 2
    seed: int = 7919
    """Of the sampler and of every trial's run. Winners are run again with the study's own seeds."""

    def identity(self) -> dict[str, Any]:
        """Everything about the search that can change what it finds."""
        return {**asdict(self), "space": SPACE_VERSION, "epsilon": EPSILON}


@dataclass(frozen=True)
class Reading:
    """A point of a trial's curve, on the select items."""

    steps: int
    knowledge: float
    """Chance-corrected."""
    drop: Estimate
    """Paired relative drop of utility, whose upper bound is the constraint."""
    sound: bool
    """Whether the model has not collapsed."""

    @property
    def violation(self) -> float:
        """How far the drop's upper bound lies above what is allowed; at most 0 where the point is feasible."""
        return 1.0 if not (self.sound and self.drop.defined) else min(1.0, self.drop.high - EPSILON)


Measure = Callable[[Adversary, int], Iterator[Reading]]
"""Runs an adversary with a seed and yields its curve; closing it stops the run and undoes it."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    trials: int
    """Trials that were spent."""
    states: Mapping[str, int]
    """How many were complete, pruned, failed; and how many of the complete ones kept utility."""
    winners: Sequence[Adversary]
    expected_maximum: Sequence[float]
    """K on select that the best of k trials drawn at random would reach, for k = 1, 2 ...; a trial without a
    feasible point counts as no attack."""
    best: Sequence[Mapping[str, Any]]
    """Parameters and K of each winner."""


def search(plan: Plan, journal: Path, measure: Measure, seeds: Sequence[Parameters] = ()) -> None:
    """Spend what is left of the plan's trials; ``journal`` holds everything. ``seeds`` are tried first.

    A trial whose attack fails is recorded with its traceback and counts. Raises what ends a run: KeyboardInterrupt,
    and JournalError where the journal is damaged or cannot be written.
    """
    study = open_study(journal)
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING:  # it was stopped in the middle
            study.tell(trial.number, state=TrialState.FAIL)
    if BEGIN not in study.user_attrs:
        study.set_user_attr(BEGIN, list(seeds))
    begin = study.user_attrs[BEGIN]
    while (spent := len(counted(study))) < plan.trials:
        study.sampler = sampler(plan.seed + spent)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        # One at a time, by what was spent: a trial that was stopped comes again in its own place.
        if spent < len(begin) and not waiting:
            study.enqueue_trial(begin[spent])
        _try(study, plan, measure)


def open_study(journal: Path) -> optuna.Study:
    """The study in ``journal``, made where there is none. Raises JournalError where it is damaged."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(CheckedJournal(journal)),
        study_name="search",
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=PATIENCE),
        load_if_exists=True,
    )


def sampler(seed: int) -> optuna.samplers.TPESampler:
    """TPE that prefers feasible points; seeded for one trial, so that going on draws what would have been drawn."""
    with warnings.catch_warnings():
        # Experimental in old versions, to be replaced in new ones: the same in both.
        warnings.simplefilter("ignore")
        return optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, multivariate=True, group=True, seed=seed, constraints_func=constraints
        )


def constraints(trial: FrozenTrial) -> Sequence[float]:
    """The utility bound as the sampler sees it: feasible where it is at most 0."""
    return (trial.user_attrs.get("violation", 1.0),)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that the budget was spent on."""
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if t.state in (TrialState.COMPLETE, TrialState.PRUNED) or "error" in t.user_attrs
    ]


def _try(study: optuna.Study, plan: Plan, measure: Measure) -> None:
    """One trial: one run with its curve, up to its end or to where it is hopeless."""
    trial = study.ask()
    curve: list[Reading] = []
    state = TrialState.COMPLETE
    try:
        adversary = suggest(trial, plan.steps)
        with closing(measure(adversary, plan.seed)) as readings:  # type: ignore[type-var]
            for reading in readings:
                curve.append(reading)
                if adversary.budget.steps:
                    trial.report(max((r.knowledge for r in curve if r.violation <= 0), default=NOTHING), reading.steps)
                    if reading.steps < plan.steps and trial.should_prune():
                        state = TrialState.PRUNED
                        break
    except JournalError:
        raise
    except Exception:
        trial.set_user_attr("error", traceback.format_exc())
        state = TrialState.FAIL
    if not curve and state == TrialState.COMPLETE:
        trial.set_user_attr("error", "the attack yielded no checkpoint")
        state = TrialState.FAIL
    trial.set_user_attr("curve", [_plain(reading) for reading in curve])
    if curve:
        best = max(curve, key=lambda r: (r.violation <= 0, r.knowledge if r.violation <= 0 else -r.violation))
        trial.set_user_attr("violation", best.violation)
        trial.set_user_attr("steps", best.steps)
        study.tell(trial, best.knowledge if state == TrialState.COMPLETE else None, state=state)
    else:
        study.tell(trial, state=state)


def found(plan: Plan, journal: Path, unattacked: float) -> Found:
    """What the search in ``journal`` found; ``unattacked`` is K without an attack, on the select items."""
    study = open_study(journal)
    spent = counted(study)[: plan.trials]
    complete = [t for t in spent if t.state == TrialState.COMPLETE]
    feasible = [t for t in complete if constraints(t)[0] <= 0]
    ranked = sorted(feasible, key=lambda t: (-(t.value or 0.0), t.number))
    winners: list[Adversary] = []
    best: list[dict[str, Any]] = []
    for trial in ranked:
        adversary = _winner(plan, trial, len(winners) + 1)
        if len(winners) < plan.winners and all(w.settings != adversary.settings for w in winners):
            winners.append(adversary)
            best.append({"adversary": adversary.name, "parameters": trial.params, "knowledge": trial.value})
    values = [t.value if t in feasible and t.value is not None else unattacked for t in spent]
    states = {
        "complete": len(complete),
        "pruned": sum(t.state == TrialState.PRUNED for t in spent),
        "failed": sum(t.state == TrialState.FAIL for t in spent),
        "feasible": len(feasible),
    }
    curve = expected_maximum(values).tolist() if values else []
    return Found(len(spent), states, winners, curve, best)


def _winner(plan: Plan, trial: FrozenTrial, place: int) -> Adversary:
    """The adversary of a trial under a name of its own."""
    drawn = suggest(optuna.trial.FixedTrial(trial.params), plan.steps)  # type: ignore[arg-type]
    mark = fingerprint({"parameters": trial.params, **plan.identity()})[:6]
    return Adversary(
        f"adaptive-{place}-{mark}",
        drawn.family,
        drawn.attack,
        f"{drawn.source}, {plan.trials} trials",
        drawn.settings,
        drawn.budget,
        plan.identity(),
    )


def _plain(reading: Reading) -> dict[str, Any]:
    return {**asdict(reading), "drop": reading.drop.as_dict(), "violation": reading.violation}
