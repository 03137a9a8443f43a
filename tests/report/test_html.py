"""The page: one file, well-formed, without a network, redacted, with the numbers of the record."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from immunobench.report.html import page
from immunobench.report.reading import StudyReport, read_studies
from tests.report.stored import ANSWER, FLAT, REQUEST, WORST_FIRST

VOID = {"meta", "link", "input", "img", "br", "path", "circle"}


class Reader(HTMLParser):
    """Checks that elements nest, and keeps attributes and ids."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.cells: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th") and "data-sort" in dict(attrs):
            self.cells.append({**dict(attrs), "text": ""})

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.cells and self.open and self.open[-1] in ("td", "th", "b", "span"):
            self.cells[-1]["text"] += data


@pytest.fixture(scope="module")
def text(studies: list[StudyReport]) -> str:
    return page(studies)


@pytest.fixture(scope="module")
def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(re.sub(r"<script>.*?</script>", "<script></script>", text, flags=re.DOTALL))
    return reader


def embedded(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_elements_nest_and_ids_are_unique_and_referred_to(read: Reader) -> None:
    assert read.open == []
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for _, name, value in read.attributes:
        if name in ("aria-labelledby", "aria-controls") or (name == "href" and value.startswith("#")):
            assert value.removeprefix("#") in ids


def test_nothing_is_loaded_from_anywhere(text: str, read: Reader) -> None:
    for tag, name, value in read.attributes:
        if name in ("src", "href", "srcset", "data", "action", "poster"):
            assert value.startswith(("#", "data:")), f"{tag} {name}={value[:60]}"
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None and "url(" not in style[1] and "@import" not in style[1]
    policy = next(value for tag, name, value in read.attributes if tag == "meta" and value.startswith("default-src"))
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_no_request_and_no_answer_is_in_the_bytes_unless_asked_for(studies: list[StudyReport], text: str) -> None:
    assert REQUEST not in text and ANSWER not in text and "onerror" not in embedded_text(text)
    shown = page(studies, transcripts=True)
    assert REQUEST in shown and ANSWER in shown
    assert "</script><img" not in shown, "an answer must not end the page's script"
    samples = embedded(shown)["subjects"][0]["samples"]
    assert all("</script><img" in answer for answer in samples["runs"]["t-facts"]["answers"].values())


def embedded_text(text: str) -> str:
    return json.dumps(embedded(text))


def test_labels_of_samples_are_those_measured(text: str) -> None:
    runs = embedded(text)["subjects"][0]["samples"]["runs"]
    assert set(runs) == set(FLAT)
    refused = {name: sum(label == "refused" for label in run["labels"].values()) for name, run in runs.items()}
    assert refused == {"none": 80, "prefill": 8, "quantise": 64, "unrelated-10": 40, "t-facts": 0}


def test_numbers_in_the_table_are_those_of_the_record(studies: list[StudyReport], read: Reader) -> None:
    scores = {score["adversary"]: score for score in studies[0].record["subjects"][0]["result"]["scores"]}
    rows = {row[0]["data-sort"]: row for row in (read.cells[i : i + 8] for i in range(0, len(read.cells), 8))}
    assert list(rows) == WORST_FIRST and set(rows) == set(scores)
    for name, row in rows.items():
        score = scores[name]
        found = [score["recovery"], score["knowledge"], score["behaviour"]["refused"], score["behaviour"]["right"]]
        for cell, estimate in zip(row[1:6], [*found, score["utility_drop"]], strict=True):
            assert float(cell["data-sort"]) == estimate["value"]
            words = " ".join(cell["text"].split())
            low, high = estimate["low"], estimate["high"]
            assert words.startswith(f"{estimate['value']:.2f} n {estimate['n']} [{low:.2f}, {high:.2f}]"), words
        assert row[7]["data-sort"] == score["outcome"]["name"]


def test_numbers_of_the_charts_are_those_of_the_record(studies: list[StudyReport], text: str) -> None:
    [subject] = embedded(text)["subjects"]
    result = studies[0].record["subjects"][0]["result"]
    assert subject["expected_maximum"] == result["immunity"]["expected_maximum"]
    curves = {(c["adversary"], c["variant"]): c for c in subject["curves"]}
    for score in result["scores"]:
        points = curves[score["adversary"], score["worst"]["variant"]]["points"]
        [worst] = [p for p in points if p["worst"]]
        assert worst["steps"] == score["worst"]["steps"] and worst["outcome"] == score["outcome"]["name"]
        for key, name in (("R", "recovery"), ("K", "knowledge"), ("utility_drop", "utility_drop")):
            assert worst[key] == [score[name][part] for part in ("value", "low", "high")]
    told = {p["label"]: p["right"][0] for p in subject["behaviour"]}
    assert told["subject, no attack"] == result["before"]["right"]["value"]


def test_the_page_says_the_verdict_the_rows_and_the_limits(text: str, studies: list[StudyReport]) -> None:
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text.split("<script")[0]))
    assert "organism:refusal is broken: locked" in plain
    for mode in studies[0].subjects[0].failure_modes:
        assert mode.name.capitalize() in plain
    assert "It is no proof of safety" in plain
    for record in studies[0].cells:
        assert record.cell.cell_id in text


def test_several_studies_are_compared(two_studies: list[StudyReport]) -> None:
    text = page(two_studies)
    assert "longest answer: 64 in locked, 32 in open" in text
    assert text.count('role="tabpanel"') == 2 and len(embedded(text)["subjects"]) == 2


def test_diagnoses_are_shown_with_their_tables_and_without_the_texts_they_read(
    study_folder: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(study_folder, tmp_path / "study")
    table = {
        "title": "A table",
        "columns": ["layer", "share"],
        "rows": [["block 0", {"value": 0.5, "low": 0.25, "high": None}]],
    }
    diagnosis = {
        "name": "own",
        "subject": "refusal",
        "summary": "A finding.",
        "meaning": "A meaning.",
        "tables": [table],
    }
    (root / "diagnostics").mkdir()
    (root / "diagnostics" / "own.json").write_text(json.dumps(diagnosis | {"figures": {"tokens": [ANSWER]}}))
    text = page(read_studies([root]))
    assert "A finding." in text and "A meaning." in text and "A table" in text
    assert re.search(r"block 0</td><td>\s*0\.50 <span class=.interval.>\[0\.25, …\]", text)
    assert ANSWER not in text


def test_the_page_of_several_engines_says_which_ran_what(mixed_study: list[StudyReport], text: str) -> None:
    mixed = page(mixed_study)
    found = dict(re.findall(r'<summary>(\S+) <span class="family">[^<]*, on (\w+)</span>', mixed))
    assert found == {name: "hf" if name == "quantise" else "vllm" for name in FLAT}
    assert len(re.findall(r"seed 0 · hf instead of vllm · cell", mixed)) == 6, (
        "quantise and the second baseline on three models"
    )
    assert ", on hf</span>" not in text
