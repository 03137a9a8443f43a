"""The table of the attacks' page, from records whose outcomes are known."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("build_attacks")


def record(organism: str, truth: str, **outcomes: tuple[str, str, float | None]) -> dict[str, Any]:
    rows = [
        {"name": name, "family": family, "outcome": outcome, "recovery": None if r is None else {"value": r}}
        for name, (family, outcome, r) in outcomes.items()
    ]
    return {"organism": organism, "truth": truth, "adversaries": rows}


RECORDS = [
    record(
        "one",
        "locked",
        gcg=("prompt", "broken", 0.9),
        noise=("weights", "resisted", 0.1),
        tune=("training", "broken", 1.0),
        lens=("activations", "invalid", None),
    ),
    record(
        "two",
        "locked",
        gcg=("prompt", "resisted", 0.2),
        noise=("weights", "resisted", 0.3),
        tune=("training", "broken", 0.7),
    ),
    record("open", "exposed", noise=("weights", "broken", 1.0)),
]


def test_only_locked_organisms_count_and_what_breaks_nothing_is_named(builder: Any, tmp_path: Path) -> None:
    (tmp_path / "calibration").mkdir()
    for each in RECORDS:
        (tmp_path / "calibration" / f"{each['organism']}.json").write_text(json.dumps(each))
    page = tmp_path / "attacks.md"
    page.write_text(f"before\n{builder.BEGIN}old\n{builder.END}after\n")
    builder.main(tmp_path)
    builder.main(tmp_path)
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    assert "| `gcg` | prompt | 1 | 0.90 (one) | none |" in lines
    assert "| `tune` | training | 2 | 1.00 (one) | two |" in lines
    assert "| `noise` | weights | 0 | 0.30 (two) | none |" in lines
    assert "| `lens` | activations | 0 | none | none |" in lines
    assert any(line.endswith("break none of these organisms: `noise`, `lens`.") for line in lines)


def test_without_records_it_says_what_to_run(builder: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="build_calibration"):
        builder.main(tmp_path)


def test_the_page_has_the_marks(builder: Any) -> None:
    page = (ROOT / "docs" / "attacks.md").read_text()
    assert page.count(builder.BEGIN) == page.count(builder.END) == 1
