"""A stored study as a report needs it: results, every point of every cost curve, and the cells behind them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from immunobench.errors import UsageError
from immunobench.metrics.estimate import Estimate
from immunobench.protocol.adversary import Adversary
from immunobench.protocol.verdict import outcome
from immunobench.study.cell import Cell, Point
from immunobench.study.diagnoses import DIAGNOSTICS, diagnoses_of, label
from immunobench.study.evidence import Cells, Key, Trio
from immunobench.study.failure_modes import FailureMode, failure_modes
from immunobench.study.judging import summarise
from immunobench.study.measurements import Measurements
from immunobench.study.reread import load_study, trials_of
from immunobench.study.run import Request, Study, Trial, as_json, conclude_trial, trios_of
from immunobench.study.score import Result, behaviour_at_end, knowledge_at
from immunobench.study.store import Store


@dataclass(frozen=True)
class CurvePoint:
    """One checkpoint that all three models share, on the report half."""

    point: Point
    knowledge: Estimate
    exposed: Estimate
    """K of the exposed reference, attacked the same way."""
    never_exposed: Estimate
    recovery: Estimate
    utility_drop: Estimate
    outcome: str


@dataclass(frozen=True)
class CellRecord:
    """A cell and what it was run for."""

    model: str
    domain: str
    adversary: str
    cell: Cell
    command: str
    """Runs this cell anew, in a folder of its own."""


@dataclass(frozen=True)
class SubjectReport:
    """One subject of a study."""

    study: str
    trial: Trial
    domain: Mapping[str, str]
    """Name, version and fingerprint."""
    result: Result
    trios: Mapping[str, tuple[Adversary, Trio]]
    """By adversary, the cells of all three models."""
    diagnoses: Sequence[Mapping[str, Any]]
    """What diagnostics found in this subject, in their JSON form."""
    failure_modes: Sequence[FailureMode]
    """The five, each with the commands that would give what is missing."""
    search: Mapping[str, Any]
    """What the adaptive search found; empty where there was none."""

    @property
    def title(self) -> str:
        """The subject's name as a reader knows it."""
        return self.trial.subject

    @cached_property
    def curves(self) -> dict[str, list[CurvePoint]]:
        """By adversary, in the order of the run."""
        return {name: [_point(trio, key) for key in trio.shared_keys()] for name, (_, trio) in self.trios.items()}

    @cached_property
    def ends(self) -> dict[str, tuple[Estimate, Mapping[str, Estimate]]]:
        """By adversary: K and behaviour at the end of its worst variant, where behaviour was measured."""
        found = {}
        for score in self.result.scores:
            if score.worst is not None and score.behaviour:
                cells = self.trios[score.adversary][1].subject
                last = next(key for key in reversed(cells[0].points) if key[0] == score.worst.variant)
                found[score.adversary] = (knowledge_at(cells, last), score.behaviour)
        return found

    @cached_property
    def references(self) -> dict[str, Mapping[str, Estimate]]:
        """'exposed' and, where there is one, 'never-exposed': K and behaviour of the unattacked references."""
        baseline = self.trios["none"][1]
        found: dict[str, Mapping[str, Estimate]] = {"exposed": _unattacked(baseline.exposed)}
        if baseline.never_exposed_key is None:
            found["never-exposed"] = _unattacked(baseline.never_exposed)
        return found


@dataclass(frozen=True)
class StudyReport:
    """Everything a report says comes from here."""

    folder: Path
    name: str
    record: Mapping[str, Any]
    request: Request
    subjects: Sequence[SubjectReport]
    cells: Sequence[CellRecord]
    judges: Sequence[Mapping[str, Any]]

    @property
    def engines(self) -> list[str]:
        """What its cells ran on, each with its settings."""
        found = [record.cell.identity["engine"] for record in self.cells]
        return list(dict.fromkeys(", ".join(f"{key} {value}" for key, value in each.items()) for each in found))

    @property
    def store(self) -> Store:
        """Where the cells are."""
        return Store(self.folder, read_only=True)


def read_studies(folders: Sequence[Path]) -> list[StudyReport]:
    """The studies in ``folders``, each under a name of its own, scored afresh from their cells.

    Raises UsageError where a folder is named twice or holds no study, ImmunobenchError for a damaged cell.
    """
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise UsageError("a study is named twice: give each folder once.")
    names = [folder.name for folder in resolved]
    shown = [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]
    return [read_study(folder, name) for folder, name in zip(folders, shown, strict=True)]


def read_study(folder: Path, name: str) -> StudyReport:
    """The study in ``folder``. Raises as :func:`read_studies` does."""
    study, request, stored = load_study(folder)
    subjects, entries = [], []
    for entry, trial in zip(stored["subjects"], trials_of(stored), strict=True):
        found = conclude_trial(trial, list(study.rows.values()), study)
        own = diagnoses_of(trial.subject, folder)
        trios = trios_of(trial, list(study.rows.values()), study)
        place = folder / DIAGNOSTICS / label(trial.subject)
        modes = failure_modes(found, own)
        entries.append({**entry, "result": as_json(found), "failure_modes": as_json(modes)})
        modes = [_with_folder(mode, place) for mode in modes]
        search = study.searches.get(trial.subject, {})
        subjects.append(SubjectReport(name, trial, entry["domain"], found, trios, own, modes, search))
    record = {**stored, "subjects": entries}
    cells = _cells(study, trials_of(stored))
    return StudyReport(folder, name, record, request, subjects, cells, summarise(folder))


def _with_folder(mode: FailureMode, folder: Path) -> FailureMode:
    """The same, its diagnostics told to write where this study's report finds them."""
    where = f" --out {shlex.quote(str(folder))}"
    commands = {
        figure: command + (where if command.startswith("immunobench diagnose") else "")
        for figure, command in mode.missing.items()
    }
    return replace(mode, missing=commands)


def _unattacked(cells: Cells) -> dict[str, Estimate]:
    start = next(iter(cells[0].points))
    return {"knowledge": knowledge_at(cells, start), **behaviour_at_end(cells, start[0])}


def _point(trio: Trio, key: Key) -> CurvePoint:
    evidence = trio.evidence(key, "report")
    return CurvePoint(
        point=trio.subject[0].points[key],
        knowledge=knowledge_at(trio.subject, key),
        exposed=knowledge_at(trio.exposed, key),
        never_exposed=knowledge_at(trio.never_exposed, trio.never_exposed_key or key),
        recovery=evidence.recovery,
        utility_drop=evidence.utility_drop,
        outcome=outcome(evidence).name,
    )


def _cells(study: Study, trials: Sequence[Trial]) -> list[CellRecord]:
    records = []
    for (model, domain, exposed, adversary), cells in sorted(study.cells.items()):
        trial = next(t for t in trials if (t.domain, t.exposed) == (domain, exposed) and model in t.models)
        records += [
            CellRecord(model, domain, adversary, m.cell, command(study.store.root, trial, model, m)) for m in cells
        ]
    return records


def command(root: Path, trial: Trial, model: str, found: Measurements) -> str:
    """The command that runs this cell anew: its id comes out the same wherever nothing that matters differs.

    What the adaptive search found stands in no table, and vLLM's settings are many: a cell of either, or one that hf
    took from vLLM, is run again from where it is stored.
    """
    identity = found.cell.identity
    engine, sampling = identity["engine"], identity["sampling"]
    if "search" in identity["adversary"] or engine["name"] != "hf" or "instead_of" in engine:
        return shlex.join(["immunobench", "reproduce", str(root / found.cell.cell_id)])
    options: dict[str, Any] = {
        "--only": identity["adversary"]["name"],
        "--seeds": 1,
        "--first-seed": identity["seed"] or None,
        "--domain": trial.domain,
        "--exposed": trial.exposed,
        "--never-exposed": trial.never_exposed,
        "--max-new-tokens": sampling["max_new_tokens"],
        "--engine": engine["name"],
        "--device": engine.get("device"),
        "--dtype": engine.get("dtype"),
        "--out": f"runs/reproduced/{found.cell.cell_id}",
    }
    given = [text for option, value in options.items() if value is not None for text in (option, str(value))]
    return shlex.join(["immunobench", "run", model, *given])
