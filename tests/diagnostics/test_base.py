"""Running by name, the JSON form, the files, and that matplotlib waits until a plot is asked for."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from immunobench.diagnostics.base import (
    Diagnosis,
    Finding,
    References,
    all_diagnostics,
    diagnose,
    plain,
    read_record,
    run,
    write,
)
from immunobench.diagnostics.durability import DurabilityDiagnostic
from immunobench.diagnostics.entanglement import EntanglementDiagnostic
from immunobench.diagnostics.g_effect import GEffectDiagnostic
from immunobench.diagnostics.knowledge_location import KnowledgeLocationDiagnostic
from immunobench.diagnostics.plots import DRAWN, draw, save, style
from immunobench.diagnostics.sparsity import SparsityDiagnostic
from immunobench.domains import Domain
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.metrics.estimate import Estimate
from immunobench.subjects import Subject
from tests.study.test_store import disk_of

SMALL = {
    "g-effect": GEffectDiagnostic(examples=2),
    "sparsity": SparsityDiagnostic(
        grid=(0.01, 0.1), spared_weights=(0.1,), spared_ranks=(0.5,), examples=2, items=3, steps=1
    ),
    "entanglement": EntanglementDiagnostic(examples=2, items=3),
    "durability": DurabilityDiagnostic(tasks=("qa",), seeds=1, alignment_steps=1, task_steps=1, items=3),
    "probes": KnowledgeLocationDiagnostic(facts=8),
}


def small(name: str, subject: Subject, domain: Domain, references: References = References()) -> Diagnosis:
    return diagnose(SMALL[name], subject, references, domain, 0, lambda done, of: None)


def test_every_diagnostic_is_known_by_name_and_has_a_plot() -> None:
    assert set(all_diagnostics()) == set(SMALL) == set(DRAWN)
    for diagnostic in all_diagnostics().values():
        assert diagnostic.meaning.startswith("It says ") and "not" in diagnostic.meaning


def test_unknown_names_get_the_nearest(subject: Subject, domain: Domain) -> None:
    with pytest.raises(UsageError, match="did you mean 'g-effect'"):
        run("geffect", subject, References(), domain)


@pytest.mark.parametrize("name", SMALL)
def test_records_and_plots_are_written(
    name: str, subject: Subject, make_subject: Callable[..., Subject], domain: Domain, tmp_path: Path
) -> None:
    diagnosis = small(name, subject, domain, References(make_subject(seed=1)))
    files = write(diagnosis, tmp_path / "out")
    assert [file.name for file in files] == [f"{name}.json", f"{name}.png", f"{name}.pdf"]
    record = json.loads(files[0].read_text())
    assert record == json.loads(json.dumps(diagnosis.as_dict(), allow_nan=False))
    assert record["meaning"] == diagnosis.meaning and record["summary"] and record["peak_memory_mib"] > 0
    assert files[1].read_bytes()[1:4] == b"PNG" and files[2].read_bytes()[:4] == b"%PDF"
    # From the stored record alone, the same bytes again.
    again = save(record, tmp_path / "again", ("png",))
    assert again[0].read_bytes() == files[1].read_bytes()


def test_a_full_disk_leaves_no_half_written_record_or_plot(tmp_path: Path) -> None:
    found = Diagnosis("probes", "subject", "vault", 0, {}, Finding("Nothing.", (), {}), "It says nothing.", 1.0, 1.0)
    for most, written in ((100, []), (1000, ["probes.json"])):
        with disk_of(most), pytest.raises(ImmunobenchError, match=r"cannot write .*probes\.\w+: File too large; free"):
            write(found, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == written
    assert read_record(tmp_path / "probes.json") == found.as_dict()


def test_a_plot_tells_its_series_apart_without_colour(
    subject: Subject, make_subject: Callable[..., Subject], domain: Domain
) -> None:
    references = References(make_subject(seed=1), make_subject(seed=2))
    figure = draw(json.loads(json.dumps(small("probes", subject, domain, references).as_dict())))
    for axes in figure.axes[:2]:
        named = [line for line in axes.lines if line.get_marker() not in ("None", "_", "|", "")]
        looks = {(line.get_marker(), line.get_linestyle()) for line in named}
        assert len(looks) == len(named) == 3
    hatches = {bar.get_hatch() for bar in figure.axes[2].patches}
    assert len(hatches) == 2


def test_no_two_series_look_alike() -> None:
    looks = [(style(i)["color"], style(i)["marker"]) for i in range(40)]
    assert len(set(looks)) == len(looks)


def test_a_finding_without_tables_is_drawn_as_its_summary(subject: Subject, domain: Domain) -> None:
    diagnosis = small("sparsity", subject, domain)
    texts = [text.get_text() for text in draw(diagnosis.as_dict()).texts]
    assert any("no guardrail" in text for text in texts)


def test_estimates_and_odd_numbers_become_json() -> None:
    value = plain({"a": (Estimate.undefined(0, "none"), float("nan"), 1, "x", None), 2: [float("inf")]})
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["2"] == [None] and value["a"][0]["value"] is None


def test_matplotlib_waits() -> None:
    code = "import sys, immunobench.diagnostics.base as b; b.all_diagnostics(); sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
