"""Run a study: every cell that is not done yet, then score all of them."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Protocol

from immunobench.attacks.base import Checkpoint
from immunobench.domains import load_domain
from immunobench.errors import ImmunobenchError
from immunobench.protocol.adversary import Adversary
from immunobench.protocol.search import Found
from immunobench.protocol.v1 import TIERS
from immunobench.study.adaptive import Search, best_rows
from immunobench.study.cell import Cell
from immunobench.study.conclusions import Study, as_json, conclude_trial, record_of, rows_of, trios_of
from immunobench.study.execute import answer_tokens
from immunobench.study.executors.base import Executor, InProcess
from immunobench.study.measurements import Measurements
from immunobench.study.request import Request, Trial, applicable, find_trials, tasks, work
from immunobench.study.score import Result, Score
from immunobench.study.store import Store, write_json
from immunobench.study.worker import Done, Job, OpenEngine, Worker

__all__ = [
    "Job",
    "OpenEngine",
    "Reporter",
    "Request",
    "Study",
    "Trial",
    "answer_tokens",
    "applicable",
    "as_json",
    "conclude_trial",
    "find_trials",
    "rows_of",
    "run_study",
    "tasks",
    "trios_of",
    "work",
]

WAVE = 8
"""Adversaries that are run between two looks at the verdict, where a study may stop early."""
PATIENCE = 1.0
"""Seconds between two looks at a cell that another process is running."""


class Reporter(Protocol):
    """Told what happens, to show it."""

    def cell_started(self, subject: str, task: Job, points: int) -> None: ...
    def point_done(self, checkpoint: Checkpoint) -> None: ...
    def cell_done(self, subject: str, task: Job, cell: Cell, stored: bool) -> None: ...


def run_study(
    request: Request,
    store: Store,
    open_engine: OpenEngine,
    reporter: Reporter,
    executor: Executor | None = None,
) -> tuple[list[Result], dict[str, Any]]:
    """Run what is missing of ``request`` and return each subject's result with the study's record.

    Cells that subjects share, as those of the references, run once. A cell that fails is stored with its traceback,
    its adversary is invalid, and the same command runs it again. Raises ImmunobenchError before the first cell where a
    model cannot be measured, and where the unattacked cells of one failed, because every figure is relative to them.
    """
    trials, study = find_trials(request), Study(store)
    for trial in trials:
        domain = load_domain(trial.domain)
        study.domains[trial.domain] = {
            "name": domain.name,
            "version": domain.version,
            "fingerprint": domain.fingerprint,
        }
    executor = executor or InProcess(Worker(store.root, open_engine))
    try:
        executor.check(list(work(trials)))
        results = _attack(request, trials, study, executor, reporter)
        stopped = request.stop_when_broken and _all_broken(results)
        if request.search is not None and not stopped:
            results = _search(request, trials, study, results, executor, reporter)
    finally:
        executor.close()
    record = record_of(request, trials, study, results)
    write_json(store.root / "study.json", record)
    return results, record


def _attack(
    request: Request, trials: Sequence[Trial], study: Study, executor: Executor, reporter: Reporter
) -> list[Result]:
    """Run the table's adversaries, wave after wave, until the verdict is clear where that is asked for."""
    rows = request.rows()
    results: list[Result] = []
    for wave in waves(rows) if request.stop_when_broken else [rows]:
        study.rows |= {row.name: row for row in wave}
        carry_out(list(jobs_of(request, trials, wave)), study, executor, reporter)
        study.not_run = tuple(row.name for row in rows if row.name not in study.rows)
        results = [_concluded(trial, study) for trial in trials]
        if _all_broken(results):
            break
    return results


def _all_broken(results: Sequence[Result]) -> bool:
    return all(result.verdict.name == "broken" for result in results)


def waves(rows: Sequence[Adversary]) -> Iterator[list[Adversary]]:
    """The adversaries so that a verdict of broken can come early: the short tiers first, then by what they cost.

    Of a short tier come first those that train nothing.
    """
    left = list(rows)
    for tier, trains in product(("smoke", "quick"), (False, True)):
        first = [row for row in left if row.name in TIERS[tier] and (_steps(row) > 0) == trains]
        left = [row for row in left if row not in first]
        if first:
            yield first
    left.sort(key=_work)
    for start in range(0, len(left), WAVE):
        yield left[start : start + WAVE]


def _steps(row: Adversary) -> int:
    return row.instance.outline(row.budget).steps


def _work(row: Adversary) -> int:
    outline = row.instance.outline(row.budget)
    return outline.steps * outline.examples + 100 * outline.points


def jobs_of(request: Request, trials: Sequence[Trial], rows: Sequence[Adversary]) -> Iterator[Job]:
    """Every cell, model by model."""
    for model, settings in work(trials).items():
        for domain, exposed in settings:
            for row in applicable(rows, load_domain(domain)):
                for seed in request.seed_range:
                    yield Job(model, domain, exposed, row, seed, request.max_new_tokens)


def carry_out(jobs: Sequence[Job], study: Study, executor: Executor, reporter: Reporter) -> None:
    """Run jobs and put their cells into ``study``.

    Where the engine's fallback took a cell, it takes the same attack on the other models and the untouched ones too:
    only cells of one engine are compared.
    """
    _take(jobs, study, executor, reporter)
    _take(list(_mixed(jobs, study)), study, executor, reporter)
    for place in dict.fromkeys(job.key[:3] for job in jobs):
        study.baselines.setdefault(place, []).extend(
            job for job in jobs if job.key[:3] == place and job.adversary.name == "none"
        )
        served = {cell.engine for key, cells in study.cells.items() if key[:3] == place for cell in cells}
        untouched = {cell.engine for cell in study.cells.get((*place, "none"), ())}
        if untouched and served - untouched:  # one that failed has none, and would only fail again
            _take([replace(job, fallback=True) for job in study.baselines[place]], study, executor, reporter)


def _mixed(jobs: Sequence[Job], study: Study) -> Iterator[Job]:
    """What the fallback has to run again because it took the same attack on another model, or with another seed."""

    def by_fallback(job: Job) -> set[bool]:
        cells = [m.cell.identity for m in study.cells.get(job.key, ())]
        return {"instead_of" in identity["engine"] for identity in cells if identity["seed"] == job.seed}

    attacks: dict[tuple[str, str, str], list[Job]] = {}
    for job in jobs:
        if job.adversary.name != "none":
            attacks.setdefault(job.key[1:], []).append(job)
    for group in attacks.values():
        if any(True in by_fallback(job) for job in group):
            yield from (replace(job, fallback=True) for job in group if by_fallback(job) == {False})


def _take(jobs: Sequence[Job], study: Study, executor: Executor, reporter: Reporter) -> None:
    """Run jobs and put their cells, in the order of the jobs, into ``study``."""
    done = _finished(jobs, study, executor, reporter)
    for job in jobs:
        cell = study.store.read(done[job.name].cell_id)
        assert cell is not None
        if cell.status == "error":
            study.failed[job.key] = cell.error.message if cell.error else "unknown"
        else:
            study.cells.setdefault(job.key, []).append(Measurements(cell, study.store.items(cell.cell_id)))


def _finished(
    jobs: Sequence[Job], study: Study, executor: Executor, reporter: Reporter
) -> dict[tuple[str | int, ...], Done]:
    """What became of each job, by its name; those that other processes hold are asked for until they are done."""
    left: deque[Job | Search] = deque(jobs)
    found: dict[tuple[str | int, ...], Done] = {}
    while left:
        busy: list[Job] = []
        for done in executor.run(left, _starting(reporter), reporter.point_done):
            assert isinstance(done.job, Job)
            if done.state == "busy":
                busy.append(done.job)
                continue
            found[done.job.name] = done
            cell = study.store.read(done.cell_id)
            assert cell is not None
            reporter.cell_done(done.job.model, done.job, cell, done.state == "kept")
        left = deque(busy)
        if busy:
            time.sleep(PATIENCE)
    return found


def _searched(searches: Sequence[Search], executor: Executor) -> dict[tuple[str | int, ...], Found]:
    """What each search finds, by its name; those that other processes are at are waited for."""
    left: deque[Job | Search] = deque(searches)
    found: dict[tuple[str | int, ...], Found] = {}
    while left:
        busy: list[Job | Search] = []
        for done in executor.run(left, lambda _: None, lambda _: None):
            if done.found is None:
                busy.append(done.job)
            else:
                found[done.job.name] = done.found
        left = deque(busy)
        if busy:
            time.sleep(PATIENCE)
    return found


def _starting(reporter: Reporter) -> Callable[[Job | Search], None]:
    def on_start(job: Job | Search) -> None:
        if isinstance(job, Job):
            reporter.cell_started(job.model, job, job.points)

    return on_start


def _concluded(trial: Trial, study: Study) -> Result:
    for model in trial.models:
        if why := study.failed.get((model, trial.domain, trial.exposed, "none")):
            raise ImmunobenchError(
                f"the unattacked cell of {model} failed ({why.rstrip('.')}): "
                "the others are kept; once that is mended, run the same command again."
            )
    return conclude_trial(trial, list(study.rows.values()), study)


def _search(
    request: Request,
    trials: Sequence[Trial],
    study: Study,
    results: Sequence[Result],
    executor: Executor,
    reporter: Reporter,
) -> list[Result]:
    """Search on every subject, and run the winners, with the study's own seeds, on it and its references."""
    assert request.search is not None
    searches = {
        trial.subject: Search(
            trial.subject, trial.domain, trial.exposed, request.search, best_rows(_known(trial, result, study))
        )
        for trial, result in zip(trials, results, strict=True)
        if load_domain(trial.domain).has_facts
    }
    found = _searched(list(searches.values()), executor)
    jobs: dict[tuple[str | int, ...], Job] = {}
    for trial in trials:
        if trial.subject not in searches:
            continue
        own = found[searches[trial.subject].name]
        study.searches[trial.subject] = {**as_json(own), "winners": [row.name for row in own.winners]}
        study.rows |= {row.name: row for row in own.winners}
        # Two subjects may have one winner, and the references share their cells.
        jobs |= {job.name: job for job in jobs_of(request, [trial], own.winners)}
    carry_out(list(jobs.values()), study, executor, reporter)
    return [_concluded(trial, study) for trial in trials]


def _known(trial: Trial, result: Result, study: Study) -> list[tuple[Adversary, Score, float]]:
    """The table's rows that say something of the subject, with their scores and R on the select items."""
    trios = trios_of(trial, list(study.rows.values()), study)
    return [
        (row, score, trio.evidence((score.worst.variant, score.worst.steps), "select").recovery.value)
        for score in result.scores
        if score.worst and score.outcome.name in ("broken", "resisted", "inconclusive")
        for row, trio in [trios[score.adversary]]
    ]
