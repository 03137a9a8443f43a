"""Commands that build public sets and publish them, as a person types them."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from typer.main import get_command

from immunobench.cli import app, main
from immunobench.datasets import read_config, read_manifest
from immunobench.domains import load_domain
from immunobench.subjects import ORGANISMS
from tests.dataset_builders.upstream_files import ROWS, domain_files
from tests.local_hub import running

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Type:
    """Runs a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.setenv("IMMUNOBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["immunobench", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


def test_build_a_domain_and_list_it(type_in: Type, tmp_path: Path) -> None:
    files = domain_files("refusal", tmp_path / "files")
    listed = {row["domain"]: row["hazard"] for row in json.loads(type_in("list", "domains", "--json")[1])}
    assert listed["vault"] == "512 facts, 256 measured" and listed["refusal"].startswith("not built: immunobench build")
    given = [word for name, path in files.items() for word in ("--file", f"{name}={path}")]
    code, out, _ = type_in("build", "domain", "refusal", *given)
    assert code == 0 and "immunobench run SUBJECT --domain refusal" in out
    listed = {row["domain"]: row["hazard"] for row in json.loads(type_in("list", "domains", "--json")[1])}
    assert listed["refusal"] == f"{4 * ROWS} requests, {3 * ROWS} measured"
    assert load_domain("refusal").requests_v
    code, _, err = type_in("build", "domain", "refusal", *given)
    assert code == 2 and "is not an empty folder: remove it" in err


def test_build_public_sets_side_by_side(type_in: Type, tmp_path: Path) -> None:
    files = domain_files("refusal", tmp_path / "files")
    given = [word for name in ("advbench", "harmbench") for word in ("--file", f"{name}={files[name]}")]
    code, out, _ = type_in("build", "public", "advbench", "harmbench", *given)
    assert code == 0 and "public/advbench: advbench" in out
    assert len(read_config("harmful", root=tmp_path / "public" / "harmbench")) == ROWS
    code, _, err = type_in("publish", "datasets", "--to", "me", "--root", "public/advbench", "--dry-run")
    assert code == 2 and "belong behind terms: add --gated" in err
    code, out, _ = type_in(
        "publish", "datasets", "--to", "me", "--root", "public/advbench", "--gated", "manual", "--dry-run"
    )
    assert code == 0 and out.splitlines()[:2] == [
        "would create dataset repository me/immunobench-advbench if there is none",
        "would close it behind terms (manual approval)",
    ]


def test_every_command_speaks_json() -> None:
    commands: Any = get_command(app)
    deaf = [name for name, one in commands.commands.items() if not any("--json" in each.opts for each in one.params)]
    assert len(commands.commands) > 15 and not deaf


def test_json_is_all_that_a_command_prints(type_in: Type, tmp_path: Path) -> None:
    """What each says of a dataset is what its manifest says; what a person is told goes to standard error."""
    files = domain_files("refusal", tmp_path / "files")
    given = [word for name, path in files.items() for word in ("--file", f"{name}={path}")]
    public = ("build", "public", "advbench", "--file", f"advbench={files['advbench']}")
    asked = {
        tmp_path / "refusal": ("build", "domain", "refusal", *given, "--out", tmp_path),
        tmp_path / "sets" / "advbench": (*public, "--out", tmp_path / "sets"),
        tmp_path / "vault": ("vault", "--seed", 5, "--out", tmp_path / "vault"),
        tmp_path / "folder": ("export", tmp_path / "folder"),
    }
    for folder, words in asked.items():
        code, out, err = type_in(*words, "--json")
        assert code == 0, err
        told = json.loads(out)
        told = told[0] if words[0] == "build" else told
        root = folder / "data" if words[0] == "export" else folder
        manifest = read_manifest(root)
        assert told["folder"] == str(folder)
        assert (told["name"], told["version"]) == (manifest["name"], manifest["version"])
        assert {name: config["fingerprint"] for name, config in told["configs"].items()} == {
            name: config["fingerprint"] for name, config in manifest["configs"].items()
        }
        for name, config in told["configs"].items():
            assert config["rows"] == sum(len(read_config(name, split, root=root)) for split in splits(manifest, name))
        assert ("Next: immunobench run" in err) == (words[1] == "domain")


def splits(manifest: dict, config: str) -> list[str]:
    """The names of a config's splits."""
    return list(manifest["configs"][config]["splits"])


@pytest.mark.parametrize("what", ["datasets", "scorers"])
def test_a_publication_in_json(type_in: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    code, out, _ = type_in("publish", what, "--to", "tester", "--dry-run", "--json")
    planned = json.loads(out)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with running(tmp_path / "hub") as (_, url):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        sent_code, out, _ = type_in("publish", what, "--to", "tester", "--json")
        sent, api = json.loads(out), HfApi(endpoint=url, token="hf_test")
        assert code == sent_code == 0
        if what == "datasets":
            assert planned["repository"] == sent["repository"] == "tester/immunobench"
            assert planned["would"][-1] == f"tag v{read_manifest()['version']}"
            assert sent["commit"] == api.dataset_info("tester/immunobench").sha
        else:
            assert [one["space"] for one in planned] == [one["space"] for one in sent]
            assert sent[0]["commit"] == api.space_info(sent[0]["space"]).sha


@pytest.mark.slow
def test_an_organism_in_json(type_in: Type, tmp_path: Path) -> None:
    shutil.copytree(ORGANISMS / "exposed", tmp_path / "exposed")
    code, out, err = type_in("build", "organisms", "--only", "noisy-twin", "--out", tmp_path, "--json")
    assert code == 0, err
    (told,) = json.loads(out)
    entry = json.loads((tmp_path / "manifest.json").read_text())["noisy-twin"]
    assert told["folder"] == str(tmp_path / "noisy-twin")
    assert (told["parameters"], told["weights_sha256"]) == (entry["parameters"], entry["weights_sha256"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("build", "public"), "build public needs a name: advbench,"),
        (("build", "domain", "wmdp"), "unknown domain 'wmdp': did you mean 'wmdp-bio'?"),
        (("build", "public", "doly"), "unknown public set 'doly': did you mean 'dolly'?"),
        (("build", "public", "dolly", "--file", "dolly"), "--file dolly is no SOURCE=VALUE."),
        (("build", "public", "dolly", "--file", "mmlu=x"), "mmlu is not built: name it after build public too."),
        (("build", "public", "dolly", "--file", "dolly=x"), "cannot read x: No such file or directory."),
        (("build", "datasets", "dolly"), "build datasets takes no names"),
        (("vault", "--seed", "20261123", "--out", "public"), "seed 20261123 gives the published vault"),
        (("publish", "datasets", "--to", "me", "--gated", "yes"), "unknown gate 'yes'"),
        (("publish", "scorers", "--to", "me", "--gated", "auto"), "--root and --gated are for datasets."),
    ],
)
def test_what_cannot_be_asked(type_in: Type, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    code, _, err = type_in(*words)
    assert code == 2 and err.startswith(f"immunobench: {sentence}"), err
    assert not (tmp_path / "public").exists()
