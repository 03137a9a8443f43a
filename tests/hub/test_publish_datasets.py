"""Publish to a Hub on localhost and load with unmodified clients: by tag, offline, streaming, gated."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from immunobench.dataset_builders.public_domains import build_domain
from immunobench.dataset_builders.storage import write_dataset
from immunobench.dataset_builders.vault import build_private_vault
from immunobench.datasets import PACKAGED, read_config, read_manifest
from immunobench.domains import load_domain
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.hub.publish_datasets import plan_publication, publish_datasets
from tests.dataset_builders.upstream_files import domain_files
from tests.local_hub import running
from tests.local_hub_store import Store
from tests.test_datasets import run, small_dataset

PUBLISH = """
import sys
from pathlib import Path
from immunobench.hub.publish_datasets import publish_datasets
print(publish_datasets("tester", Path(sys.argv[1]) if len(sys.argv) > 1 else None))
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, dict[str, str]]]:
    """A running Hub, and what its clients need in their environment."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with running(tmp_path / "hub") as (store, url):
        yield store, {"HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}


@pytest.fixture
def hub_of_immunobench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, dict[str, str]]]:
    """A running Hub whose user owns the organisation that the package loads from."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with running(tmp_path / "hub", {"hf_test": "immunobench"}) as (store, url):
        yield store, {"HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}


def publish(root: Path, folder: Path, env: dict[str, str]) -> str:
    return run(f"import sys; sys.argv = ['', {str(root)!r}]\n{PUBLISH}", folder, **env).splitlines()[-1]


def test_two_versions_load_by_tag_offline_and_streaming(tmp_path: Path, hub) -> None:
    store, env = hub
    first = publish(small_dataset(tmp_path / "one", 3, "1.0.0"), tmp_path, env)
    second = publish(small_dataset(tmp_path / "two", 5, "1.1.0"), tmp_path, env)
    assert first != second
    assert {ref["name"]: ref["targetCommit"] for ref in store.refs("datasets", "tester/immunobench", "refs/tags/")} == {
        "v1.0.0": first,
        "v1.1.0": second,
    }
    by_tag = (
        "from datasets import load_dataset\nfor tag in ('v1.0.0', 'v1.1.0'):\n"
        "    for streaming in (False, True):\n"
        "        d = load_dataset('tester/immunobench', 'neutral', split='train', revision=tag, streaming=streaming)\n"
        "        print(len(list(d)))"
    )
    assert run(by_tag, tmp_path, **env).split() == ["3", "3", "5", "5"]
    ours = (
        "from immunobench.datasets import download, read_config\n"
        "for version in ('1.0.0', '1.1.0'):\n"
        "    print(len(read_config('neutral', root=download(version, 'tester/immunobench'))))"
    )
    assert run(ours, tmp_path, **env).split() == ["3", "5"]
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    assert run(ours, tmp_path, **offline).split() == ["3", "5"]
    plain = "from datasets import load_dataset\n" + (
        "print(load_dataset('tester/immunobench', 'neutral', split='train', revision='v1.0.0').num_rows)"
    )
    trap = run(plain, tmp_path, **offline)
    assert trap == "5", "datasets ignores revision offline; if it no longer does, say so in the card"


def test_verify_catches_the_offline_revision_trap(tmp_path: Path, hub) -> None:
    _, env = hub
    for name, rows, version in (("one", 3, "1.0.0"), ("two", 5, "1.1.0")):
        publish(small_dataset(tmp_path / name, rows, version), tmp_path, env)
    load = "from datasets import load_dataset\nd = load_dataset('tester/immunobench', 'neutral', revision='v1.0.0')\n"
    check = (
        f"{load}from immunobench.datasets import download, verify\n"
        "try:\n    verify('neutral', d, root=download('1.0.0', 'tester/immunobench'))\n    print('right')\n"
        "except Exception as error:\n    print(type(error).__name__)"
    )
    assert run(check, tmp_path, **env) == "right"
    run(load.replace("v1.0.0", "v1.1.0"), tmp_path, **env)
    assert run(check, tmp_path, **{**env, "HF_HUB_OFFLINE": "1"}) == "ImmunobenchError"


@pytest.mark.parametrize(
    ("version", "offline", "reason"),
    [("9.9.9", "0", "the Hub has no such tag"), ("1.0.0", "1", "the Hub cannot be reached")],
)
def test_a_version_that_cannot_be_had(tmp_path: Path, hub, version: str, offline: str, reason: str) -> None:
    _, env = hub
    publish(small_dataset(tmp_path / "one", 3), tmp_path, env)
    code = (
        "from immunobench.datasets import download\n"
        f"try:\n    download({version!r}, 'tester/immunobench')\nexcept Exception as error:\n    print(error)"
    )
    fresh = {**env, "HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path / "fresh")}
    assert reason in run(code, tmp_path, **fresh)


def test_a_version_and_a_revision_by_the_registered_name_are_that_tag(tmp_path: Path, hub_of_immunobench) -> None:
    """``version=`` and, by the registered name, ``revision=``: the tag's rows, online and offline."""
    _, env = hub_of_immunobench
    publishing = "from immunobench.hub.publish_datasets import publish_datasets\nfrom pathlib import Path\n"
    for version, rows in (("1.1.0", 3), ("1.2.0", 5)):
        root = small_dataset(tmp_path / version, rows, version)
        run(f"{publishing}publish_datasets('immunobench', Path({str(root)!r}))", tmp_path, **env)
    code = (
        "import datasets, immunobench\nimmunobench.register_with_datasets()\n"
        "for version in ('1.1.0', '1.2.0'):\n"
        "    ours = immunobench.load_dataset('neutral', 'train', version=version)\n"
        "    theirs = datasets.load_dataset('immunobench', 'neutral', split='train', revision='v' + version)\n"
        "    assert ours.to_list() == theirs.to_list()\n"
        "    immunobench.datasets.verify('neutral', {'train': theirs}, version)\n"
        "    print(ours.num_rows)\n"
        "print(datasets.load_dataset('immunobench', 'neutral', split='train').num_rows)\n"
        "try:\n    datasets.load_dataset('immunobench', 'neutral', revision='main')\n"
        "except immunobench.errors.UsageError as error:\n    print(error)"
    )
    for offline in ("0", "1"):
        *counts, error = run(code, tmp_path, **{**env, "HF_HUB_OFFLINE": offline}).splitlines()
        assert counts == ["3", "5", str(len(read_config("neutral", "train")))]
        assert error == "revision 'main' is no version of immunobench/immunobench: give v1.0.0 or another tag."


def test_a_tag_that_holds_another_version_is_refused(tmp_path: Path, hub_of_immunobench) -> None:
    store, env = hub_of_immunobench
    api = HfApi(endpoint=env["HF_ENDPOINT"], token="hf_test")
    publish_datasets(
        "immunobench", small_dataset(tmp_path / "one", 3, "1.1.0"), endpoint=env["HF_ENDPOINT"], token="hf_test"
    )
    api.create_tag("immunobench/immunobench", repo_type="dataset", tag="v1.2.0", revision="v1.1.0")
    code = (
        "import immunobench\nfrom immunobench.errors import ImmunobenchError\n"
        "try:\n    immunobench.load_dataset('neutral', version='1.2.0')\nexcept ImmunobenchError as error:\n"
        "    print(error)"
    )
    said = run(code, tmp_path, **env)
    assert said.endswith(
        "cannot load immunobench/immunobench at v1.2.0: what is tagged so is version 1.1.0; "
        "ask its owner to move the tag."
    )
    assert store.sha("datasets", "immunobench/immunobench", "v1.2.0")


def test_publishing_twice_changes_nothing_and_a_version_never_changes(tmp_path: Path, hub) -> None:
    store, env = hub
    root = small_dataset(tmp_path / "one", 3)
    assert publish(root, tmp_path, env) == publish(root, tmp_path, env)
    commit = store.sha("datasets", "tester/immunobench", "main")
    shutil.rmtree(root)
    small_dataset(root, 4)
    url = {"endpoint": env["HF_ENDPOINT"], "token": "hf_test"}
    with pytest.raises(ImmunobenchError, match="a version never changes"):
        publish_datasets("tester", root, **url)
    assert store.sha("datasets", "tester/immunobench", "main") == commit


@pytest.mark.parametrize("file", ["README.md", "data/manifest.json", "data/neutral/train.parquet"])
def test_a_tag_with_another_card_manifest_or_rows_is_not_the_same(tmp_path: Path, hub, file: str) -> None:
    _, env = hub
    url = {"endpoint": env["HF_ENDPOINT"], "token": "hf_test"}
    root = small_dataset(tmp_path / "one", 3)
    publish_datasets("tester", root, **url)
    api = HfApi(**url)
    repository = {"repo_id": "tester/immunobench", "repo_type": "dataset"}
    api.upload_file(path_or_fileobj=b"Mine.", path_in_repo="notes.md", **repository)
    api.delete_tag(tag="v1.0.0", **repository)
    api.create_tag(tag="v1.0.0", **repository)
    publish_datasets("tester", root, **url)  # a file of the owner's beside the dataset is no other version of it
    api.upload_file(path_or_fileobj=b"changed", path_in_repo=file, **repository)
    api.delete_tag(tag="v1.0.0", **repository)
    api.create_tag(tag="v1.0.0", **repository)
    with pytest.raises(ImmunobenchError, match=f"has v1.0.0 already, with another {file}: a version never changes"):
        publish_datasets("tester", root, **url)


def test_what_cannot_be_exported_makes_no_repository(tmp_path: Path, hub) -> None:
    store, env = hub
    root = small_dataset(tmp_path / "one", 3)
    (root / "data" / "neutral" / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImmunobenchError, match="is not the file of the manifest"):
        publish_datasets("tester", root, endpoint=env["HF_ENDPOINT"], token="hf_test")
    assert not (store.root / "datasets").exists()


def test_bands_for_one_subject_are_refused_before_anything_is_contacted(tmp_path: Path, hub) -> None:
    store, env = hub
    rows = {"list": read_config("alignment_low", "list")}
    measured = {"alignment": {"feature": "last-layer state of mine", "tasks": {}}}
    about = {"name": "immunobench-bands", "version": "1.0.0", "measured": measured}
    write_dataset(tmp_path / "bands", {"alignment_low": rows}, about)
    for gated in (None, "auto"):
        with pytest.raises(UsageError, match="'immunobench-bands' is no whole dataset and has no card"):
            plan_publication("tester", tmp_path / "bands", gated)
        with pytest.raises(UsageError, match="is no whole dataset"):
            publish_datasets("tester", tmp_path / "bands", gated=gated, endpoint=env["HF_ENDPOINT"], token="hf_test")
    assert not (store.root / "datasets").exists()


def test_a_private_vault_is_published_behind_a_gate_only(tmp_path: Path, hub) -> None:
    store, env = hub
    url = {"endpoint": env["HF_ENDPOINT"], "token": "hf_test"}
    build_private_vault(7, tmp_path / "vault")
    with pytest.raises(UsageError, match="'immunobench-vault-7' is a private vault, which anybody could train on"):
        publish_datasets("tester", tmp_path / "vault", **url)
    assert not (store.root / "datasets").exists()
    name = "tester/immunobench-vault-7"
    publish_datasets("tester", tmp_path / "vault", gated="manual", **url)
    assert store.info("datasets", name, "v1.0.0")["gated"] == "manual"
    card = store.content("datasets", name, store.entry("datasets", name, "main", "README.md")).decode()
    assert "A private vault" in card and 'read_config("facts", root=' in card
    assert "without a gate" not in card and "load_dataset(" not in card


def test_the_packaged_dataset_goes_up_whole(tmp_path: Path, hub) -> None:
    store, env = hub
    publish(PACKAGED, tmp_path, env)
    names = {entry["path"] for entry in store.tree("datasets", "tester/immunobench", "v1.0.0", recursive=True)}
    assert {"README.md", "eval.yaml", "data/manifest.json", "data/facts/hazard_v.parquet"} <= names
    code = (
        "from datasets import load_dataset\nfrom immunobench.datasets import verify\n"
        "d = load_dataset('tester/immunobench', 'harmful', revision='v1.0.0')\nverify('harmful', d)\n"
        "print(d['test'].num_rows)"
    )
    assert run(code, tmp_path, **env) == str(len(read_config("harmful", "test")))


def test_dry_run_contacts_nobody(tmp_path: Path) -> None:
    said: list[str] = []
    assert publish_datasets("nobody", dry_run=True, endpoint="http://127.0.0.1:9", progress=said.append) == ""
    assert said == [f"would {line}" for line in plan_publication("nobody")]
    assert said[-1] == f"would tag v{read_manifest()['version']}"


def test_a_gated_repository_is_closed_to_strangers(tmp_path: Path, hub) -> None:
    store, env = hub
    root = small_dataset(tmp_path / "one", 3)
    publish_datasets("tester", root, gated="manual", endpoint=env["HF_ENDPOINT"], token="hf_test")
    assert store.info("datasets", "tester/immunobench", "main")["gated"] == "manual"
    card = store.content(
        "datasets", "tester/immunobench", store.entry("datasets", "tester/immunobench", "main", "README.md")
    )
    assert b"extra_gated_prompt:" in card
    code = (
        "from immunobench.datasets import download\n"
        "try:\n    download('1.0.0', 'tester/immunobench')\nexcept Exception as error:\n    print(error)"
    )
    assert "needs a login" in run(code, tmp_path, **{**env, "HF_TOKEN": ""})


def test_what_is_made_of_public_sets_goes_behind_terms_in_a_repository_of_its_own(tmp_path: Path, hub) -> None:
    store, env = hub
    root, url = tmp_path / "bio", {"endpoint": env["HF_ENDPOINT"], "token": "hf_test"}
    build_domain("wmdp-bio", root, files=domain_files("wmdp-bio", tmp_path / "files"))
    with pytest.raises(UsageError, match="'wmdp-bio' is made of public sets, which belong behind terms"):
        publish_datasets("tester", root, **url)
    assert not (store.root / "datasets").exists()
    name = "tester/immunobench-wmdp-bio"
    commit = publish_datasets("tester", root, gated="auto", **url)
    assert publish_datasets("tester", root, gated="auto", **url) == commit
    assert store.info("datasets", name, "v1.0.0")["gated"] == "auto"
    files = {entry["path"] for entry in store.tree("datasets", name, "v1.0.0", recursive=True)}
    assert {"README.md", "data/facts/hazard_v.parquet"} <= files and "eval.yaml" not in files
    card = store.content("datasets", name, store.entry("datasets", name, "main", "README.md")).decode()
    assert all(word in card for word in ("extra_gated_prompt:", "not-for-all-audiences", "license: other", "cais/wmdp"))
    code = (
        "from immunobench.datasets import download\nfrom immunobench.domains import load_domain\n"
        "from datasets import load_dataset\n"
        f"print(load_domain(str(download('1.0.0', {name!r}))).fingerprint)\n"
        f"print(load_dataset({name!r}, 'facts', split='hazard_v', revision='v1.0.0').num_rows)"
    )
    assert run(code, tmp_path, **env).split() == [load_domain(str(root)).fingerprint, "32"]


def test_a_wrong_token_is_one_sentence(tmp_path: Path, hub) -> None:
    _, env = hub
    with pytest.raises(ImmunobenchError, match="the Hub refuses to publish tester/immunobench"):
        publish_datasets("tester", small_dataset(tmp_path / "d", 3), endpoint=env["HF_ENDPOINT"], token="hf_wrong")


def test_no_network_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImmunobenchError, match="cannot publish tester/immunobench"):
        publish_datasets("tester", small_dataset(tmp_path / "d", 3), endpoint="http://127.0.0.1:9", token="hf_test")
