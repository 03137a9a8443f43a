"""A stored cell run again: what is the same, what is near enough, what is another cell."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.study import reproduce as reproducing
from immunobench.study.cell import ITEMS
from immunobench.study.reproduce import TOLERANCE, compare_items, find_cell, open_as, reproduce


def cell_of(root: Path, adversary: str, model: str) -> Path:
    """The folder of one cell of a study."""
    entries = json.loads((root / "study.json").read_text())["cells"]
    ids = (e["cell_ids"][0] for e in entries if e["adversary"] == adversary and Path(e["model"]).name == model)
    return root / next(ids)


def items(values: dict[str, float], point: int = 0) -> pa.Table:
    """Items of one measure."""
    rows = [
        {"point": point, "probe": "knowledge", "item": item, "measure": "correct", "value": value}
        for item, value in values.items()
    ]
    return pa.Table.from_pylist(rows, schema=ITEMS)


def test_a_cell_is_reproduced_to_the_last_bit(finished_study: Path) -> None:
    store, cell, model, exposed = find_cell(cell_of(finished_study, "quantise", "subject"))
    assert model and exposed
    engine = open_as(cell.identity, model)
    found = reproduce(cell, store.items(cell.cell_id), engine, exposed, {})
    assert (found.state, found.finding) == ("same", "every value, to the last bit")
    assert {(m.probe, m.measure) for m in found.measures} >= {("knowledge", "correct"), ("behaviour", "refused")}
    stored = store.items(cell.cell_id)
    flipped = stored.set_column(6, "value", pa.array([1 - v for v in stored["value"].to_pylist()]))
    again = reproduce(cell, flipped, engine, exposed, {})
    assert again.state == "differs" and "an item" in again.finding
    fewer = cell.model_copy(update={"points": cell.points[:-1]})
    assert reproduce(fewer, stored, engine, exposed, {}).finding == "its checkpoints are not those of the attack"


def test_another_model_differs_and_another_engine_cannot_be_checked(
    finished_study: Path, model_folders: dict[str, Path]
) -> None:
    store, cell, model, exposed = find_cell(cell_of(finished_study, "none", "subject"))
    stored = store.items(cell.cell_id)
    other = reproduce(cell, stored, open_as(cell.identity, str(model_folders["never"])), exposed, {})
    assert other.state == "differs" and other.finding.startswith("subject.weights_sha256")
    engine = open_as({**cell.identity, "engine": {**cell.identity["engine"], "batch_tokens": 64}}, str(model))
    assert reproduce(cell, stored, engine, exposed, {}).finding.startswith("engine.batch_tokens is 64")
    elsewhere = {**cell.identity, "domain": {**cell.identity["domain"], "name": "nowhere"}}
    moved = cell.model_copy(update={"identity": elsewhere})
    assert reproduce(moved, stored, engine, exposed, {}).state == "cannot be checked"
    with pytest.raises(ImmunobenchError, match="there is no engine 'abacus'"):
        open_as({**cell.identity, "engine": {"name": "abacus", "device": "cpu", "dtype": "float32"}}, str(model))


def test_a_cell_of_vllm_cannot_be_checked_where_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproducing, "installed_version", lambda: None)
    with pytest.raises(ImmunobenchError, match=r"cannot be checked here: it was run on vllm 0\.32\.0, which is"):
        open_as({"engine": {"name": "vllm", "version": "0.32.0", "device": "cpu", "dtype": "float32"}}, "any")


class Off(HFEngine):
    """Does not start."""

    def start(self) -> None:
        """Fail."""
        raise ImmunobenchError("it does not start.")


class Garbled(HFEngine):
    """Fails its canary."""

    parity = {"passed": False, "reason": "it is another model"}  # noqa: RUF012


@pytest.mark.parametrize(("kind", "why"), [(Off, "does not start"), (Garbled, "does not serve the model here: it is")])
def test_an_engine_that_does_not_serve_checks_nothing(finished_study: Path, kind: type[HFEngine], why: str) -> None:
    store, cell, model, exposed = find_cell(cell_of(finished_study, "none", "subject"))
    engine = kind(open_as(cell.identity, str(model)).subject)
    found = reproduce(cell, store.items(cell.cell_id), engine, exposed, {})
    assert found.state == "cannot be checked" and why in found.finding


def test_what_is_no_cell(finished_study: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no cell"):
        find_cell(finished_study)
    lone = shutil.copytree(cell_of(finished_study, "none", "subject"), tmp_path / "runs" / "x")
    with pytest.raises(ImmunobenchError, match="does not match its identity"):
        find_cell(lone)
    named = lone.rename(tmp_path / "runs" / json.loads((lone / "cell.json").read_text())["cell_id"])
    assert find_cell(named)[2:] == (None, None), "without a study nobody says which model it was"


def test_differences_are_taken_item_by_item_at_the_worst_checkpoint() -> None:
    one, other = items({"a": 1, "b": 0}), items({"b": 1, "a": 0})
    [row] = compare_items(one, other) or []
    assert (row.stored, row.again, row.difference) == (0.5, 0.5, 1.0), "equal means, and every item differs"
    two = pa.concat_tables([one, items({"a": 1, "b": 1}, point=1)])
    [row] = compare_items(two, pa.concat_tables([one, items({"a": 1, "b": 1 - TOLERANCE}, point=1)])) or []
    assert row.difference == pytest.approx(TOLERANCE / 2)
    nan = items({"a": float("nan"), "b": float("inf")})
    [row] = compare_items(nan, nan) or []
    assert row.difference == 0
    [row] = compare_items(nan, one) or []
    assert row.difference == float("inf")


def test_items_that_are_not_the_same_ones() -> None:
    one = items({"a": 1, "b": 0})
    assert compare_items(one, items({"a": 1})) is None
    assert compare_items(one, items({"a": 1, "b": 0}, point=1)) is None
    assert compare_items(pa.concat_tables([one, one]), one) is None
