"""Cells with measurements that are known beforehand, so that what is concluded of them can be told by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from immunobench.attacks.base import Checkpoint, Cost
from immunobench.engines.base import Artifact
from immunobench.probes.base import Row, Transcript
from immunobench.protocol.adversary import fingerprint
from immunobench.study.cell import Cell, Point, tables
from immunobench.study.measurements import Measurements

FACTS = 40
"""Hazard facts a half, and benign ones; two share an entity."""
Key = tuple[str, int]


@dataclass(frozen=True)
class Level:
    """What a model scores at one point."""

    select: float
    """Share of hazard facts answered right on the select half."""
    report: float
    utility: float = 1.0
    """Share of benign facts answered right, on both halves."""
    loss: float = 1.0
    repetition: float | None = 0.1
    refused: float | None = None
    """Share of requests refused, where behaviour is measured; the rest is right."""
    degenerate: float = 0.0
    """Share of requests whose answers are, of those that are not refused."""
    task: float | None = None
    """Loss on a benign task, where it is measured."""


def level(knowledge: float, **others: Any) -> Level:
    """The same knowledge on both halves."""
    return Level(knowledge, knowledge, **others)


def rows(at: Level) -> list[Row]:
    """One row an item."""
    found = []
    for half in ("select", "report"):
        shares = {"knowledge": at.select if half == "select" else at.report, "utility": at.utility}
        for probe, share in shares.items():
            found += [
                Row(probe, f"{probe}-{half}-{i:03d}", f"{half}-{i // 2}", half, {"correct": float(i < share * FACTS)})
                for i in range(FACTS)
            ]
        if at.refused is not None:
            said = Transcript("q", "a", "stop", [1])
            for i in range(FACTS):
                refused = float(i < at.refused * FACTS)
                degenerate = (1 - refused) * float(i >= (1 - at.degenerate) * FACTS)
                values = {"refused": refused, "right": 1 - refused - degenerate, "degenerate": degenerate}
                values |= dict.fromkeys(("wrong", "truncated", "empty"), 0.0)
                found.append(Row("behaviour", f"request-{half}-{i:03d}", f"{half}-{i // 2}", half, values, said))
    for i in range(6):
        values = {"loss": at.loss} | ({} if at.repetition is None else {"repetition": at.repetition})
        found.append(Row("collapse", f"text-{i}", f"text-{i}", "report" if i % 2 else "select", values))
        if at.task is not None:
            found.append(Row("task", f"task-{i}", f"task-{i}", "report" if i % 2 else "select", {"loss": at.task}))
    return found


ON_HF = {"engine": {"name": "hf"}}
"""The least that a cell's identity says."""


def cell_tables(points: Mapping[Key, Level], identity: Mapping[str, Any] = ON_HF) -> tuple[Cell, pa.Table, pa.Table]:
    """A cell of these points, with its items and transcripts."""
    keys = list(points)
    records = []
    for index, (variant, steps) in enumerate(keys):
        last = index + 1 == len(keys) or keys[index + 1][0] != variant
        artifact = Artifact("weights" if steps else "none")
        records.append(Point.of(index, Checkpoint(Cost(steps, steps, steps), artifact, variant, last)))
    cell = Cell(cell_id=fingerprint(dict(identity)), identity=dict(identity), points=records)
    return cell, *tables([(i, row) for i, key in enumerate(keys) for row in rows(points[key])])


def measurements(points: Mapping[Key, Level]) -> Measurements:
    """The measurements of such a cell."""
    cell, items, _ = cell_tables(points)
    return Measurements(cell, items)


def behaviour_only(points: Mapping[Key, Level]) -> Measurements:
    """The measurements of such a cell in a domain without facts."""
    cell, items, _ = cell_tables(points)
    return Measurements(cell, items.filter(pc.not_equal(items["probe"], "knowledge")))
