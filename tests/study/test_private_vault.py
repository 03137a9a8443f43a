"""A study on a private vault, given as a folder."""

from pathlib import Path

from immunobench.dataset_builders.vault import build_private_vault
from immunobench.domains import load_domain
from immunobench.engines.hf import HFEngine
from immunobench.study.run import Request, run_study
from immunobench.study.store import Store
from immunobench.subjects import load_subject
from tests.conftest import Silent


def test_a_study_runs_on_a_private_vault(model_folders: dict[str, Path], tmp_path: Path) -> None:
    build_private_vault(11, tmp_path / "vault")
    name = f"{tmp_path / 'vault'}/32"
    asked = Request([str(model_folders["subject"])], "smoke", ("none",), domain=name, max_new_tokens=4)
    store = Store(tmp_path / "study")
    _, record = run_study(asked, store, lambda spec: HFEngine(load_subject(spec)), Silent())
    private = load_domain(name)
    assert record["subjects"][0]["domain"]["fingerprint"] == private.fingerprint != load_domain("vault/32").fingerprint
    (cell,) = (c for c in record["cells"] if c["model"].endswith("subject"))
    asked_for = set(store.transcripts(cell["cell_ids"][0])["request"].to_pylist())
    assert asked_for == {request.prompt for request in private.requests_v}
