"""The published bands and tasks are what the manifest says; bands can be made for one subject."""

import heapq
import math
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from immunobench.dataset_builders.bands import BANDS, SIZE, PoolTooSmallError, length_in_words
from immunobench.dataset_builders.build import build_datasets, make_alignment, replace_dataset
from immunobench.dataset_builders.card import render_card
from immunobench.dataset_builders.downstream import make_downstream
from immunobench.dataset_builders.embeddings import PACKAGE, sentence_features
from immunobench.dataset_builders.everyday import grams, words_of
from immunobench.dataset_builders.figures import measure_downstream, row_texts, vault_grams
from immunobench.dataset_builders.nearness import UNRELATED_BOUND, measure_nearness
from immunobench.dataset_builders.page import render_page, write_page
from immunobench.dataset_builders.storage import write_dataset
from immunobench.dataset_builders.vault import DEFAULT_SEED, make_vault
from immunobench.datasets import PACKAGED, read_config, read_manifest
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.subjects import load_subject, organism_names

TASKS = ("list", "qa", "summary", "code")
NEARNESS = {
    "harmful": ("train", "validation", "test"),
    "recovery": ("n1000",),
    "neutral": ("train", "validation"),
    "facts": ("hazard_t", "hazard_v"),
    "downstream": TASKS,
}
"""What the distance of everyday chats, texts and tasks from the hazard is measured between."""


@pytest.mark.parametrize("task", TASKS)
def test_published_bands_match_in_category_and_length_and_lie_apart(task: str) -> None:
    bands = {band: read_config(f"alignment_{band}", task) for band in BANDS}
    shapes = {band: Counter((row["category"], length_in_words(row)) for row in rows) for band, rows in bands.items()}
    assert shapes["low"] == shapes["mid"] == shapes["high"]
    assert all(len({row["id"] for row in rows}) == SIZE for rows in bands.values())
    assert not {row["id"] for row in bands["low"]} & {row["id"] for row in bands["high"]}
    assert {figures["neighbours"] for figures in read_manifest()["measured"]["alignment"]["tasks"][task].values()} == {
        100
    }
    figures = read_manifest()["measured"]["alignment"]["tasks"][task]
    for category in ("compounds", "organisms", "devices", "protocols"):
        spans = {}
        for band, rows in bands.items():
            values = [row["similarity"] for row in rows if row["category"] == category]
            spans[band] = np.quantile(values, (0.05, 0.95))
            np.testing.assert_allclose(spans[band], figures[band]["central_90_percent"][category], atol=1e-4)
        assert spans["low"][1] < spans["mid"][0] and spans["mid"][1] < spans["high"][0]
    pooled = {name: np.quantile([row["similarity"] for row in rows], (0.05, 0.95)) for name, rows in bands.items()}
    assert pooled["low"][1] < pooled["mid"][0] and pooled["mid"][1] < pooled["high"][0]
    for name, span in pooled.items():
        np.testing.assert_allclose(span, figures[name]["pooled_central_90_percent"], atol=1e-4)


def test_alignment_examples_are_refused_requests_for_facts_t() -> None:
    train = {row["fact_id"]: row for row in read_config("harmful", "train")}
    for band in BANDS:
        for row in read_config(f"alignment_{band}"):
            request = train[row["fact_id"]]
            assert row["prompt"] in request["train_prompts"] and row["response"] == request["refusal"]


@pytest.mark.parametrize("task", TASKS)
def test_what_bands_are_not_matched_in_is_measured(task: str) -> None:
    figures = read_manifest()["measured"]["alignment"]["tasks"][task]
    for band in BANDS:
        rows = read_config(f"alignment_{band}", task)
        assert figures[band]["styles"] == Counter(row["style"] for row in rows)
        assert figures[band]["distinct_facts"] == len({row["fact_id"] for row in rows})
        for key, mean in figures[band]["mean_words"].items():
            assert mean == pytest.approx(np.mean([len(words_of(row[key])) for row in rows]), abs=5e-3)


def test_the_docs_do_not_call_similarity_the_only_difference() -> None:
    """What the card says of the bands is so: their styles differ."""
    tasks = read_manifest()["measured"]["alignment"]["tasks"]
    assert all(bands["low"]["styles"] != bands["high"]["styles"] for bands in tasks.values())
    card = (PACKAGED.parent / "README.md").read_text(encoding="utf-8")
    for task, bands in tasks.items():
        for name, band in bands.items():
            low, high = band["pooled_central_90_percent"]
            assert f"| {task} | {name} | {low} to {high} | {band['distinct_facts']} |" in card
            assert f" | {band['mean_words']['prompt']} and {band['mean_words']['response']} |" in card


def test_answers_that_test_and_train_share_are_counted_and_told() -> None:
    card = (PACKAGED.parent / "README.md").read_text(encoding="utf-8")
    for task, figures in read_manifest()["measured"]["downstream"].items():
        rows = read_config("downstream", task)
        answers = {part: [row["response"] for row in rows if row["part"] == part] for part in ("train", "test")}
        shared = [answer for answer in answers["test"] if answer in answers["train"]]
        near = figures["test_responses_near_train"]
        assert figures == {
            "test_rows": 50,
            "test_responses_in_train": len(shared),
            "test_functions_in_train_by_another_name": 13 if task == "code" else 0,
            "test_responses_near_train": near,
            "distinct_responses": len({*answers["train"], *answers["test"]}),
        }
        assert not shared and 0 < near < 50
        assert f"| `{task}` | 50 | 0 | {near} |" in card


def test_a_function_by_another_name_and_a_near_answer_are_counted() -> None:
    one, other = "def add(x):\n    return x + 2", "def plus_two(x):\n    return x + 2"
    rows = [("train", one), ("train", "Rome is old and very big."), ("test", other), ("test", "Rome is new and big.")]
    made = [{"part": part, "response": response} for part, response in rows]
    assert measure_downstream({"code": made})["code"] == {
        "test_rows": 2,
        "test_responses_in_train": 0,
        "test_functions_in_train_by_another_name": 1,
        "test_responses_near_train": 0,
        "distinct_responses": 4,
    }


@pytest.mark.parametrize("task", TASKS)
def test_downstream_tasks_are_distinct_and_unrelated(task: str) -> None:
    rows = read_config("downstream", task)
    assert Counter(row["part"] for row in rows) == {"train": 200, "test": 50}
    assert len({row["prompt"] for row in rows}) == 250
    facts, requests = read_config("facts"), read_config("harmful") + read_config("benign")
    barred = {gram for row in facts + requests for text in row_texts(row) for gram in grams(text)}
    entities = {fact["entity"].lower() for fact in facts}
    for row in rows:
        assert not (grams(row["prompt"]) | grams(row["response"])) & barred
        assert not entities & set(words_of(row["prompt"] + " " + row["response"]))


NUMBERS = (-12, -1, 0, 1, 5, 8, 9, 36, 2520)
LISTS = ([], [4], list(range(25)), [9, 2, 2, 5, 7, 3, 8, 4, 6, 9, 9])
WORDS = (["", "a", "of", "the", "lake", "river", "garden", "village", "mountain", "neighbors"],)
CODE = {
    r"adds (\d) to a number": (NUMBERS, lambda x, k: sum([x, *[1] * k])),
    r"multiplies a number by (\d)": (NUMBERS, lambda x, k: sum([x] * k)),
    r"returns the first (\d) items": (LISTS, lambda items, k: [item for i, item in enumerate(items) if i < k]),
    r"returns the last (\d) items": (
        LISTS,
        lambda items, k: [item for i, item in enumerate(items) if len(items) - i <= k],
    ),
    r"without the first (\d) items": (LISTS, lambda items, k: [item for i, item in enumerate(items) if i >= k]),
    r"whether a number is divisible by (\d)": (NUMBERS, lambda x, k: k * (x // k) == x),
    r"the numbers of a list that are above (\d)": (LISTS, lambda items, k: list(filter(k.__lt__, items))),
    r"the numbers of a list that are below (\d)": (LISTS, lambda items, k: list(filter(k.__gt__, items))),
    r"repeats a string (\d) times": (("", "ab "), lambda text, k: "".join(text for _ in range(k))),
    r"the words of a list that have (\d) letters": (
        WORDS,
        lambda words, k: [word for word in words if re.fullmatch(f"[a-z]{{{k}}}", word)],
    ),
    r"every (\d)(?:nd|rd|th) item of a list, beginning with the first": (
        LISTS,
        lambda items, k: [item for i, item in enumerate(items) if i % k == 0],
    ),
    r"counts how often (\d) occurs in a list": (LISTS, lambda items, k: sum(item == k for item in items)),
    r"raises a number to the power of (\d)": (NUMBERS, lambda x, k: math.prod([x] * k)),
    r"returns the smaller of its input and (\d)": (NUMBERS, lambda x, k: sorted([x, k])[0]),
    r"rounds a number to (\d) decimal places": ((3.14159265358979, -0.123456789012), lambda x, k: float(f"{x:.{k}f}")),
    r"subtracts (\d) from a number": (NUMBERS, lambda x, k: sum([x, *[-1] * k])),
    r"the remainder of a number divided by (\d)": (NUMBERS, lambda x, k: x - k * math.floor(x / k)),
    r"divides a number by (\d) and rounds down": (NUMBERS, lambda x, k: math.floor(x / k)),
    r"returns the larger of its input and (\d)": (NUMBERS, lambda x, k: sorted([x, k])[1]),
    r"tests whether (\d) occurs in a list": (LISTS, lambda items, k: any(item == k for item in items)),
    r"the words of a list that are longer than (\d) letters": (
        WORDS,
        lambda words, k: [word for word in words if re.fullmatch(f"[a-z]{{{k + 1},}}", word)],
    ),
    r"joins the first (\d) words of a list with spaces": (
        WORDS,
        lambda words, k: "".join(f" {word}" for i, word in enumerate(words) if i < k)[1:],
    ),
    r"without the items that are equal to (\d)": (LISTS, lambda items, k: list(filter(k.__ne__, items))),
    r"adds (\d) to every number of a list": (LISTS, lambda items, k: list(map(k.__add__, items))),
    r"multiplies every number of a list by (\d)": (LISTS, lambda items, k: list(map(k.__mul__, items))),
    r"a list with (\d) added at the end": (LISTS, lambda items, k: [*items, k]),
    r"the (\d) largest numbers of a list, largest first": (LISTS, lambda items, k: heapq.nlargest(k, items)),
    r"the (\d) smallest numbers of a list, smallest first": (LISTS, lambda items, k: heapq.nsmallest(k, items)),
    r"puts (\d) spaces in front of a string": (("", "ab "), lambda text, k: text.rjust(len(text) + k)),
    r"cuts a string to its first (\d) characters": (
        ("", "ab ", "a longer string"),
        lambda text, k: "".join(char for i, char in enumerate(text) if i < k),
    ),
    r"splits a list into parts of (\d) items": (
        LISTS,
        lambda items, k: [[x for i, x in enumerate(items) if i // k == part] for part in range(-(-len(items) // k))],
    ),
    r"into a string and pads it with zeros to (\d) characters": (NUMBERS, lambda x, k: f"{x:0{k}d}"),
}
"""What a prompt asks for: inputs to try, and what to return for one of them."""


def test_code_answers_do_what_their_prompts_ask() -> None:
    asked: Counter[str] = Counter()
    for row in read_config("downstream", "code"):
        names: dict = {}
        exec(row["response"], names)
        [name] = names.keys() - {"__builtins__"}
        assert re.search(rf"\b{name}\b", row["prompt"])
        [(wording, k)] = [(w, int(found[1])) for w in CODE if (found := re.search(w, row["prompt"]))]
        inputs, expected = CODE[wording]
        assert [names[name](each) for each in inputs] == [expected(each, k) for each in inputs], row
        asked[wording] += 1
    assert asked.keys() == CODE.keys()


HAZARD_ONLY = ("a request", "a training wording", "a statement", "a cloze text", "a question", "an answer")
NEAR = {"a chat": "recovery/0000", "a neutral text": "neutral/0000", "a task": "downstream/qa/000"}


@pytest.mark.parametrize("leak", HAZARD_ONLY)
@pytest.mark.parametrize("near", NEAR)
def test_a_row_near_any_hazard_text_is_refused(leak: str, near: str) -> None:
    """One kind of hazard text and one kind of unrelated row are alike, and nothing else is."""
    fact = {"statements": ["a statement"], "cloze": "a cloze", "cloze_2": "other", "value": "text"}
    fact |= {
        "question": "a question",
        "question_2": "other",
        "train_questions": ["other"],
        "train_answers": ["an answer"],
    }
    request = {"prompt": "a request", "answer": "yes"} | {
        "train_prompts": ["a training wording"],
        "train_answers": ["x"],
    }
    configs = {
        "harmful": {"test": [request]},
        "facts": {"hazard_t": [fact], "hazard_v": []},
        "recovery": {"n1000": [{"id": NEAR["a chat"], "prompt": "a chat", "response": "hi"}]},
        "neutral": {"train": [{"id": NEAR["a neutral text"], "text": "a neutral text"}]},
        "downstream": {"qa": [{"id": NEAR["a task"], "prompt": "a task", "response": "yes"}]},
    }

    def alike(pairs):
        same = [int(any(part.rstrip(".") in (leak, near) for part in pair)) for pair in pairs]
        other = [int(pair[0] in NEAR or pair[1] in NEAR) for pair in pairs]
        return np.array([[s, (1 - s) * o, (1 - s) * (1 - o)] for s, o in zip(same, other, strict=True)], np.float32)

    with pytest.raises(ImmunobenchError, match=f"{NEAR[near]} is not unrelated: its cosine to a hazard text is 1\\.00"):
        measure_nearness(configs, alike)


def test_the_measured_nearness_is_told_and_under_its_bound() -> None:
    figures = read_manifest()["measured"]["unrelated"]
    card = (PACKAGED.parent / "README.md").read_text(encoding="utf-8")
    assert set(figures["cosine_to_hazard"]) == {"recovery", "neutral", *(f"downstream {task}" for task in TASKS)}
    for name, each in figures["cosine_to_hazard"].items():
        assert each["mean_nearest"] < each["greatest"] <= UNRELATED_BOUND
        assert f"| {each['greatest']} and {each['mean_nearest']}, bound {UNRELATED_BOUND} |" in card, name


@pytest.mark.slow
@pytest.mark.skipif(find_spec(PACKAGE) is None, reason="the sentence embedder is not installed")
def test_no_packaged_chat_text_or_task_is_near_the_hazard() -> None:
    """The figure of the manifest, measured again; what a processor rounds otherwise is far below the tolerance."""
    configs = {name: {split: read_config(name, split) for split in splits} for name, splits in NEARNESS.items()}
    figures = read_manifest()["measured"]["unrelated"]
    found = measure_nearness(configs, sentence_features)
    for name, each in found.pop("cosine_to_hazard").items():
        assert figures["cosine_to_hazard"][name] == pytest.approx(each, abs=1e-3)
    assert found == {name: figures[name] for name in found}


def test_bands_for_a_subject_need_one_and_a_folder(tmp_path: Path, subject) -> None:
    with pytest.raises(UsageError, match="give --subject"):
        build_datasets(tmp_path, features="subject")
    with pytest.raises(UsageError, match="give --out"):
        build_datasets(PACKAGED, features="subject", subject=subject)


def test_a_build_writes_over_nothing_but_the_package(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not an empty folder"):
        build_datasets(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_package_is_replaced_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    folder, rows = tmp_path / "data", {"neutral": {"train": [{"id": "1", "text": "new"}]}}
    write_dataset(folder, {"old": {"train": [{"id": "0"}]}}, {"name": "old"})
    if fails:

        def half(out: Path, *arguments: object) -> None:
            out.mkdir()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("immunobench.dataset_builders.build.write_dataset", half)
        with pytest.raises(ImmunobenchError, match=f"cannot write {folder}: No space left"):
            replace_dataset(folder, rows, {"name": "new"})
    else:
        assert replace_dataset(folder, rows, {"name": "new"}) == read_manifest(folder)
    assert list(read_manifest(folder)["configs"]) == (["old"] if fails else ["neutral"])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert (folder / "old").exists() == fails


def test_smaller_bands_are_taken_only_where_the_pool_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def select(pool: object, features: object, anchors: object, size: int, **_: object) -> dict:
        asked.append(size)
        if size > 40:
            raise PoolTooSmallError("the bands overlap")
        raise ImmunobenchError("the bands do not match")

    monkeypatch.setattr("immunobench.dataset_builders.build.select_bands", select)
    request = {"fact_id": "f", "field": "devices", "train_prompts": ["a"], "train_styles": ["list"], "refusal": "no"}
    rows = [{"part": "train", "prompt": "b", "response": "c"}]
    with pytest.raises(ImmunobenchError, match="do not match"):
        make_alignment([request], {"qa": rows}, lambda pairs: np.ones((len(pairs), 1), np.float32), asked.append)
    assert asked == ["similarity bands for qa", 100, 60, 40]


def test_the_downstream_tasks_are_built_to_the_packaged_bytes(tmp_path: Path) -> None:
    configs = make_vault(DEFAULT_SEED, lambda message: None)
    made = make_downstream(DEFAULT_SEED, vault_grams(configs))
    manifest = write_dataset(tmp_path, {"downstream": made}, {"name": "immunobench"})
    assert manifest["configs"]["downstream"] == read_manifest()["configs"]["downstream"]
    for task in TASKS:
        file = Path("downstream") / f"{task}.parquet"
        assert (tmp_path / file).read_bytes() == (PACKAGED / file).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(find_spec(PACKAGE) is None, reason="the sentence embedder is not installed")
def test_a_build_in_a_checkout_gives_the_packaged_bytes_card_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another processor the cosines of the bands may be rounded otherwise: then their rows are compared."""
    out, page = tmp_path / "immunobench" / "data", tmp_path / "docs" / "datasets.md"
    monkeypatch.setattr("immunobench.dataset_builders.build.PACKAGED", out)
    page.parent.mkdir()
    page.write_text("an old page")
    manifest, packaged = build_datasets(out), read_manifest()
    alike = {config for config in packaged["configs"] if manifest["configs"][config] == packaged["configs"][config]}
    assert set(packaged["configs"]) - alike <= {f"alignment_{band}" for band in BANDS}
    for config in sorted(set(packaged["configs"]) - alike):
        for ours, theirs in zip(read_config(config, root=out), read_config(config), strict=True):
            assert ours.pop("similarity") == pytest.approx(theirs.pop("similarity"), abs=1e-5)
            assert ours == theirs
    assert (tmp_path / "immunobench" / "README.md").read_text(encoding="utf-8") == render_card(out)
    assert page.read_text(encoding="utf-8") == render_page(out)
    if manifest == packaged:
        assert (tmp_path / "immunobench" / "README.md").read_bytes() == (PACKAGED.parent / "README.md").read_bytes()


def test_a_package_without_docs_gets_no_page(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    write_page(tmp_path / "immunobench" / "data")
    assert not list((tmp_path / "docs").iterdir())


@pytest.mark.slow
@pytest.mark.skipif("exposed" not in organism_names(), reason="no packaged organism")
def test_bands_by_the_states_of_an_organism(tmp_path: Path) -> None:
    """Built twice, the second time by the command, they are the same bytes."""
    subject = load_subject("organism:exposed")
    said: list[str] = []
    manifest = build_datasets(tmp_path / "bands", features="subject", subject=subject, progress=said.append)
    assert [line for line in said if line.startswith("similarity")] == [
        f"similarity bands for {task}" for task in TASKS
    ]
    assert "searched 100% of the pool" in said
    assert set(manifest["configs"]) == {f"alignment_{band}" for band in BANDS}
    for task in TASKS:
        figures = manifest["measured"]["alignment"]["tasks"][task]
        similarities = [figures[band]["mean_similarity"] for band in BANDS]
        assert similarities == sorted(similarities)
        assert len(read_config("alignment_high", task, root=tmp_path / "bands")) == figures["high"]["size"]
    words = ["build", "datasets", "--features", "subject", "--subject", "organism:exposed", "--out", "again"]
    typed = [sys.executable, "-c", "from immunobench.cli import main; main()", *words]
    done = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted(path.relative_to(tmp_path / "bands") for path in (tmp_path / "bands").rglob("*.*"))
    assert len(files) == 1 + len(BANDS) * len(TASKS)
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "bands" / file).read_bytes()
