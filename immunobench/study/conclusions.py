"""A study's cells, what is concluded of them, and the record that is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from immunobench.protocol.adversary import Adversary, adversary_from
from immunobench.protocol.v1 import VERSION
from immunobench.protocol.verdict import Outcome
from immunobench.study.diagnoses import diagnoses_of
from immunobench.study.evidence import Trio
from immunobench.study.failure_modes import failure_modes
from immunobench.study.measurements import Measurements
from immunobench.study.request import Request, Trial
from immunobench.study.score import Result, Setting, conclude
from immunobench.study.store import Store
from immunobench.study.worker import Job

CellKey = tuple[str, str, str, str]
"""Model, domain, exposed reference, adversary."""


@dataclass
class Study:
    """Cells done so far."""

    store: Store
    cells: dict[CellKey, list[Measurements]] = field(default_factory=dict)
    """(model, domain, exposed reference, adversary) -> a cell a seed."""
    failed: dict[CellKey, str] = field(default_factory=dict)
    """Why the cells of an adversary are not all there."""
    baselines: dict[tuple[str, str, str], list[Job]] = field(default_factory=dict)
    """(Model, domain, exposed reference) -> the jobs of the untouched model."""
    domains: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name, version and fingerprint of each domain."""
    rows: dict[str, Adversary] = field(default_factory=dict)
    """Every adversary that was run, winners of the search included."""
    not_run: tuple[str, ...] = ()
    """Adversaries that were left out because the verdict was clear."""
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the adaptive search found, by subject."""


def conclude_trial(trial: Trial, rows: Sequence[Adversary], study: Study) -> Result:
    """Score one subject from the cells of ``study``."""
    trios = trios_of(trial, rows, study)
    unscored = [(row, Outcome("invalid", why)) for row in rows if (why := failure(trial, row, study))]
    accounted = {*trios, *study.not_run, *(row.name for row, _ in unscored)}
    left_out = tuple(row.name for row in rows if row.name not in accounted and row.search is None)
    searched = study.searches.get(trial.subject, {})
    if searched and not searched["winners"]:
        unscored.append((NO_WINNER, Outcome("infeasible", "no trial of the search kept the subject's utility")))
    setting = Setting(
        domain=trial.domain,
        implanted=trial.implanted,
        search_trials=searched.get("trials", 0),
        unscored=unscored,
        not_run=study.not_run,
        left_out=left_out,
    )
    return conclude(trial.subject, trios, setting)


NO_WINNER = Adversary("adaptive", "adaptive", "immunobench.attacks.baseline.NoAttack", "adaptive search")
"""Stands for a search without a winner."""


def failure(trial: Trial, row: Adversary, study: Study) -> str:
    """Why cells of ``row`` are missing, of the subject or a reference; empty where none failed."""
    for model in trial.models:
        if why := study.failed.get((model, trial.domain, trial.exposed, row.name)):
            return f"its cell on {model} failed: {why}"
    return ""


def _whole(trial: Trial, row: Adversary, study: Study) -> bool:
    """Whether all three models have cells of ``row``, and none failed."""
    keys = [(model, trial.domain, trial.exposed, row.name) for model in trial.models]
    return all(key in study.cells for key in keys) and not failure(trial, row, study)


def trios_of(trial: Trial, rows: Sequence[Adversary], study: Study) -> dict[str, tuple[Adversary, Trio]]:
    """Each adversary that was run by name, with its cells against the subject and both references."""

    def served(model: str, adversary: str, engine: str) -> list[Measurements]:
        found = study.cells[model, trial.domain, trial.exposed, adversary]
        return [cell for cell in found if cell.engine == engine]

    def cells(model: str, adversary: str) -> list[Measurements]:
        """Those on the engine that most seeds of all models have in common."""
        engines = dict.fromkeys(cell.engine for cell in study.cells[model, trial.domain, trial.exposed, adversary])
        whole = max(engines, key=lambda engine: min(len(served(other, adversary, engine)) for other in trial.models))
        return served(model, adversary, whole)

    def before(model: str, attacked: Sequence[Measurements]) -> list[Measurements]:
        """The unattacked model on the engine that ``attacked`` ran on."""
        found = study.cells[model, trial.domain, trial.exposed, "none"]
        return [cell for cell in found if cell.engine == attacked[0].engine]

    trios = {}
    for row in rows:
        if not _whole(trial, row, study):
            continue
        subject, exposed = cells(trial.subject, row.name), cells(trial.exposed, row.name)
        untouched = before(trial.subject, subject)
        trios[row.name] = (
            row,
            Trio(
                subject=subject,
                never_exposed=cells(trial.never_exposed, row.name) if trial.never_exposed else untouched,
                exposed=exposed,
                subject_before=untouched,
                exposed_before=before(trial.exposed, exposed),
                never_exposed_key=None if trial.never_exposed else next(iter(untouched[0].points)),
            ),
        )
    return trios


def record_of(request: Request, trials: Sequence[Trial], study: Study, results: Sequence[Result]) -> dict[str, Any]:
    """What study.json holds: enough to score and report again from the cells."""
    return {
        "schema_version": 1,
        "protocol": VERSION,
        "request": asdict(request),
        "adversaries": {
            row.name: {"family": row.family, "source": row.source, **row.identity()} for row in study.rows.values()
        },
        "not_run": list(study.not_run),
        "searches": study.searches,
        "subjects": [
            {**asdict(trial), "domain": study.domains[trial.domain], **concluded(result, study)}
            for trial, result in zip(trials, results, strict=True)
        ],
        "cells": [
            {
                "model": model,
                "domain": domain,
                "exposed": exposed,
                "adversary": adversary,
                "cell_ids": [m.cell.cell_id for m in cells],
            }
            for (model, domain, exposed, adversary), cells in sorted(study.cells.items())
        ],
        "failed": [
            {"model": model, "domain": domain, "exposed": exposed, "adversary": adversary, "why": why}
            for (model, domain, exposed, adversary), why in sorted(study.failed.items())
        ],
    }


def concluded(result: Result, study: Study) -> dict[str, Any]:
    """The part of a subject's record that is computed from its cells, and from diagnoses in the study's folder."""
    modes = failure_modes(result, diagnoses_of(result.subject, study.store.root))
    return {"result": as_json(result), "failure_modes": as_json(modes)}


def rows_of(record: Mapping[str, Any]) -> dict[str, Adversary]:
    """The adversaries of a stored study as it ran them, whatever the table of this version says."""
    return {
        name: adversary_from(entry, entry["family"], entry["source"]) for name, entry in record["adversaries"].items()
    }


def as_json(value: Any) -> Any:
    """Dataclasses, estimates and points as plain JSON values."""
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if hasattr(value, "__dataclass_fields__"):
        return {name: as_json(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: as_json(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    return value
