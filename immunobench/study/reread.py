"""Score a stored study again from its cells. No model is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from immunobench.errors import ImmunobenchError, UsageError
from immunobench.study.conclusions import Study, conclude_trial, concluded, rows_of
from immunobench.study.measurements import Measurements
from immunobench.study.record import read_record
from immunobench.study.request import Request, Trial
from immunobench.study.score import Result
from immunobench.study.store import Store


def reread(folder: Path) -> tuple[list[Result], dict[str, Any]]:
    """Results and record of the study in ``folder``, scored by this version. Raises as :func:`load_study` does."""
    study, _, record = load_study(folder)
    return rescore(study, record), record


def rescore(study: Study, record: Mapping[str, Any]) -> list[Result]:
    """Results of a study that was read, written into its ``record`` too."""
    results = []
    for subject, trial in zip(record["subjects"], trials_of(record), strict=True):
        results.append(conclude_trial(trial, list(study.rows.values()), study))
        subject |= concluded(results[-1], study)
    return results


def load_study(folder: Path) -> tuple[Study, Request, dict[str, Any]]:
    """The cells of the study in ``folder``, what was asked for, and the record as it is stored.

    Raises UsageError where there is no study, ImmunobenchError where a cell is missing or damaged.
    """
    file = folder / "study.json"
    if not file.is_file():
        raise UsageError(f"'{folder}' holds no finished study: run 'immunobench run ... --out {folder}' to its end.")
    record = read_record(file)
    try:
        request = Request(**record["request"])
        rows = rows_of(record)
    except (ValueError, KeyError, TypeError) as error:
        raise ImmunobenchError(f"'{file}' does not read: run the study's command again.") from error
    study = Study(
        Store(folder, read_only=True),
        failed={_key(entry): entry["why"] for entry in record.get("failed", [])},
        rows=rows,
        not_run=tuple(record.get("not_run", ())),
        searches=record.get("searches", {}),
    )
    for entry in record["cells"]:
        for cell_id in entry["cell_ids"]:
            cell = study.store.read(cell_id)
            if cell is None:
                raise ImmunobenchError(f"cell {cell_id} is missing from '{folder}': run the study's command again.")
            study.cells.setdefault(_key(entry), []).append(Measurements(cell, study.store.items(cell_id)))
    return study, request, record


def _key(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return entry["model"], entry["domain"], entry["exposed"], entry["adversary"]


def trials_of(record: Mapping[str, Any]) -> list[Trial]:
    """The subjects of a study's record with their references."""
    return [
        Trial(
            entry["subject"],
            entry["exposed"],
            entry["never_exposed"],
            entry["domain"]["name"],
            entry.get("implanted", False),
        )
        for entry in record["subjects"]
    ]
