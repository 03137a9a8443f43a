"""Text formats: their numbers are those of the record, and their syntax is that of the format."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from immunobench.protocol.v1 import ADVERSARIES
from immunobench.report.formats import as_bibtex, as_csv, as_json, as_latex, as_markdown
from immunobench.report.papers import BENCHMARK, papers
from immunobench.report.reading import StudyReport
from tests.report.stored import FLAT


def test_csv_holds_the_numbers_of_the_record(studies: list[StudyReport]) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(studies))))
    scores = studies[0].record["subjects"][0]["result"]["scores"]
    assert [row["adversary"] for row in rows] == [score["adversary"] for score in scores] == list(FLAT)
    for row, score in zip(rows, scores, strict=True):
        assert row["outcome"] == score["outcome"]["name"]
        for name in ("recovery", "knowledge", "utility_drop"):
            found = [float(row[column]) for column in (name, f"{name}_low", f"{name}_high", f"{name}_n")]
            assert found == [score[name][part] for part in ("value", "low", "high", "n")]
        assert float(row["refused"]) == score["behaviour"]["refused"]["value"]
        assert float(row["cost_to_break_steps"]) == score["cost_to_break"]["steps"]["value"]
        assert row["cost_to_break_steps_censored"] == str(score["cost_to_break"]["steps"]["censored"])


def test_markdown_has_the_verdict_and_a_row_an_adversary(studies: list[StudyReport]) -> None:
    text = as_markdown(studies)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 1
    assert [line.split("|")[1].strip() for line in tables[2:]] == list(FLAT)
    assert "organism:refusal is broken: locked" in text
    [row] = [line for line in tables if line.startswith("| t-facts")]
    assert "| 5 |" in row, "R reaches one half at step 5"


def test_json_of_one_study_is_its_record_and_of_two_both(two_studies: list[StudyReport]) -> None:
    assert json.loads(as_json(two_studies[:1])) == json.loads(json.dumps(two_studies[0].record))
    both = json.loads(as_json(two_studies))
    assert list(both["studies"]) == ["locked", "open"]
    assert any(line.startswith("longest answer: 64 in locked, 32 in open") for line in both["differences"])
    assert not any("protocol" in line for line in both["differences"])


def test_latex_is_balanced_and_escaped(two_studies: list[StudyReport]) -> None:
    text = as_latex(two_studies)
    opened, closed = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(opened) == sorted(closed) and opened.count("table") == 3
    bare = re.sub(r"\\.", "", text)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search(r"[_%#^~—≥−φ]", re.sub(r"\\label\{.*\}", "", bare))
    for block in re.findall(r"\\begin\{tabular\}\{(l+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in block[1].splitlines() if line.endswith("\\\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(block[0])}
    assert r"\textbf{t-facts}" in text


def test_bibtex_has_the_benchmark_and_each_source_once(two_studies: list[StudyReport]) -> None:
    entries = re.findall(r"^@(\w+)\{([^,]+),$", as_bibtex(two_studies), re.MULTILINE)
    assert entries[0] == ("software", "immunobench")
    keys = [key for _, key in entries]
    assert len(keys) == len(set(keys))
    assert {"arxiv-2409.18025", "arxiv-2410.08827", "arxiv-2410.16454"} <= set(keys)
    text = as_bibtex(two_studies)
    assert "author = {Deeb and Roger}" in text and "author = {Łucki and others}" in text
    assert text.count("\n  title = {") == text.count("\n  year = {") == len(entries)


def test_every_adversary_s_paper_has_an_entry_with_a_title() -> None:
    sources = {row.source for row in ADVERSARIES.values()} - {"no attack"}
    for source in sources:
        entries = list(papers(source))
        assert len(entries) == source.count("arXiv") or "arXiv" not in source, source
        assert entries and all("\n  title = {{" in entry for _, entry in entries), source
    [(_, entry)] = papers("Nobody & Someone 2031, arXiv 3101.00001")
    assert "title" not in entry and "eprint = {3101.00001}" in entry, "no title is made up"


def test_the_documentation_cites_the_benchmark_in_the_same_words() -> None:
    assert BENCHMARK in (Path(__file__).parents[2] / "docs" / "citing.md").read_text()


@pytest.mark.parametrize("form", [as_markdown, as_csv, as_latex])
def test_two_studies_stand_side_by_side(form: object, two_studies: list[StudyReport]) -> None:
    text = form(two_studies)  # type: ignore[operator]
    assert "locked" in text and "open" in text and text.count("t-facts") >= 2


def test_each_format_tells_which_engine_ran_what(mixed_study: list[StudyReport], studies: list[StudyReport]) -> None:
    wanted = {name: "hf" if name == "quantise" else "vllm" for name in FLAT}
    rows = csv.DictReader(io.StringIO(as_csv(mixed_study)))
    assert {row["adversary"]: row["engine"] for row in rows} == wanted
    record = json.loads(as_json(mixed_study))
    assert {s["adversary"]: s["engine"] for s in record["subjects"][0]["result"]["scores"]} == wanted
    head, _, *lines = [line.split(" | ") for line in as_markdown(mixed_study).splitlines() if line.startswith("|")]
    assert {line[0].removeprefix("| "): line[head.index("engine")] for line in lines} == wanted
    assert " & engine & " in as_latex(mixed_study)
    alike = as_markdown(studies)
    assert "| engine |" not in alike, "one engine is named once, in the provenance"
