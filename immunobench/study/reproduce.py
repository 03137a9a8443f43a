"""Run a stored cell again and hold what comes out against what is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from immunobench.domains import load_domain
from immunobench.engines.base import Engine, Sampling
from immunobench.engines.hf import HFEngine
from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_settings import from_flags, installed_version
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.protocol.adversary import Adversary, adversary_from
from immunobench.protocol.v1 import ADVERSARIES, user_adversary
from immunobench.study.cell import Cell
from immunobench.study.difference import changes
from immunobench.study.execute import Known, Task, execute
from immunobench.study.opening import Opener
from immunobench.study.record import read_record
from immunobench.study.store import Store
from immunobench.subjects import load_subject

State = Literal["same", "within tolerance", "differs", "cannot be checked"]
TOLERANCE = 0.02
"""Mean absolute difference over the items of a measure, in its own unit, up to which a cell counts as reproduced."""

Identity = Mapping[str, Any]


@dataclass(frozen=True)
class MeasureDifference:
    """One measure at the checkpoint where its items differ most."""

    probe: str
    measure: str
    items: int
    stored: float
    """Mean over items."""
    again: float
    difference: float
    """Mean absolute difference over items."""


@dataclass(frozen=True)
class Reproduction:
    """What came of running a cell again."""

    cell_id: str
    state: State
    finding: str
    measures: Sequence[MeasureDifference] = ()


def find_cell(folder: Path) -> tuple[Store, Cell, str | None, str | None]:
    """The cell in ``folder`` with its store, and by name the model and exposed reference that its study says.

    Raises UsageError where there is no cell, ImmunobenchError where it is damaged or has failed.
    """
    store = Store(folder.parent, read_only=True)
    cell = store.read(folder.name)
    if cell is None:
        raise UsageError(f"'{folder}' holds no cell: give RUN/CELL, a folder with a cell.json.")
    if cell.status != "done":
        raise ImmunobenchError(f"cell {cell.cell_id} failed when it was run: there is nothing to reproduce.")
    file = folder.parent / "study.json"
    entries = read_record(file)["cells"] if file.is_file() else []
    entry: Mapping[str, Any] = next((e for e in entries if cell.cell_id in e["cell_ids"]), {})
    return store, cell, entry.get("model"), entry.get("exposed")


def open_as(identity: Identity, spec: str) -> Engine:
    """The engine of a cell's identity with the subject that ``spec`` names.

    Raises ImmunobenchError where the cell cannot be checked, because its engine is not here or does not fit.
    """
    flags = identity["engine"]
    if flags["name"] == VLLMEngine.name:
        return _open_vllm(flags, spec)
    if flags["name"] != HFEngine.name:
        raise ImmunobenchError(f"the cell cannot be checked here: there is no engine '{flags['name']}'.")
    subject = load_subject(spec, flags["device"], flags["dtype"])
    return HFEngine(subject, flags["batch_tokens"], flags.get("instead_of", ""))


def _open_vllm(flags: Mapping[str, Any], spec: str) -> Engine:
    if installed_version() is None:
        raise ImmunobenchError(
            f"the cell cannot be checked here: it was run on vllm {flags['version']}, which is not installed "
            "(pip install 'immunobench[vllm]')."
        )
    settings = from_flags(flags)
    engine, _ = Opener("vllm", settings).open(load_subject(spec, flags["device"], flags["dtype"]))
    return engine


def task_of(identity: Identity, exposed: str | None) -> Task:
    """What a cell's identity says was run. Raises ImmunobenchError for a domain or attack that is not here."""
    return Task(
        adversary=adversary_of(identity["adversary"]),
        seed=identity["seed"],
        domain=load_domain(identity["domain"]["name"]),
        sampling=Sampling(**identity["sampling"]),
        exposed=exposed,
    )


def adversary_of(identity: Identity) -> Adversary:
    """The row of the protocol with that name, the winner of a search as it was found, or the user's own attack.

    Raises UsageError where none of them is here.
    """
    if "search" in identity:
        return adversary_from(identity, "adaptive", "adaptive search")
    return ADVERSARIES.get(identity["name"]) or user_adversary(identity["attack"])


def reproduce(cell: Cell, items: pa.Table, engine: Engine, exposed: str | None, known: Known) -> Reproduction:
    """Run ``cell`` again on ``engine`` and compare it with its stored ``items``, measure by measure.

    Nothing is run where the identity would not be the stored one: another model or another adversary *differs*,
    another engine or version *cannot be checked*. Neither can one whose engine does not start, or fails its canary.
    """
    try:
        task = task_of(cell.identity, exposed)
        here = task.identity(engine)
    except ImmunobenchError as error:
        return Reproduction(cell.cell_id, "cannot be checked", str(error))
    except (KeyError, TypeError, AttributeError) as error:
        return Reproduction(cell.cell_id, "cannot be checked", f"its identity does not read: {error}")
    if found := list(changes(cell.identity, here)):
        other = [change for change in found if change.path.split(".")[0] in ("subject", "exposed", "adversary")]
        return Reproduction(cell.cell_id, "differs" if other else "cannot be checked", str((other or found)[0]))
    try:
        again, again_items, _ = execute(task, engine, known)
    except ImmunobenchError as error:
        return Reproduction(cell.cell_id, "cannot be checked", str(error))
    if again.error:
        return Reproduction(cell.cell_id, "differs", f"it fails here: {again.error.message}")
    if amiss := next((p.parity["reason"] for p in again.points if p.parity and not p.parity["passed"]), ""):
        return Reproduction(cell.cell_id, "cannot be checked", f"{engine.name} does not serve the model here: {amiss}")
    if [_place(p) for p in again.points] != [_place(p) for p in cell.points]:
        return Reproduction(cell.cell_id, "differs", "its checkpoints are not those of the attack")
    measures = compare_items(items, again_items)
    if not measures:
        return Reproduction(cell.cell_id, "differs", "its items are not those that are measured")
    return Reproduction(cell.cell_id, *_judge(measures), measures)


def compare_items(stored: pa.Table, again: pa.Table) -> list[MeasureDifference] | None:
    """Each measure at the checkpoint where its items differ most; None where the items are not the same ones."""
    first, second = _values(stored), _values(again)
    if first is None or second is None or first.keys() != second.keys():
        return None
    worst: dict[tuple[str, str], MeasureDifference] = {}
    for (point, probe, measure), values in first.items():
        others = second[point, probe, measure]
        if values.keys() != others.keys():
            return None
        one = np.array(list(values.values()))
        other = np.array([others[item] for item in values])
        with np.errstate(invalid="ignore"):
            apart = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.abs(one - other))
        difference = float(np.where(np.isnan(apart), np.inf, apart).mean())
        row = MeasureDifference(probe, measure, len(one), float(one.mean()), float(other.mean()), difference)
        known = worst.get((probe, measure))
        if known is None or row.difference > known.difference:
            worst[probe, measure] = row
    return [worst[key] for key in sorted(worst)]


def _values(items: pa.Table) -> dict[tuple[int, str, str], dict[str, float]] | None:
    """Values by item of each (point, probe, measure); None where an item comes twice."""
    found: dict[tuple[int, str, str], dict[str, float]] = {}
    columns = [items[name].to_pylist() for name in ("point", "probe", "measure", "item", "value")]
    for point, probe, measure, item, value in zip(*columns, strict=True):
        found.setdefault((point, probe, measure), {})[item] = value
    return found if sum(map(len, found.values())) == items.num_rows else None


def _judge(measures: Sequence[MeasureDifference]) -> tuple[State, str]:
    worst = max(measures, key=lambda row: row.difference)
    if worst.difference == 0:
        return "same", "every value, to the last bit"
    where = f"{worst.probe} {worst.measure} by {worst.difference:.2g} an item"
    if worst.difference <= TOLERANCE:
        return "within tolerance", f"most in {where}"
    return "differs", f"most in {where}"


def _place(point: Any) -> tuple[Any, ...]:
    return point.index, point.variant, point.steps, point.examples, point.tokens, point.artifact, point.last
