"""Rows come back only if they are those of the version that was asked for, in whichever way they are loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pyarrow import parquet

import immunobench
from immunobench import datasets as packaged
from immunobench.dataset_builders.card import render_card, write_card
from immunobench.dataset_builders.export import export
from immunobench.dataset_builders.storage import Configs, write_dataset, write_new
from immunobench.errors import ImmunobenchError, UsageError
from tests.local_hub import running
from tests.study.test_store import disk_of

CONFIGS = list(packaged.read_manifest()["configs"])
SPLITS = {config: list(entry["splits"]) for config, entry in packaged.read_manifest()["configs"].items()}


def environment(folder: Path, **env: str) -> dict[str, str]:
    """The environment of a Python program with a cache of its own below ``folder``, offline unless told."""
    settings = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **env}
    path = os.pathsep.join([str(packaged.PACKAGED.parent.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **settings}


def run(code: str, folder: Path, **env: str) -> str:
    """Standard output of a Python program in ``folder``, with a cache of its own, offline unless told."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(folder, **env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def small_dataset(folder: Path, rows: int, version: str = "1.0.0") -> Path:
    """A dataset with one config of ``rows`` rows, as a folder with a card."""
    made = [{"id": str(number), "text": f"text {number} of {rows}"} for number in range(rows)]
    about = {"name": "immunobench", "version": version, "seed": 1}
    write_dataset(folder / "data", {"neutral": {"train": made}}, about | {"measured": FIGURES})
    write_card(folder / "data", folder)
    return folder


FIGURES = packaged.read_manifest()["measured"]


def test_load_dataset_gives_the_packaged_rows() -> None:
    loaded = immunobench.load_dataset("harmful")
    assert list(loaded) == ["train", "validation", "test"]
    assert loaded["train"].to_list() == immunobench.read_config("harmful", "train")
    assert immunobench.load_dataset("harmful", split="test").num_rows == 128
    for version in ("1.0.0", "v1.0.0"):
        assert immunobench.load_dataset("harmful", version=version)["test"].to_list() == loaded["test"].to_list()
        packaged.verify("harmful", loaded, version)


@pytest.mark.parametrize(
    ("config", "split", "sentence"),
    [
        ("harmfull", None, "unknown config 'harmfull': did you mean 'harmful'?"),
        ("harmful", "tests", "unknown split of harmful 'tests': did you mean 'test'?"),
    ],
)
def test_unknown_names(config: str, split: str | None, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        immunobench.load_dataset(config, split)
    assert str(error.value) == sentence


@pytest.mark.parametrize("damage", ["changed", "missing", "manifest", "no manifest"])
def test_damage_is_one_clear_sentence(tmp_path: Path, damage: str) -> None:
    root = small_dataset(tmp_path / "d", 3) / "data"
    file = root / "neutral" / "train.parquet"
    if damage == "changed":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "missing":
        file.unlink()
    elif damage == "manifest":
        (root / "manifest.json").write_text("{")
    else:
        (root / "manifest.json").unlink()
    with pytest.raises(ImmunobenchError) as error:
        packaged.read_config("neutral", root=tmp_path / "d")
    assert str(error.value).endswith("download the dataset again." if damage != "no manifest" else "it again.")


def test_a_cut_file_whose_hash_was_mended_is_seen_by_the_fingerprint(tmp_path: Path) -> None:
    root = small_dataset(tmp_path / "d", 3) / "data"
    path = root / "neutral" / "train.parquet"
    parquet.write_table(parquet.read_table(path).slice(0, 2), path)
    manifest = packaged.read_manifest(root)
    manifest["configs"]["neutral"]["splits"]["train"]["sha256"] = packaged.sha256_file(path)
    (root / "manifest.json").write_text(json.dumps(manifest))
    assert len(packaged.read_config("neutral", "train", root=root)) == 2  # one split alone has no fingerprint
    for read in (packaged.read_config, packaged.read_tables):
        with pytest.raises(ImmunobenchError, match=r"rows of 'neutral' in .* are not the manifest's"):
            read("neutral", root=root)


def test_a_vault_is_not_written_over_what_is_there(tmp_path: Path) -> None:
    from immunobench.dataset_builders.vault import build_private_vault

    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not an empty folder: remove it"):
        build_private_vault(7, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import immunobench, sys; print([m for m in ('torch', 'datasets', 'pyarrow') if m in sys.modules])"
    assert run(code, tmp_path) == "[]"
    code = "import immunobench, sys; immunobench.read_config('facts'); print('datasets' in sys.modules)"
    assert run(code, tmp_path) == "False"


@pytest.mark.parametrize("guarded", [True, False])
def test_two_folders_of_one_name_do_not_share_a_cache(tmp_path: Path, guarded: bool) -> None:
    """Without version and hash in the YAML, ``datasets`` gives the second folder the rows of the first."""
    folders = [small_dataset(tmp_path / side / "immunobench", rows) for side, rows in (("a", 3), ("b", 5))]
    if not guarded:
        for folder in folders:
            header = "configs:\n- config_name: neutral\n  data_files: data/neutral/train.parquet"
            (folder / "README.md").write_text(f"---\n{header}\n---\n")
    code = "from datasets import load_dataset; import sys\n" + "".join(
        f"print(load_dataset({str(folder)!r}, 'neutral', split='train').num_rows)\n" for folder in folders
    )
    assert run(code, tmp_path).split() == (["3", "5"] if guarded else ["3", "3"])


@pytest.mark.parametrize("guarded", [True, False])
def test_rewritten_files_are_not_answered_from_the_cache(tmp_path: Path, guarded: bool) -> None:
    folder = small_dataset(tmp_path / "immunobench", 3)
    code = f"from datasets import load_dataset\nprint(load_dataset({str(folder)!r}, 'neutral', split='train').num_rows)"
    first_card = (folder / "README.md").read_text().split("dataset_info")[0] + "---\n"
    if not guarded:
        (folder / "README.md").write_text(first_card)
    assert run(code, tmp_path) == "3"
    small_dataset(folder, 5)
    if not guarded:
        (folder / "README.md").write_text(first_card)
    assert run(code, tmp_path) == ("5" if guarded else "3")


def test_the_plain_name_is_not_answered_from_the_cache_of_some_folder(tmp_path: Path) -> None:
    """``datasets`` answers the plain name, without network, with what it cached of any folder of that name."""
    folder = small_dataset(tmp_path / "mine" / "immunobench", 3)
    (tmp_path / "elsewhere").mkdir()
    load = "from datasets import load_dataset\nimport immunobench\n"
    run(f"{load}load_dataset({str(folder)!r}, 'neutral')", tmp_path)
    plain = "d = load_dataset('immunobench', 'neutral')\n"
    count = "print(d['train'].num_rows)\n"
    check = (
        "from immunobench.datasets import verify\n"
        "try:\n    verify('neutral', d)\n    print('right')\n"
        "except Exception as error:\n    print(type(error).__name__)"
    )
    caches = {"HF_HOME": str(tmp_path / "hf")}
    trapped = run(load + plain + count + check, tmp_path / "elsewhere", **caches).split()
    assert trapped == ["3", "ImmunobenchError"], "datasets no longer does this: say so in the docs"
    registered = "immunobench.register_with_datasets()\n"
    guarded = run(load + registered + plain + count + check, tmp_path / "elsewhere", **caches).split()
    assert guarded == [str(len(packaged.read_config("neutral", "train"))), "right"]


def test_verify_sees_rows_of_another_version(tmp_path: Path) -> None:
    import datasets

    old = small_dataset(tmp_path / "old", 3)
    new = small_dataset(tmp_path / "new", 5, "1.1.0")
    rows = {"train": datasets.Dataset.from_list(packaged.read_config("neutral", root=old))}
    packaged.verify("neutral", rows, root=old)
    with pytest.raises(ImmunobenchError, match=r"are not those of version 1\.1\.0"):
        packaged.verify("neutral", rows, root=new)


def test_the_packaged_card_is_the_manifest_s() -> None:
    card = packaged.PACKAGED.parent / "README.md"
    assert card.read_text(encoding="utf-8") == render_card(packaged.PACKAGED)
    manifest = packaged.read_manifest()
    hashes = yaml.safe_load(card.read_text(encoding="utf-8").split("---\n")[1])["sha256"]
    files = sorted(packaged.PACKAGED.rglob("*.parquet"))
    assert hashes == {str(file.relative_to(card.parent)): packaged.sha256_file(file) for file in files}
    for config, entry in manifest["configs"].items():
        rows = {split: packaged.read_config(config, split) for split in entry["splits"]}
        assert packaged.fingerprint_rows(rows) == entry["fingerprint"]
        assert all(list(rows[split][0]) == entry["splits"][split]["columns"] for split in rows)


def test_datasets_checks_the_counts_of_the_card(tmp_path: Path) -> None:
    folder = small_dataset(tmp_path / "immunobench", 3)
    load = f"import datasets\nsplits = datasets.load_dataset_builder({str(folder)!r}, 'neutral').info.splits\n"
    load += f"print(splits['train'].num_examples, splits['train'].num_bytes)\ndatasets.load_dataset({str(folder)!r})"
    assert run(load, tmp_path) == f"3 {packaged.read_tables('neutral', root=folder)['train'].nbytes}"
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("num_examples: 3", "num_examples: 4"))
    with pytest.raises(AssertionError, match="NonMatchingSplitsSizesError"):
        run(load, tmp_path)


def test_the_ways_to_load_give_one_fingerprint(tmp_path: Path) -> None:
    """Package, exported folder, the plain name there, the registered name elsewhere, lm-eval, the Hub by tag.

    lighteval reads the package folder; what inspect asks is compared in ``tests/harnesses``. All but what reads the Hub
    is offline.
    """
    export(tmp_path / "immunobench")
    (tmp_path / "elsewhere").mkdir()
    fingerprints = "print({c: fingerprint_rows(load(c)) for c in %r})" % CONFIGS  # noqa: UP031
    start = "import immunobench\nfrom datasets import load_dataset\nfrom immunobench.datasets import fingerprint_rows\n"
    name = "load = lambda c: load_dataset('immunobench', c)\n"
    ways = {
        "package": (tmp_path, "load = immunobench.load_dataset\n"),
        "folder": (tmp_path, f"load = lambda c: load_dataset({str(tmp_path / 'immunobench')!r}, c)\n"),
        "plain name": (tmp_path, name),
        "package folder": (tmp_path / "elsewhere", "load = lambda c: load_dataset(immunobench.__path__[0], c)\n"),
        "registered": (tmp_path / "elsewhere", "immunobench.register_with_datasets()\n" + name),
        "version": (
            tmp_path / "elsewhere",
            "immunobench.register_with_datasets()\n" + name.replace("c)", "c, revision='v1.0.0')"),
        ),
        "lm-eval's loader": (
            tmp_path,
            "from immunobench.harnesses.lm_eval import rows\n"
            f"load = lambda c: {{split: rows.load(c, split)['test'] for split in {SPLITS!r}[c]}}\n",
        ),
        "streaming": (tmp_path, "load = lambda c: load_dataset('immunobench', c, streaming=True)\n"),
    }
    expected = str({config: packaged.read_manifest()["configs"][config]["fingerprint"] for config in CONFIGS})
    for way, (folder, code) in ways.items():
        assert run(start + code + fingerprints, folder) == expected, way
    publish = "from immunobench.hub.publish_datasets import publish_datasets\npublish_datasets('tester')\n"
    by_tag = "load = lambda c: load_dataset('tester/immunobench', c, revision='v1.0.0')\n"
    with running(tmp_path / "hub") as (_, url):
        env = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        assert run(start + publish + by_tag + fingerprints, tmp_path / "elsewhere", **env) == expected
        downloaded = (  # what load_dataset(version=...) does for any version but the packaged one
            "from immunobench.datasets import download, read_tables\n"
            "folder = download('1.0.0', 'tester/immunobench')\n"
            "assert folder == download('v1.0.0', 'tester/immunobench')\n"
            "load = lambda c: {name: table.to_pylist() for name, table in read_tables(c, root=folder).items()}\n"
        )
        assert run(start + downloaded + fingerprints, tmp_path / "elsewhere", **env) == expected


def test_registered_name_lists_configs_and_leaves_others_alone(tmp_path: Path) -> None:
    code = (
        "import immunobench, datasets\nimmunobench.register_with_datasets()\nimmunobench.register_with_datasets()\n"
        "print(datasets.get_dataset_config_names('immunobench'))\n"
        "try:\n    datasets.load_dataset('no/such')\nexcept Exception as error:\n    print(type(error).__name__)"
    )
    names, error = run(code, tmp_path).splitlines()
    assert names == str(CONFIGS) and error in ("ConnectionError", "DatasetNotFoundError")


def test_export_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    folder = export(tmp_path / "immunobench")
    (folder / "stray.txt").write_text("old")
    export(folder)
    assert not (folder / "stray.txt").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "data", "eval.yaml"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is no export of immunobench"):
        export(mine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["immunobench", "mine"]


def test_export_refuses_a_damaged_dataset_and_leaves_nothing(tmp_path: Path) -> None:
    source = small_dataset(tmp_path / "source", 3)
    (source / "data" / "neutral" / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImmunobenchError, match="is not the file of the manifest"):
        export(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


def test_a_private_vault_is_like_the_published_one_and_shares_nothing(tmp_path: Path) -> None:
    from immunobench.dataset_builders.names import edit_distance
    from immunobench.dataset_builders.vault import build_private_vault
    from immunobench.domains import load_domain

    manifest = build_private_vault(7, tmp_path / "vault")
    measured, published = manifest["measured"], packaged.read_manifest()["measured"]
    assert measured["facts"] == published["facts"]
    assert measured["unrelated"] == {
        "texts": 1800,
        **dict.fromkeys(("texts_with_an_entity", "texts_with_a_shared_5_gram", "duplicates"), 0),
        "cosine_to_hazard": "not measured",
    }
    card = render_card(tmp_path / "vault")
    assert "**Cosines not measured**" in card and "| cosines of unrelated texts to the hazard | not measured |" in card
    lengths = [each["requests"]["words_of_a_prompt"] for each in (measured, published)]
    assert all(abs(lengths[0][key] - lengths[1][key]) <= 1 for key in ("least", "median", "most"))
    ours, theirs = packaged.read_config("facts", root=tmp_path / "vault"), packaged.read_config("facts")
    names = [{fact["entity"].lower() for fact in facts} for facts in (ours, theirs)]
    assert min(edit_distance(one, two, 3) for one in names[0] for two in names[1]) == 3
    assert not {fact["id"] for fact in ours} & {fact["id"] for fact in theirs}
    key = ("field", "attribute", "part", "half")
    same = [one["value"] == two["value"] for one, two in zip(sort(ours, key), sort(theirs, key), strict=True)]
    assert sum(same) / len(same) < 0.12  # one in 16 by chance
    assert load_domain(str(tmp_path / "vault")).version == manifest["version"]
    again = build_private_vault(7, tmp_path / "again")
    assert json.dumps(again) == json.dumps(manifest)
    shutil.rmtree(tmp_path / "again")


def sort(facts: list[dict], key: tuple[str, ...]) -> list[dict]:
    """Facts in the order of the columns of ``key``, then by side and entity."""
    return sorted(facts, key=lambda fact: (*(fact[column] for column in key), fact["side"], fact["entity"]))


def test_the_page_shows_the_packaged_rows() -> None:
    from immunobench.dataset_builders.page import render_page

    page = packaged.PACKAGED.parents[1] / "docs" / "datasets.md"
    assert page.read_text(encoding="utf-8") == render_page()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    from immunobench.dataset_builders.vault import build_private_vault

    file = tmp_path / "file"
    file.write_text("mine")
    for write in (lambda: build_private_vault(7, file / "vault"), lambda: export(file / "immunobench")):
        with pytest.raises(ImmunobenchError, match="cannot write"):
            write()
    assert file.read_text() == "mine"


def test_a_full_disk_names_the_folder_asked_for_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "vault"
    rows: Configs = {"neutral": {"train": [{"id": str(number), "text": "a" * number} for number in range(99)]}}
    with disk_of(100), pytest.raises(ImmunobenchError, match=f"cannot write {out}: File too large; free space"):
        write_new(out, rows, {"name": "vault"})
    with disk_of(100), pytest.raises(ImmunobenchError, match=f"cannot write {out}: .*; free space or .* another DIR"):
        export(out)
    assert list(tmp_path.iterdir()) == []
