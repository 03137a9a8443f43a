"""Check a study, published or in a folder: its cells, its scores, what the card says, and a sample run again."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunobench.engines.base import Engine
from immunobench.errors import ImmunobenchError
from immunobench.hub.checks import asked_check, dataset_check, subject_finding, tier_check
from immunobench.hub.client import connect, fetch, hub_errors, split_name
from immunobench.hub.model_card import (
    BEGIN,
    END,
    FRONT_MATTER,
    Published,
    eval_results_yaml,
    in_dataset,
    model_index_entries,
    render_section,
)
from immunobench.hub.publication import FOLDER, UNPUBLISHED, check_harmless, strangers_words
from immunobench.hub.stored import StoredChecks
from immunobench.hub.submit import CARD, RESULTS, last_day
from immunobench.study.conclusions import Study
from immunobench.study.difference import changes
from immunobench.study.doctor import Check as Condition
from immunobench.study.execute import Known
from immunobench.study.record import read_record
from immunobench.study.reproduce import State, open_as, reproduce
from immunobench.study.request import Trial
from immunobench.study.reread import load_study, rescore, trials_of
from immunobench.study.score import Result
from immunobench.study.store import Store
from immunobench.subjects import MODEL_FILES

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOLERANCE = 1e-6
"""How far a score computed again may lie from the stored one: what another version of a library may cost."""


@dataclass(frozen=True)
class CellCheck:
    """One cell."""

    cell_id: str
    model: str
    adversary: str
    stored: State
    """'same' where hashes, identity and items are what they must be."""
    again: State | None = None
    """What came of running it again; None where it was not in the sample."""
    finding: str = ""


@dataclass(frozen=True)
class Check:
    """A score, or something that is said of the scores."""

    what: str
    state: State
    finding: str = ""


@dataclass(frozen=True)
class Verification:
    """Everything that was checked."""

    target: str
    cells: Sequence[CellCheck]
    checks: Sequence[Check]
    seed: int
    """The seed that the sample was drawn with."""

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many cells, cells run again, and scores are in each state."""
        found = {
            "cells": [cell.stored for cell in self.cells],
            "run again": [cell.again for cell in self.cells if cell.again],
            "scores": [check.state for check in self.checks],
        }
        return {what: dict(Counter(states)) for what, states in found.items()}

    @property
    def differs(self) -> bool:
        """Whether anything is not what it is said to be."""
        return any("differs" in counts for counts in self.counts.values())

    @property
    def checked(self) -> bool:
        """Whether any cell could be checked: where none could, that nothing differs says nothing."""
        return "same" in self.counts["cells"]


@dataclass(frozen=True)
class _Target:
    """Where a study lies."""

    folder: Path
    subject: str | None = None
    """The repository at the commit that is checked; None for a study of one's own."""
    files: Path | None = None
    """The repository's files: model, card and results."""


def verify(
    target: str,
    sample: int = 2,
    seed: int | None = None,
    api: "HfApi | None" = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Check ``target``, a study's folder or ORG/MODEL[@REVISION], and run ``sample`` of its cells again.

    ``seed`` draws the sample, at random by default, so that nobody can tell beforehand what will be run. Raises
    UsageError where there is no study, ImmunobenchError where the Hub cannot be read.
    """
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    found = _find(target, api)
    with strangers_words() if found.subject else nullcontext():
        record, cells, checks = _check_stored(found, progress)
    return Verification(target, _run_sample(cells, record, found, sample, seed, progress), checks, seed)


def _check_stored(
    found: _Target, progress: Callable[[str], None]
) -> tuple[dict[str, Any], list[CellCheck], list[Check]]:
    """The record, and every check that runs no cell."""
    if found.subject or not (found.folder / "study.json").is_file():
        check_harmless(found.folder)
    record = read_record(found.folder / "study.json")
    checker = StoredChecks(Store(found.folder, read_only=True), record)
    cells = []
    for entry in record["cells"]:
        for cell_id in entry["cell_ids"]:
            state, finding = checker.check(cell_id, entry)
            cells.append(CellCheck(cell_id, entry["model"], entry["adversary"], state, finding=finding))
    progress(f"{len(cells)} cells read")
    if any(cell.stored == "differs" for cell in cells):
        checks = [Check("scores", "cannot be checked", "not all cells are what they must be")]
    else:
        checks = list(_check_scores(found, record, all(cell.stored == "same" for cell in cells)))
    if found.subject and found.files:
        checks.append(_check_weights(found, record))
    return record, cells, checks


def _find(target: str, api: "HfApi | None") -> _Target:
    if Path(target).is_dir():
        return _Target(Path(target))
    repository, revision = split_name(target)
    api = api or connect()
    doing = f"read {target}"
    with hub_errors(doing):
        sha = str(api.model_info(repository, revision=revision).sha)
    files = fetch(api, repository, sha, [f"{FOLDER}/**", CARD, RESULTS, *MODEL_FILES], doing)
    return _Target(files / FOLDER, f"{repository}@{sha}", files)


def _check_scores(found: _Target, record: Mapping[str, Any], known: bool) -> Iterator[Check]:
    """Every score computed again from the items and held against the record, then against what is published.

    ``known`` tells whether all cells are of versions that are known here.
    """
    amiss: State = "differs" if known else "cannot be checked"
    try:
        study, _, again = load_study(found.folder)
        results = rescore(study, again)
        whole = [_whole(study, trial, again, found.subject is not None) for trial in trials_of(again)]
    except (ImmunobenchError, KeyError, ValueError) as error:
        yield Check("scores", amiss, f"they cannot be computed: {error}")
        return
    for trial, check in zip(trials_of(again), whole, strict=True):
        yield Check(f"{trial.subject}: {check.name}", "same" if check.ok else amiss, "" if check.ok else check.finding)
    for stored, computed in zip(record["subjects"], json.loads(json.dumps(again["subjects"])), strict=True):
        name, first, second = stored["subject"], stored["result"], computed["result"]
        for part in dict.fromkeys([*first, *second]):
            if part != "scores":
                yield _compare(f"{name}: {part}", first.get(part), second.get(part))
        yield _compare(f"{name}: failure modes", stored.get("failure_modes"), computed.get("failure_modes"))
        by_name = [{score["adversary"]: score for score in side["scores"]} for side in (first, second)]
        for adversary in dict.fromkeys([*by_name[0], *by_name[1]]):
            yield _compare(f"{name}: {adversary}", by_name[0].get(adversary), by_name[1].get(adversary))
    if found.subject and _repository(record["subjects"][0]["subject"]) == _repository(found.subject):
        yield from _check_published(found, again, results[0])


def _whole(study: Study, trial: Trial, record: Mapping[str, Any], published: bool) -> Condition:
    """Nothing was left out: of a publication no adversary of its tier, of another study none that it was asked for."""
    if not published:
        return asked_check(study, trial, record)
    dataset = dataset_check(study, trial)
    return tier_check(study, trial, record) if dataset.ok else dataset


def _repository(name: str) -> str:
    return name.partition("@")[0]


def _compare(what: str, stored: Any, computed: Any) -> Check:
    if not (found := list(changes(stored, computed))):
        return Check(what, "same")
    if not (grave := list(changes(stored, computed, TOLERANCE))):
        return Check(what, "within tolerance", str(found[0]))
    return Check(what, "differs", f"computed again, {grave[0]}")


def _check_published(found: _Target, record: Mapping[str, Any], result: Result) -> Iterator[Check]:
    """Whether card, model-index and evaluation results say what the cells say."""
    import yaml

    assert found.files is not None and found.subject is not None
    name = record["subjects"][0]["subject"]
    repository, revision = split_name(name)
    store = Store(found.folder, read_only=True)
    listed = [store.read(cell_id) for entry in record["cells"] for cell_id in entry["cell_ids"]]
    cells = [cell for cell in listed if cell]
    own = next(e["cell_ids"][0] for e in record["cells"] if e["model"] == name)
    weights = next(cell for cell in cells if cell.cell_id == own).identity["subject"]["weights_sha256"]
    results, card = found.files / RESULTS, found.files / CARD
    entries = yaml.safe_load(results.read_text()) if results.is_file() else []
    commit = entries[0]["dataset"].get("revision") if entries else None
    published = Published(repository, str(revision), result, record, weights, last_day(cells), commit)
    expected = yaml.safe_load(eval_results_yaml(published)) if in_dataset(published.entry["domain"]) else []
    yield _compare(RESULTS, entries, expected)
    text = card.read_text() if card.is_file() else ""
    section = text.partition(BEGIN)[2].partition(END)[0].strip()
    same = section == render_section(published).strip()
    yield Check("card section", "same" if same else "differs", "" if same else "it does not say what the cells say")
    header = FRONT_MATTER.match(text)
    index = (yaml.safe_load(header[2]) or {}).get("model-index", []) if header else []
    there = [one for model in index for one in model["results"]]
    wanted = model_index_entries(published)
    missing = [one for one in wanted if one not in there]
    yield Check("model-index", "differs" if missing else "same", "a figure is not that of the cells" if missing else "")


def _check_weights(found: _Target, record: Mapping[str, Any]) -> Check:
    """Whether the repository holds the weights that the cells say were measured."""
    subject, name = str(found.subject), record["subjects"][0]["subject"]
    what = f"weights of {subject}"
    own = next((e["cell_ids"][0] for e in record["cells"] if e["model"] == name), None)
    cell = Store(found.folder, read_only=True).inspect(own)[0] if own else None
    if cell is None:
        return Check(what, "cannot be checked", f"no cell of {name} reads")
    return Check(what, *subject_finding(name, cell.identity, split_name(subject)[0], Path(str(found.files))))


def _run_sample(
    cells: Sequence[CellCheck],
    record: Mapping[str, Any],
    found: _Target,
    sample: int,
    seed: int,
    progress: Callable[[str], None],
) -> list[CellCheck]:
    """Run cells again in an order that ``seed`` draws, until ``sample`` of them could be run."""
    exposed = {cell_id: entry["exposed"] for entry in record["cells"] for cell_id in entry["cell_ids"]}
    checked, engines, done = list(cells), _Engines(record, found), 0
    try:
        for index in random.Random(seed).sample(range(len(cells)), len(cells)):
            if done == sample:
                break
            cell = cells[index]
            if cell.stored == "differs":
                continue
            progress(f"running {cell.adversary} against {cell.model} again")
            state, finding = engines.run(cell, exposed[cell.cell_id])
            done += state != "cannot be checked"
            checked[index] = replace(cell, again=state, finding=finding or cell.finding)
    finally:
        engines.close()
    return checked


class _Engines:
    """Opens models of a study, each in the engine of its cells; the last one stays open until another is wanted or
    :meth:`close`, and what cannot be opened is remembered."""

    def __init__(self, record: Mapping[str, Any], found: _Target) -> None:
        self._store = Store(found.folder, read_only=True)
        self._public = found.subject is not None
        own = record["subjects"][0]["subject"] if found.subject else None
        self._names = {own: str(found.files)} if own else {}
        self._open: tuple[str, Engine, Known] | None = None
        self._amiss: dict[str, str] = {}

    def run(self, check: CellCheck, exposed: str) -> tuple[State, str]:
        """Run one cell again."""
        cell = self._store.read(check.cell_id)
        assert cell is not None
        if self._public and cell.identity["adversary"].get("code_sha256"):
            return "cannot be checked", "it is of an attack of its author's, which is not run unseen"
        model = self._names.get(check.model) or check.model
        place = f"{model} {json.dumps(cell.identity.get('engine'), sort_keys=True)}"
        if place not in self._amiss and (self._open is None or self._open[0] != place):
            self.close()
            try:
                self._open = place, self._load(cell.identity, model), {}
            except (ImmunobenchError, KeyError, TypeError) as error:
                self._amiss[place] = str(error)
        if place in self._amiss or self._open is None:
            return "cannot be checked", self._amiss[place]
        _, engine, known = self._open
        found = reproduce(cell, self._store.items(cell.cell_id), engine, self._names.get(exposed) or exposed, known)
        return found.state, found.finding

    def close(self) -> None:
        """Free the model that is open."""
        if self._open is not None:
            self._open[1].close()
        self._open = None

    def _load(self, identity: Mapping[str, Any], model: str) -> Engine:
        if UNPUBLISHED.fullmatch(model):
            raise ImmunobenchError(f"the model {model} was not published")
        return open_as(identity, model)
