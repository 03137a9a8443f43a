"""Public sets: real upstream files, small files of every upstream format from a Hub on localhost, and what can fail."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from immunobench.dataset_builders.public import AFFIRMATIVE, build_public
from immunobench.dataset_builders.storage import write_dataset
from immunobench.dataset_builders.upstream import fetch, is_list, sources
from immunobench.datasets import Row, read_config, read_manifest
from immunobench.errors import ImmunobenchError, UsageError
from tests.dataset_builders.upstream_files import ROWS, encode, upstream_path, upstream_rows
from tests.local_hub import running
from tests.local_hub_store import Store

BESIDE = Path(__file__).parents[3] / "shared" / "data" / "public"
"""Upstream files beside the checkout, if present."""
UPSTREAM = Path(os.environ.get("IMMUNOBENCH_PUBLIC_DATA", BESIDE))
HUB = [name for name, source in sources().items() if source.host == "huggingface"]
GITHUB = [name for name, source in sources().items() if source.host == "github"]
CONFIG_OF = {"requests": "harmful", "chats": "chats", "texts": "neutral", "choices": "facts"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Store, dict[str, str]]]:
    """A running Hub, and what its clients need in their environment."""
    with running(tmp_path / "hub") as (store, url):
        yield store, {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}


def upload(store: Store, name: str, data: bytes) -> str:
    """Put one file of a source into its repository and return the commit."""
    path, repository = upstream_path(name), sources()[name].repository
    if not (store.root / "datasets" / repository).exists():
        store.create("datasets", repository)
    return store.commit("datasets", repository, "main", {"summary": name}, [("file", path, data)])


def build(code: str, env: dict[str, str]) -> tuple[int, str]:
    """Exit code and last line of a program in a process of its own, because clients read HF_ENDPOINT on import."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom immunobench.errors import ImmunobenchError\n"
        "from immunobench.dataset_builders.public import build_public\n"
        f"try:\n    {code}\nexcept ImmunobenchError as error:\n    print(error)\n    sys.exit(error.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    return done.returncode, (done.stdout.strip().splitlines() or [""])[-1]


def check_built(folder: Path, name: str, commit: str) -> None:
    """The manifest says where the set is from, and its rows are in the columns of the vault."""
    source = sources()[name]
    (upstream,) = read_manifest(folder)["upstream"]
    assert upstream["revision"] == commit and upstream["licence"] == source.licence and upstream["url"] == source.url
    rows = read_config(CONFIG_OF[source.kind], root=folder)
    assert len(rows) == (64 if source.kind == "choices" else ROWS)
    if source.kind == "requests":
        assert set(rows[0]) == set(read_config("harmful", "train")[0])
        given = "response" in source.columns
        assert all((row["answer"] != AFFIRMATIVE) == given and row["train_answers"] == [row["answer"]] for row in rows)
        assert all(row["answer"] and row["refusal"] for row in rows)
    if source.kind == "choices":
        assert set(rows[0]) == set(read_config("facts", "hazard_t")[0])


def test_every_set_of_the_hub_is_built_at_the_commit_that_is_recorded(tmp_path: Path, hub) -> None:
    store, env = hub
    commits = {name: upload(store, name, encode(upstream_path(name), upstream_rows(name), tmp_path)) for name in HUB}
    latest = {sources()[name].repository: commit for name, commit in commits.items()}
    code = "\n    ".join(f"build_public({name!r}, Path({str(tmp_path / 'out' / name)!r}), 'main')" for name in HUB)
    assert build(code, env)[0] == 0
    for name in HUB:
        check_built(tmp_path / "out" / name, name, latest[sources()[name].repository])


class Quiet(SimpleHTTPRequestHandler):
    """Serves the files of a folder and says nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served as GitHub serves the files of repositories."""
    folder = tmp_path / "github"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("immunobench.dataset_builders.upstream.GITHUB_FILES", f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", GITHUB)
def test_a_set_of_github_is_read_at_its_pinned_commit(tmp_path: Path, github: Path, name: str) -> None:
    source, made = sources()[name], tmp_path / "made" / name
    with pytest.raises(ImmunobenchError, match=f"has no file {source.files[0]} at {source.revision}"):
        build_public(name, made)
    with pytest.raises(UsageError, match="has no revision 'main': give a commit"):
        build_public(name, made, "main")
    assert not made.parent.exists()
    for commit, rows in ((source.revision, upstream_rows(name)), ("0" * 40, upstream_rows(name)[:8])):
        file = github / source.repository / commit / source.files[0]
        file.parent.mkdir(parents=True)
        file.write_bytes(encode(file.name, rows, tmp_path))
    build_public(name, made)
    check_built(made, name, source.revision)
    build_public(name, tmp_path / "older", "0" * 40)
    assert len(read_config("harmful", root=tmp_path / "older")) == 8


def test_no_way_to_github_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immunobench.dataset_builders.upstream.GITHUB_FILES", "http://127.0.0.1:9")
    with pytest.raises(ImmunobenchError, match="cannot be downloaded"):
        build_public("advbench", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_every_source_is_pinned_to_a_commit() -> None:
    for source in sources().values():
        assert re.fullmatch("[0-9a-f]{40}", source.revision) and source.licence and source.paper and source.columns


@pytest.mark.parametrize(("column", "sentence"), [("kept", "has no rows with"), ("gone", "has no column 'Functional")])
def test_rows_that_are_not_kept(tmp_path: Path, column: str, sentence: str) -> None:
    def tagged(row: Row) -> Row:
        return (
            row | {"FunctionalCategory": "copyright"} if column == "kept" else {"Behavior": "x", "SemanticCategory": ""}
        )

    file = tmp_path / "behaviors.csv"
    rows = upstream_rows("harmbench")
    file.write_bytes(encode(file.name, [*map(tagged, rows)], tmp_path))
    with pytest.raises(ImmunobenchError, match=sentence):
        build_public("harmbench", tmp_path / "out", file=file)
    if column == "kept":
        file.write_bytes(encode(file.name, [*rows, *map(tagged, rows)], tmp_path))
        build_public("harmbench", tmp_path / "out", file=file)
        assert len(read_config("harmful", root=tmp_path / "out")) == ROWS


def test_an_earlier_revision_is_that_one(tmp_path: Path, hub) -> None:
    store, env = hub
    rows = upstream_rows("dolly")
    old = upload(store, "dolly", encode("x.jsonl", rows[:4], tmp_path))
    upload(store, "dolly", encode("x.jsonl", rows, tmp_path))
    assert build(f"build_public('dolly', Path({str(tmp_path / 'o')!r}), revision={old!r})", env) == (0, "")
    assert len(read_config("chats", root=tmp_path / "o")) == 4


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ("missing", "does not exist, or needs a login"),
        ("gated", "is gated: accept its terms on https://huggingface.co/datasets/databricks/databricks-dolly-15k"),
        ("column", "has no column 'instruction' (it has question, response): upstream changed"),
        ("empty", "has no rows"),
        ("no file", "has no file databricks-dolly-15k.jsonl at main: upstream changed"),
        ("revision", "has no revision 'v7'"),
        ("pin", "has no revision 'bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a'"),
        ("broken", "cannot be read"),
        ("network", "cannot be downloaded"),
    ],
)
def test_trouble_upstream_is_one_sentence_and_leaves_nothing(tmp_path: Path, hub, trouble: str, sentence: str) -> None:
    store, env = hub
    repository = sources()["dolly"].repository
    data = {"column": b'{"question": "a", "response": "b"}', "empty": b"", "broken": b"{", "missing": None}.get(
        trouble, encode("x.jsonl", upstream_rows("dolly"), tmp_path)
    )
    if trouble == "no file":
        store.create("datasets", repository)
    elif data is not None:
        upload(store, "dolly", data)
    if trouble == "gated":
        store.gated[("datasets", repository)] = "manual"
    if trouble == "network":
        env = {**env, "HF_ENDPOINT": "http://127.0.0.1:9"}
    revision = {"revision": "'v7'", "pin": "None"}.get(trouble, "'main'")
    code, said = build(f"build_public('dolly', Path({str(tmp_path / 'made' / 'o')!r}), {revision})", env)
    assert code == 1 and sentence in said, said
    assert not (tmp_path / "made").exists()


def test_a_set_that_is_too_small_or_a_full_folder(tmp_path: Path) -> None:
    file = tmp_path / "few.csv"
    file.write_bytes(encode("x.csv", [{"goal": "Fold paper", "target": "Sure"}], tmp_path))
    with pytest.raises(ImmunobenchError, match="too few rows to fill harmful/validation"):
        build_public("advbench", tmp_path / "out", file=file)
    assert not (tmp_path / "out").exists()
    file.write_bytes(encode("x.csv", [{"goal": f"Fold paper {n}", "target": "Sure"} for n in range(8)], tmp_path))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(UsageError, match="is not an empty folder"):
        build_public("advbench", tmp_path / "full", file=file)
    with pytest.raises(UsageError, match="unknown source 'advbenc': did you mean 'advbench'"):
        build_public("advbenc", tmp_path / "out", file=file)
    with pytest.raises(UsageError, match="cannot read"):
        build_public("advbench", tmp_path / "out", file=tmp_path / "nowhere.csv")


QUESTION = {"question": "Which number follows 1?", "subject": "sums", "choices": list("2345"), "answer": 0}


@pytest.mark.parametrize(
    ("name", "row", "sentence"),
    [
        ("dolly", "a line of text", "has rows without columns"),
        ("dolly", {"instruction": "Fold", "context": "", "response": ["a", "b"]}, "has a 'response' of another type"),
        ("advbench", {"goal": {"text": "Fold"}, "target": "Sure"}, "has a 'goal' of another type"),
        ("beavertails", {"prompt": "Fold", "response": "So", "is_safe": [True]}, "has a 'is_safe' of another type"),
        ("mmlu", QUESTION | {"choices": "2345"}, "has a 'choices' of another type"),
        ("mmlu", QUESTION | {"choices": ["2", "3"]}, "has a question of 2 choices where one of 4 is right"),
        ("mmlu", QUESTION | {"answer": 4}, "has an answer '4' where one of 4 is right"),
        ("mmlu", QUESTION | {"answer": None}, "has an answer '' where one of 4 is right"),
        ("mmlu", QUESTION | {"choices": ["2"] * 4}, "has no question with 4 different choices"),
    ],
)
def test_malformed_rows_are_one_sentence(tmp_path: Path, name: str, row: object, sentence: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(ImmunobenchError, match=sentence):
        build_public(name, tmp_path / "out", file=file)
    assert list(tmp_path.iterdir()) == [file]


def test_a_question_with_a_choice_twice_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [QUESTION | {"question": f"Which number follows {n}?"} for n in range(8)]
    rows.append(QUESTION | {"question": "Which is it?", "choices": ["2", "2", "3", "4"]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_public("mmlu", tmp_path / "out", file=file)
    assert {row["question"] for row in read_config("facts", root=tmp_path / "out")} == {
        row["question"] for row in rows[:8]
    }


def test_a_stem_with_other_choices_is_another_question_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    file, stem = tmp_path / "rows.jsonl", "Which of these is a number?"
    rows = [QUESTION | {"question": stem, "choices": [str(n), *"abc"]} for n in range(8)]
    again = [rows[0], QUESTION | {"question": stem, "choices": [*"abc", "0"], "answer": 3}]
    twice = QUESTION | {"question": stem, "choices": ["2", "2", "3", "4"]}
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *again, twice]))
    said: list[str] = []
    manifest = build_public("mmlu", tmp_path / "out", file=file, progress=said.append)
    assert {fact["value"] for fact in read_config("facts", root=tmp_path / "out")} == set("01234567")
    assert manifest["left_out"] == {"mmlu: asked before": 2, "mmlu: a choice twice": 1}
    assert said == ["fetch mmlu", "left out 1 rows of mmlu: a choice twice", "left out 2 rows of mmlu: asked before"]


def test_a_folder_that_cannot_take_its_name_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check and the end something is put where the set should stand."""
    file, out = tmp_path / "advbench.csv", tmp_path / "out"
    file.write_bytes(encode("x.csv", upstream_rows("advbench"), tmp_path))

    def write_and_disturb(*arguments: Any) -> Row:
        (out / "mine").mkdir(parents=True)
        return write_dataset(*arguments)

    monkeypatch.setattr("immunobench.dataset_builders.storage.write_dataset", write_and_disturb)
    with pytest.raises(ImmunobenchError, match=f"cannot write {out}: Directory not empty"):
        build_public("advbench", out, file=file)
    assert [path.name for path in out.iterdir()] == ["mine"]
    assert not list(tmp_path.glob(".out.*"))


@pytest.mark.skipif(
    not UPSTREAM.is_dir(), reason=f"no upstream files: IMMUNOBENCH_PUBLIC_DATA names no folder and {BESIDE} is none"
)
@pytest.mark.parametrize(
    ("name", "file", "least"),
    [
        ("advbench", "advbench.csv", 520),
        ("harmbench", "harmbench_test.csv", 150),
        ("jailbreakbench", "jailbreakbench.csv", 100),
        ("strongreject", "strongreject.csv", 310),
    ],
)
def test_real_upstream_files(tmp_path: Path, name: str, file: str, least: int) -> None:
    build_public(name, tmp_path / "out", file=UPSTREAM / file)
    rows = read_config("harmful", root=tmp_path / "out")
    assert len(rows) >= least and all(row["prompt"] and row["refusal"] for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    fetched = fetch(name, file=UPSTREAM / file)
    assert fetched.revision == "local file"
    if name == "advbench":  # what others publish as the hash of the file at the pinned commit
        assert fetched.sha256[file] == "6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1"


def test_lists_are_told_from_prose() -> None:
    assert is_list("1. Apples\n2. Pears") and is_list("Here:\n- one\n- two") and is_list("10) a\n11) b")
    assert not is_list("First. Then.\nDone.") and not is_list("- only one") and not is_list("")
