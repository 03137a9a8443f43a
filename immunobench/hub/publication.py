"""A study of one subject in the form in which it is published: a folder of cells with their record.

It is a study's folder like any other, scored again by the same code. Models are named as others can load them; a
reference that was never published is named by its folder and the start of its weights' hash.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from immunobench.errors import ImmunobenchError, UsageError
from immunobench.study.cell import Cell
from immunobench.study.conclusions import Study
from immunobench.study.measurements import Measurements
from immunobench.study.record import read_record
from immunobench.study.request import Request, Trial
from immunobench.study.reread import load_study, reread, trials_of
from immunobench.study.score import Result
from immunobench.study.store import write_json
from immunobench.subjects import SMOLLM2

FOLDER = "immunobench"
"""Where it lies in a model repository."""
CELL_ID = re.compile(r"[0-9a-f]{16}")
UNPUBLISHED = re.compile(r"[^/]+#[0-9a-f]{8}")
"""The name of a model that only its owner has."""


def cells_of(study: Study, trial: Trial) -> dict[tuple[str, str], list[Measurements]]:
    """The cells of a subject and its references, a cell a seed, by model and adversary."""
    return {
        (model, adversary): cells
        for (model, domain, exposed, adversary), cells in study.cells.items()
        if model in trial.models and (domain, exposed) == (trial.domain, trial.exposed)
    }


def write_publication(
    run: Path, subject: str, published_as: str, out: Path, with_transcripts: bool
) -> tuple[Result, dict[str, Any]]:
    """Write the part of the study in ``run`` that concerns ``subject`` to ``out``, and score it there.

    ``subject`` is called ``published_as``. Raises as :func:`immunobench.study.reread.load_study` does.
    """
    study, _, record = load_study(run)
    position, trial = next((i, t) for i, t in enumerate(trials_of(record)) if t.subject == subject)
    cells = cells_of(study, trial)
    names = {model: _public_name(model, found[0]) for (model, _), found in cells.items()}
    names[subject] = published_as
    for found in cells.values():
        for cell in found:
            _copy_cell(run, out, cell.cell.cell_id, with_transcripts)
    entry, searches = record["subjects"][position], record.get("searches", {})
    references = {key: entry[key] and names[entry[key]] for key in ("exposed", "never_exposed")}
    cut = {
        **record,
        "request": {**record["request"], "subjects": [published_as], **references},
        "subjects": [{**entry, "subject": published_as, **references}],
        "cells": _renamed(record["cells"], trial, names),
        "failed": _renamed(record.get("failed", []), trial, names),
        "searches": {published_as: searches[subject]} if subject in searches else {},
    }
    write_json(out / "study.json", cut)
    [result], cut = reread(out)
    write_json(out / "study.json", cut)
    return result, cut


def _renamed(entries: list[dict[str, Any]], trial: Trial, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The entries of a record that concern ``trial``, with the public names of its models."""
    return [
        {**one, "model": names[one["model"]], "exposed": names[one["exposed"]]}
        for one in entries
        if one["model"] in trial.models and (one["domain"], one["exposed"]) == (trial.domain, trial.exposed)
    ]


@contextmanager
def strangers_words() -> Iterator[None]:
    """Whatever goes wrong with a publication, as one sentence: its author may have written anything into its files."""
    try:
        yield
    except ImmunobenchError:
        raise
    except Exception as error:
        raise ImmunobenchError(f"the publication does not read ({type(error).__name__}: {error}).") from error


def load_publication(folder: Path) -> tuple[Study, Request, dict[str, Any]]:
    """The study in the folder of a publication, as :func:`immunobench.study.reread.load_study` gives it.

    Raises ImmunobenchError too where it names code or files of its author's: nothing is imported or opened for it.
    """
    check_harmless(folder)
    return load_study(folder)


def check_harmless(folder: Path) -> None:
    """Raise ImmunobenchError for a publication that names attacks by path, or cells by anything but their ids."""
    file = folder / "study.json"
    if not file.is_file():
        raise UsageError(f"'{folder}' holds no published study.")
    record = read_record(file)
    own = record["request"]["only"]
    attacks = [entry["attack"] for entry in record["adversaries"].values()]
    ids = [cell_id for entry in record["cells"] for cell_id in entry["cell_ids"]]
    if len(record["subjects"]) != 1:
        raise ImmunobenchError("the publication is not of one subject, as every submission is: it is not read.")
    if own:
        raise ImmunobenchError("the publication is not of a whole tier, which no submission is: it is not read.")
    if foreign := [attack for attack in attacks if not str(attack).startswith("immunobench.attacks.")]:
        raise ImmunobenchError(
            f"the publication names the attack '{foreign[0]}', which is not packaged: it is not read."
        )
    if strange := [cell_id for cell_id in ids if not CELL_ID.fullmatch(str(cell_id))]:
        raise ImmunobenchError(f"the publication names a cell '{strange[0]}', which is none: it is not read.")


def _public_name(model: str, cell: Measurements) -> str:
    """``model`` where others can load it by that name; otherwise its folder's name and its weights' hash."""
    local = Path(model).exists() or model.endswith(".gguf") or model.startswith((".", "/", "~"))
    if model.startswith("organism:") or model == SMOLLM2 or not local:
        return model
    return f"{Path(model).name}#{cell.cell.identity['subject']['weights_sha256'][:8]}"


def _copy_cell(run: Path, out: Path, cell_id: str, with_transcripts: bool) -> None:
    """Copy a cell; without transcripts, its rendered requests stay behind too."""
    (out / cell_id).mkdir(parents=True, exist_ok=True)  # a subject may be its own reference
    for name in ("cell.json", "items.parquet", *(["transcripts.parquet"] if with_transcripts else [])):
        shutil.copyfile(run / cell_id / name, out / cell_id / name)
    if not with_transcripts:
        file = out / cell_id / "cell.json"
        cell = Cell.model_validate_json(file.read_bytes())
        cell.environment = {name: value for name, value in cell.environment.items() if name != "prompts"}
        cell.sha256 = cell.content_sha256()
        file.write_text(cell.model_dump_json(indent=1))
