"""A Hub on localhost with the model of the finished study in it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from immunobench.protocol.v1 import TIERS
from tests.conftest import STUDIED
from tests.local_hub import running
from tests.local_hub_store import Store as HubStore

MODEL = "tester/model"
OWNER, STRANGER = "hf_test", "hf_stranger"


@dataclass
class Hub:
    """The server's store and clients of two users: the owner of 'tester', and another."""

    store: HubStore
    api: HfApi
    stranger: HfApi

    def text(self, path: str, revision: str = "main") -> str:
        """A file of the model."""
        return self.store.content("models", MODEL, self.store.entry("models", MODEL, revision, path)).decode()

    def paths(self, revision: str = "main") -> set[str]:
        """Every file of the model."""
        tree = self.store.tree("models", MODEL, self.store.sha("models", MODEL, revision), recursive=True)
        return {entry["path"] for entry in tree if entry["type"] == "file"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, Path]) -> Iterator[Hub]:
    """A running Hub that holds the subject of the finished study, with a card of its owner's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with running(tmp_path / "hub", {OWNER: "tester", STRANGER: "stranger"}) as (store, url):
        api = HfApi(endpoint=url, token=OWNER)
        push_model(api, MODEL, model_folders["subject"])
        card = "---\nlicense: mit\nbase_model: someone/base\n---\n\n# Model\n\nWords of its owner.\n"
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=MODEL)
        yield Hub(store, api, HfApi(endpoint=url, token=STRANGER))


def push_model(api: HfApi, name: str, folder: Path) -> None:
    """Put a model's files on the Hub."""
    api.create_repo(name)
    api.upload_folder(repo_id=name, folder_path=folder)


def upload(api: HfApi, name: str, files: dict[str, bytes]) -> None:
    """Commit files to main."""
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit(name, operations=operations, commit_message="Add files")


@pytest.fixture
def whole_study(finished_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished study as one of a whole tier, because the tier is made of its adversaries here."""
    monkeypatch.setitem(TIERS, "smoke", STUDIED)
    root = shutil.copytree(finished_study, tmp_path / "study")
    change_record(root, lambda record: record["request"].update(only=[]))
    return root


def change_record(root: Path, change: Any) -> None:
    """Change a study's record in place."""
    record = json.loads((root / "study.json").read_text())
    change(record)
    (root / "study.json").write_text(json.dumps(record))
