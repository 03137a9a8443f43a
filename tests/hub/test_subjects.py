"""Subjects from the Hub: the revision that was asked for, and the same history with weights and without."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from immunobench.errors import ImmunobenchError, UsageError
from immunobench.study.run import Request, find_trials
from immunobench.subjects import History, find_history, load_subject
from tests.conftest import same_bits, weights
from tests.hub.conftest import MODEL, OWNER, Hub, push_model, upload


@pytest.fixture
def default_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub as the one that is asked where none is named."""
    files = f"{hub.api.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.api.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setenv("HF_TOKEN", OWNER)
    yield hub


def write_history(hub: Hub, **fields: object) -> None:
    """Commit another history to main."""
    upload(hub.api, MODEL, {"immunobench.json": json.dumps(fields).encode()})


def cached(tmp_path: Path) -> set[str]:
    """Names of the files that were fetched."""
    return {path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")}


def test_a_hub_id_gives_the_weights_of_its_revision(default_hub: Hub, model_folders: dict[str, Path]) -> None:
    first = default_hub.store.sha("models", MODEL, "main")
    default_hub.api.create_tag(MODEL, tag="v1")
    push = (model_folders["never"] / "model.safetensors").read_bytes()
    upload(default_hub.api, MODEL, {"model.safetensors": push})
    latest = default_hub.store.sha("models", MODEL, "main")
    expected = {name: weights(load_subject(str(model_folders[name])).model) for name in ("subject", "never")}
    for spec, name, commit in (
        (f"{MODEL}@{first}", "subject", first),
        (f"{MODEL}@v1", "subject", first),
        (f"{MODEL}@main", "never", latest),
        (MODEL, "never", latest),
    ):
        loaded = load_subject(spec)
        assert same_bits(weights(loaded.model), expected[name])
        assert (loaded.spec, loaded.source, loaded.label) == (spec, f"{MODEL}@{commit}", "model")
    with pytest.raises(ImmunobenchError, match="cannot be fetched"):
        load_subject(f"{MODEL}@v2")


def test_the_history_of_a_hub_id_is_known_without_its_weights(
    default_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_history(default_hub, domain="vault/32", exposed="organism:exposed", never_exposed="organism:never-exposed")
    found = find_history(MODEL)
    assert found == History("vault/32", "organism:exposed", "organism:never-exposed")
    assert cached(tmp_path) == {"immunobench.json"}
    [trial] = find_trials(Request([MODEL]))
    assert (trial.exposed, trial.never_exposed, trial.domain) == (found.exposed, found.never_exposed, "vault/32")
    assert load_subject(MODEL).history == found
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_history(MODEL) == found


def test_what_lay_beside_a_model_is_not_on_the_hub(default_hub: Hub) -> None:
    """The folder's own history names its references from where it lay."""
    assert find_history(MODEL).exposed is None and load_subject(MODEL).history == find_history(MODEL)
    with pytest.raises(UsageError, match="name it with --exposed"):
        find_trials(Request([MODEL]))
    write_history(default_hub, exposed=".")
    assert find_history(MODEL).exposed == load_subject(MODEL).history.exposed == MODEL
    assert find_history(f"{MODEL}@main").exposed == f"{MODEL}@main"


def test_a_model_of_the_hub_without_a_history(default_hub: Hub, model_folders: dict[str, Path]) -> None:
    push_model(default_hub.api, "tester/plain", model_folders["never"])
    default_hub.api.delete_file("immunobench.json", "tester/plain")
    assert find_history("tester/plain") == load_subject("tester/plain").history == History()


def test_a_reference_on_the_hub_that_is_not_there_is_told_at_once(default_hub: Hub) -> None:
    with pytest.raises(ImmunobenchError, match="no folder 'tester/nothing', and it cannot be fetched from the Hub"):
        find_trials(Request([MODEL], exposed="tester/nothing"))
