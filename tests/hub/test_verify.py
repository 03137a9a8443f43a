"""Verification: what was not touched passes, and every way of touching a result is caught."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError
from immunobench.hub.publication import write_publication
from immunobench.hub.submit import prepare, send
from immunobench.hub.verify import Verification, verify
from immunobench.protocol.adversary import fingerprint
from immunobench.study.cell import Cell
from immunobench.study.request import Request
from immunobench.study.reread import load_study, reread
from immunobench.study.run import run_study
from immunobench.study.store import Store, write_json
from immunobench.subjects import load_subject
from tests.conftest import Silent
from tests.hub.conftest import MODEL, Hub, change_record, push_model, upload
from tests.study.test_reproduce import cell_of

EVERYTHING = 9
"""Cells of the finished study: three adversaries against three models."""


def found_in(verification: Verification) -> list[str]:
    """What differs."""
    cells = [f"{c.adversary}: {c.finding}" for c in verification.cells if "differs" in (c.stored, c.again)]
    return cells + [f"{c.what}: {c.finding}" for c in verification.checks if c.state == "differs"]


Parts = tuple[Cell, pa.Table, pa.Table]
Change = Callable[[Cell, pa.Table, pa.Table], Parts]


def forge(root: Path, folder: Path, change: Change) -> None:
    """Change a cell and make every hash of it and of the record fit again, as a careful forger would."""
    store = Store(root)
    cell = store.read(folder.name)
    assert cell is not None
    changed, items, transcripts = change(cell, store.items(folder.name), store.transcripts(folder.name))
    changed = changed.model_copy(update={"cell_id": fingerprint(changed.identity)})
    shutil.rmtree(folder)
    store.write(changed, items, transcripts)

    def rename(record: dict[str, Any]) -> None:
        for entry in record["cells"]:
            entry["cell_ids"] = [changed.cell_id if one == folder.name else one for one in entry["cell_ids"]]

    change_record(root, rename)


def rescore(root: Path) -> None:
    """Make the record say what the changed cells say."""
    write_json(root / "study.json", reread(root)[1])


def raised(items: pa.Table, probe: str, measure: str, to: float) -> pa.Table:
    """``items`` with every value of a measure set to ``to``."""
    rows = items.to_pylist()
    for row in rows:
        if (row["probe"], row["measure"]) == (probe, measure):
            row["value"] = to
    return pa.Table.from_pylist(rows, schema=items.schema)


@pytest.fixture
def study(finished_study: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return shutil.copytree(finished_study, tmp_path / "tampered")


def test_an_honest_study_passes_and_all_of_it_runs_again(finished_study: Path) -> None:
    found = verify(str(finished_study), sample=EVERYTHING)
    assert not found.differs
    assert {(cell.stored, cell.again) for cell in found.cells} == {("same", "same")} and len(found.cells) == EVERYTHING
    assert {check.state for check in found.checks} == {"same"} and len(found.checks) > 5
    assert found.checked and found.counts["run again"] == {"same": EVERYTHING}


def test_a_changed_value_is_caught_by_its_hash(study: Path) -> None:
    folder = cell_of(study, "prefill", "subject")
    table = Store(study).items(folder.name)
    other = Store(study.parent / "other")
    cell = Store(study).read(folder.name)
    assert cell is not None
    other.write(cell, raised(table, "knowledge", "correct", 0.0), Store(study).transcripts(folder.name))
    shutil.copy(other.root / folder.name / "items.parquet", folder / "items.parquet")
    found = verify(str(study), sample=0)
    assert found_in(found) == ["prefill: items.parquet does not match its hash"]
    assert [check.state for check in found.checks] == ["cannot be checked"]


def test_a_changed_value_with_new_hashes_is_caught_by_the_scores(study: Path) -> None:
    folder = cell_of(study, "prefill", "subject")
    forge(study, folder, lambda c, i, t: (c, raised(i, "knowledge", "correct", 1.0), t))
    found = found_in(verify(str(study), sample=0))
    assert any("prefill: computed again, knowledge" in one for one in found)


def test_a_changed_value_with_new_scores_is_caught_by_running_it_again(study: Path) -> None:
    folder = cell_of(study, "prefill", "subject")
    forge(study, folder, lambda c, i, t: (c, raised(i, "knowledge", "correct", 1.0), t))
    rescore(study)
    assert found_in(verify(str(study), sample=0)) == []
    [caught] = found_in(verify(str(study), sample=EVERYTHING))
    assert caught.startswith("prefill: most in knowledge correct")


def test_a_changed_behaviour_is_caught_by_the_answers(study: Path) -> None:
    folder = cell_of(study, "none", "subject")

    def refuse(cell: Cell, items: pa.Table, answers: pa.Table) -> Parts:
        for measure in ("right", "wrong", "degenerate", "empty"):
            items = raised(items, "behaviour", measure, 0.0)
        return cell, raised(items, "behaviour", "refused", 1.0), answers

    forge(study, folder, refuse)
    rescore(study)
    assert any("which its measures deny" in one for one in found_in(verify(str(study), sample=0)))


def test_items_swapped_between_cells(study: Path) -> None:
    """By copying files, and by writing them anew with fitting hashes."""
    one, other = cell_of(study, "none", "subject"), cell_of(study, "none", "exposed")
    tables = [Store(study).items(folder.name) for folder in (one, other)]
    held = (one / "items.parquet").read_bytes()
    shutil.copy(other / "items.parquet", one / "items.parquet")
    (other / "items.parquet").write_bytes(held)
    assert len(found_in(verify(str(study), sample=0))) == 2
    (other / "items.parquet").write_bytes((one / "items.parquet").read_bytes())
    (one / "items.parquet").write_bytes(held)
    forge(study, one, lambda c, i, t: (c, tables[1], t))
    forge(study, other, lambda c, i, t: (c, tables[0], t))
    rescore(study)
    assert len([one for one in found_in(verify(str(study), sample=EVERYTHING)) if one.startswith("none: ")]) == 2


@pytest.mark.parametrize(
    ("column", "values", "why"),
    [
        ("item", {"hazard-v-000": "x"}, "is not of the domain's items"),
        ("half", {"select": "report"}, "is not of the domain's items"),
        ("cluster", {}, "is not of the domain's items"),
    ],
)
def test_items_that_are_not_the_domain_s(study: Path, column: str, values: dict[str, str], why: str) -> None:
    def change(cell: Cell, items: pa.Table, answers: pa.Table) -> Parts:
        rows = items.to_pylist()
        first = next(row for row in rows if row["probe"] == "knowledge")
        first[column] = values.get(first[column], "other")
        return cell, pa.Table.from_pylist(rows, schema=items.schema), answers

    forge(study, cell_of(study, "prefill", "subject"), change)
    assert why in found_in(verify(str(study), sample=0))[0]


def test_items_that_were_dropped(study: Path) -> None:
    """A bad half of the items left out, or a whole probe."""
    folder = cell_of(study, "prefill", "subject")

    def drop(cell: Cell, items: pa.Table, answers: pa.Table) -> Parts:
        kept = [r for r in items.to_pylist() if r["probe"] != "knowledge" or r["value"] != 1.0]
        return cell, pa.Table.from_pylist(kept, schema=items.schema), answers

    forge(study, folder, drop)
    assert "is not of the domain's items" in found_in(verify(str(study), sample=0))[0]

    def drop_all(cell: Cell, items: pa.Table, answers: pa.Table) -> Parts:
        kept = [r for r in items.to_pylist() if r["probe"] != "knowledge"]
        return cell, pa.Table.from_pylist(kept, schema=items.schema), answers

    forge(study, folder, drop_all)
    assert "knowledge at checkpoint 0 is missing" in found_in(verify(str(study), sample=0))[0]


def edit(path: str, value: Any) -> Change:
    """Sets one field of a cell's identity."""

    def change(cell: Cell, items: pa.Table, answers: pa.Table) -> Parts:
        identity = cell.model_copy(deep=True).identity
        *outer, last = path.split(".")
        place = identity
        for key in outer:
            place = place[key]
        place[last] = value
        return cell.model_copy(update={"identity": identity}), items, answers

    return change


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("subject.weights_sha256", "0" * 64, "another model than other cells"),
        ("domain.fingerprint", "0" * 64, "has the fingerprint that it names"),
        ("adversary.settings.text", "No.", "is not the protocol's"),
        ("adversary.name", "none", "it is recorded under adversary prefill and is of none"),
    ],
)
def test_an_edited_identity_with_a_fitting_id(study: Path, path: str, value: str, why: str) -> None:
    forge(study, cell_of(study, "prefill", "subject"), edit(path, value))
    assert any(why in one for one in found_in(verify(str(study), sample=0)))


def test_an_edited_identity_under_the_old_id(study: Path) -> None:
    file = cell_of(study, "prefill", "subject") / "cell.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 7'))
    assert found_in(verify(str(study), sample=0)) == ["prefill: cell.json does not match its identity"]


def test_all_weights_of_a_model_edited_alike(study: Path) -> None:
    """Nothing within the study tells; the model that it names does."""
    for adversary in ("none", "prefill", "quantise"):
        forge(study, cell_of(study, adversary, "subject"), edit("subject.weights_sha256", "0" * 64))
    assert found_in(verify(str(study), sample=0)) == []
    assert len(found_in(verify(str(study), sample=EVERYTHING))) == 3


def test_a_record_that_points_at_the_cells_of_another_model(study: Path) -> None:
    def swap(record: dict[str, Any]) -> None:
        by_name = {(Path(e["model"]).name, e["adversary"]): e for e in record["cells"]}
        subject, never = by_name["subject", "prefill"], by_name["never", "prefill"]
        subject["cell_ids"], never["cell_ids"] = never["cell_ids"], subject["cell_ids"]

    change_record(study, swap)
    assert len([one for one in found_in(verify(str(study), sample=0)) if "another model than other cells" in one]) >= 2


def test_a_missing_cell_and_an_edited_verdict(study: Path) -> None:
    change_record(study, lambda record: record["subjects"][0]["result"]["verdict"].update(name="held"))
    [caught] = found_in(verify(str(study), sample=0))
    assert "verdict: computed again, name is" in caught
    shutil.rmtree(cell_of(study, "prefill", "subject"))
    assert found_in(verify(str(study), sample=0)) == ["prefill: it is missing"]


def without_prefill(record: dict[str, Any]) -> None:
    """An adversary that was run, and is not to be seen."""
    record["adversaries"].pop("prefill", None)
    record["cells"] = [entry for entry in record["cells"] if entry["adversary"] != "prefill"]


def test_an_adversary_that_was_left_out_of_a_study_of_one_s_own(study: Path) -> None:
    change_record(study, without_prefill)
    rescore(study)
    [caught] = found_in(verify(str(study), sample=0))
    assert caught.endswith("adversaries: prefill was asked for and is not in the record")


def test_cells_that_were_left_out_of_a_study_of_one_s_own(study: Path) -> None:
    def cut(record: dict[str, Any]) -> None:
        record["cells"] = [
            e for e in record["cells"] if (Path(e["model"]).name, e["adversary"]) != ("never", "prefill")
        ]

    change_record(study, cut)
    rescore(study)
    [caught] = found_in(verify(str(study), sample=0))
    assert "adversaries: prefill against " in caught and caught.endswith("never has 0 of 1 seeds")


def test_an_adversary_that_was_left_out_of_a_publication(hub: Hub, whole_study: Path, tmp_path: Path) -> None:
    """With everything computed and written again, as a careful forger would."""
    change_record(whole_study, lambda record: (without_prefill(record), record["request"].update(only=[])))
    rescore(whole_study)
    out = tmp_path / "publication"
    subject = load_study(whole_study)[2]["subjects"][0]["subject"]
    head = hub.store.sha("models", MODEL, "main")
    write_publication(whole_study, subject, f"{MODEL}@{head}", out, with_transcripts=False)
    upload(hub.api, MODEL, {f"immunobench/{p.relative_to(out)}": p.read_bytes() for p in out.rglob("*.*")})
    caught = [one for one in found_in(verify(MODEL, sample=0, api=hub.api)) if "tier: " in one]
    assert len(caught) == 1 and f"prefill against {MODEL}@{head} has 0 of 1 seeds" in caught[0]


def test_a_record_of_another_shape_is_one_sentence(hub: Hub, whole_study: Path, study: Path) -> None:
    change_record(study, lambda record: record["subjects"][0].update(domain="vault"))
    with pytest.raises(ImmunobenchError, match=r"subjects\.0\.domain"):
        verify(str(study), sample=0)
    cell = json.loads((cell_of(whole_study, "prefill", "subject") / "cell.json").read_text())
    files = prepare(whole_study, MODEL, api=hub.api).files
    [name] = [path for path in files if path.endswith(f"{cell['cell_id']}/cell.json")]
    identity = {**cell["identity"], "adversary": "prefill"}
    forged = Cell.model_validate({**cell, "identity": identity, "cell_id": fingerprint(identity)})
    forged.sha256 = forged.content_sha256()
    upload(hub.api, MODEL, {**files, name: forged.model_dump_json().encode()})
    assert any("does not match its identity" in one for one in found_in(verify(MODEL, sample=0, api=hub.api)))


def test_another_version_cannot_be_checked(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immunobench.hub.stored.VERSION", "9")
    found = verify(str(study), sample=0)
    assert {cell.stored for cell in found.cells} == {"cannot be checked"} and not found.differs
    assert found.cells[0].finding == "protocol 1, and known here is 9" and not found.checked


def test_a_published_study_before_and_after_it_is_merged(hub: Hub, whole_study: Path) -> None:
    send(prepare(whole_study, MODEL, api=hub.stranger), hub.stranger)
    proposed = verify(f"{MODEL}@refs/pr/1", sample=3, seed=0, api=hub.api)
    hub.api.merge_pull_request(MODEL, 1)
    merged = verify(MODEL, sample=3, seed=0, api=hub.api)
    for found in (proposed, merged):
        assert found_in(found) == []
        again = {cell.model: cell.again for cell in found.cells if cell.again}
        assert [cell.again for cell in found.cells].count("same") == 3, "the subject's cells alone can be run"
        assert all(state == "cannot be checked" for model, state in again.items() if "#" in model)
        whats = {check.what.partition(":")[0].partition("@")[0] for check in found.checks}
        assert whats >= {".eval_results/immunobench.yaml", "card section", "model-index", f"weights of {MODEL}"}


def test_a_card_or_results_that_say_something_else(hub: Hub, whole_study: Path) -> None:
    send(prepare(whole_study, MODEL, api=hub.api), hub.api)
    hub.api.merge_pull_request(MODEL, 1)
    for path, old, new in (
        ("README.md", "**inconclusive**", "**held**"),
        ("README.md", "- type: knowledge\n      value: ", "- type: knowledge\n      value: 9"),
        (".eval_results/immunobench.yaml", "task_id: compliance\n  value: ", "task_id: compliance\n  value: 9"),
    ):
        text = hub.text(path)
        assert old in text, text
        hub.api.upload_file(path_or_fileobj=text.replace(old, new, 1).encode(), path_in_repo=path, repo_id=MODEL)
        assert len(found_in(verify(MODEL, sample=0, api=hub.api))) == 1
        hub.api.upload_file(path_or_fileobj=text.encode(), path_in_repo=path, repo_id=MODEL)


def test_weights_that_were_replaced_after_they_were_measured(
    hub: Hub, whole_study: Path, model_folders: dict[str, Path]
) -> None:
    send(prepare(whole_study, MODEL, api=hub.api), hub.api)
    hub.api.merge_pull_request(MODEL, 1)
    hub.api.upload_folder(repo_id=MODEL, folder_path=model_folders["never"])
    assert any(one.startswith("weights of ") for one in found_in(verify(MODEL, sample=0, api=hub.api)))


def test_results_of_another_repository(hub: Hub, whole_study: Path, model_folders: dict[str, Path]) -> None:
    files = prepare(whole_study, MODEL, api=hub.api).files
    push_model(hub.api, "tester/other", model_folders["subject"])
    upload(hub.api, "tester/other", files)
    found = found_in(verify("tester/other", sample=0, api=hub.api))
    assert any(f"the record is of {MODEL}" in one for one in found)


@pytest.mark.parametrize("where", ["request", "adversaries"])
def test_a_publication_never_makes_its_reader_run_code(hub: Hub, whole_study: Path, tmp_path: Path, where: str) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text("raise SystemExit('the code of a stranger was run')\n")
    path = f"{trap}:Trap"
    change_record(
        whole_study,
        lambda record: (
            record["request"].update(only=[path])
            if where == "request"
            else record["adversaries"]["prefill"].update(attack=path)
        ),
    )
    files = [path for path in whole_study.rglob("*.*") if path.is_file()]
    upload(hub.api, MODEL, {f"immunobench/{path.relative_to(whole_study)}": path.read_bytes() for path in files})
    with pytest.raises(ImmunobenchError, match="it is not read"):
        verify(MODEL, api=hub.api)


def test_an_attack_of_one_s_own_is_run_again_from_its_file(model_folders: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from immunobench.attacks.prefill import Prefill\n\n\nclass Mine(Prefill):\n    pass\n")
    asked = Request([str(model_folders["subject"])], "smoke", ["none", f"{file}:Mine"], max_new_tokens=4)
    root = tmp_path / "study"
    run_study(asked, Store(root), lambda spec: HFEngine(load_subject(spec)), Silent())
    assert not verify(str(root), sample=6).differs
    file.write_text(file.read_text() + "# changed\n")
    assert any("code_sha256" in one for one in found_in(verify(str(root), sample=6)))
