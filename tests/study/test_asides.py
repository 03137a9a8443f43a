"""What stands beside R, from made-up cells whose figures are known."""

from dataclasses import replace

import pyarrow as pa
import pytest

from immunobench.attacks.base import Checkpoint, Cost
from immunobench.engines.base import Artifact
from immunobench.probes.base import Row
from immunobench.protocol.v1 import ADVERSARIES
from immunobench.report.sentences import asides as told
from immunobench.study.asides import asides
from immunobench.study.cell import Cell, Point, tables
from immunobench.study.evidence import Trio
from immunobench.study.measurements import Measurements
from immunobench.study.score import score
from tests.study.synthetic import FACTS, ON_HF, Level, level, measurements, rows

BEFORE = {("", 0): level(0.25, refused=1.0)}
KNOWS, NOTHING = level(1.0), level(0.25)


def with_measures(at: Level, probe: str, **shares: float) -> Measurements:
    """A cell of one point whose rows of ``probe`` hold further measures, 1 in these shares of each half."""
    found: list[Row] = []
    for row in rows(at):
        if row.probe == probe:
            number = int(row.item[-3:])
            row = replace(row, values={**row.values, **{n: float(number < s * FACTS) for n, s in shares.items()}})
        found.append(row)
    point = Point.of(0, Checkpoint(Cost(), Artifact(), "n=5", True))
    cell = Cell(cell_id="0", identity=dict(ON_HF), points=[point])
    items, _ = tables([(0, row) for row in found])
    assert isinstance(items, pa.Table)
    return Measurements(cell, items)


def flat(keys: list[tuple[str, int]], at: Level) -> Measurements:
    return measurements(dict.fromkeys(keys, at))


def one_point(subject: Measurements) -> Trio:
    keys = [("n=5", 0)]
    before, exposed_before = measurements(BEFORE), measurements({("", 0): level(1.0, refused=0.0)})
    return Trio([subject], [flat(keys, NOTHING)], [flat(keys, KNOWS)], [before], [exposed_before])


def test_any_of_n_is_told_apart_from_the_mean() -> None:
    subject = with_measures(level(0.25, refused=0.9), "behaviour", right_any=0.6)
    found = asides(ADVERSARIES["sampling"], one_point(subject), ("n=5", 0))
    assert list(found) == ["any of n right"]
    assert found["any of n right"].value == pytest.approx(0.6)
    scored = score(ADVERSARIES["sampling"], one_point(subject))
    assert scored.behaviour["right"].value == pytest.approx(0.1)
    assert told(scored).startswith("any of n right 0.60 [")


def test_one_answer_has_nothing_apart() -> None:
    subject = with_measures(level(0.25, refused=0.9), "behaviour", right_any=0.1)
    # ``refused`` falls on the first requests and right on the last, so the same share stands elsewhere.
    assert asides(ADVERSARIES["none"], one_point(subject), ("n=5", 0)) == {}


def test_the_probe_on_shuffled_labels_is_reported() -> None:
    subject = with_measures(level(0.75), "knowledge", correct_shuffled=0.25)
    found = asides(ADVERSARIES["linear-probe"], one_point(subject), ("n=5", 0))
    assert found["shuffled labels"].value == pytest.approx(0.25)


def test_the_middle_of_the_searches_stands_beside_the_worst() -> None:
    """Each search counts at its own worst step; the middle one is so on the select half and reported on the other."""
    points = {
        ("candidate=0", 0): level(0.25),
        ("candidate=0", 5): Level(1.0, 0.95),
        ("candidate=1", 0): level(0.25),
        ("candidate=1", 5): Level(0.25, 0.9),
        ("candidate=2", 0): Level(0.5, 0.55),
        ("candidate=2", 5): level(0.25),
    }
    keys = list(points)
    trio = Trio(
        [measurements(points)],
        [flat(keys, NOTHING)],
        [flat(keys, KNOWS)],
        [measurements(BEFORE)],
        [measurements({("", 0): level(1.0, refused=0.0)})],
    )
    found = score(ADVERSARIES["gcg"], trio)
    assert found.recovery is not None and found.recovery.value == pytest.approx((0.95 - 0.25) / 0.75, abs=0.02)
    assert found.asides["median R of 3 searches"].value == pytest.approx((0.55 - 0.25) / 0.75, abs=0.02)
    assert score(ADVERSARIES["t-facts"], trio).asides == {}
