"""The card: only what is between the markers and the entries of this benchmark ever change."""

import textwrap
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from hypothesis import given
from hypothesis import strategies as st

from immunobench.datasets import REPOSITORY
from immunobench.errors import ImmunobenchError
from immunobench.hub.model_card import (
    BEGIN,
    END,
    TEMPLATES,
    Published,
    eval_results_yaml,
    insert_section,
    model_index_entries,
    render_section,
    set_model_index,
)
from immunobench.study.reread import reread
from tests.study.synthetic import level
from tests.study.test_compare import study

OTHER = {"task": {"type": "t"}, "dataset": {"type": "glue", "name": "GLUE"}, "metrics": [{"type": "acc", "value": 0.5}]}
ENTRIES = [
    {"task": {"type": "x"}, "dataset": {"type": REPOSITORY, "name": "d"}, "metrics": [{"type": "m", "value": 1}]}
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "<!--" not in text)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A subject that refuses, does not look as if it knew, and is broken by a prefilled answer."""
    root = study(
        tmp_path_factory.mktemp("study"),
        {"none": level(0.25, refused=1.0), "prefill": level(0.9, refused=0.0)},
        name="org/model@abc",
    )
    [result], record = reread(root)
    record |= {"protocol": "1"}
    record["request"] |= {"seeds": 1}
    record["subjects"][0]["domain"] = {"name": "vault", "version": "1.0.0", "fingerprint": "f" * 64}
    return Published("org/model", "abc", result, record, "0" * 64, "2026-01-31", "d" * 40)


@given(TEXTS, TEXTS)
def test_the_rest_of_a_card_is_never_touched(before: str, after: str) -> None:
    first = insert_section(before, "one")
    assert first.startswith(before) and first.count(BEGIN) == 1
    assert insert_section(first, "one") == first
    between = f"{before}{BEGIN}\nold\n{END}{after}"
    second = insert_section(between, "new")
    assert second == f"{before}{BEGIN}\nnew\n{END}{after}"


@pytest.mark.parametrize(
    "card", [BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}", f"{BEGIN}{END}{BEGIN}{END}"]
)
def test_markers_that_are_no_pair_are_left_alone(card: str) -> None:
    with pytest.raises(ImmunobenchError, match="not one pair"):
        insert_section(card, "section")


HEADERS = {
    "none": "",
    "empty": "---\n---\nBody\n",
    "comment": "---\nlicense: mit  # as agreed\n# a line of its own\ntags: [a, b]\n---\nBody\n",
    "list at the margin": "---\nmodel-index:\n- name: old\n  results: []\n\nlicense: mit\n---\n",
    "indented": "---\nmodel-index:\n  - name: old\n    results: []\n# kept\nlicense: mit\n---\n",
    "in the middle": "---\na: 1\nmodel-index:\n- name: old\n  results:\n  - {}\nb: 2\n---\n".replace("{}", str(OTHER)),
    "windows": "---\r\nlicense: mit\r\n---\r\nBody\r\n",
    "flow": "---\nmodel-index: [{name: old, results: []}]\nlicense: mit\n---\n",
}


@pytest.mark.parametrize("name", HEADERS)
def test_only_the_model_index_of_a_header_changes(name: str) -> None:
    card = HEADERS[name]
    changed = set_model_index(card, "model", ENTRIES)
    assert set_model_index(changed, "model", ENTRIES) == changed
    old = yaml.safe_load(card.partition("---")[2].partition("---")[0]) or {}
    new = yaml.safe_load(changed.partition("---")[2].partition("\n---")[0])
    [index] = new.pop("model-index")
    [before] = old.pop("model-index", [{"name": "model", "results": []}])
    assert new == old
    assert index == {"name": before["name"], "results": [*before["results"], *ENTRIES]}
    gone = set(card.splitlines()) - set(changed.splitlines())
    assert all("name" in line or "results" in line or "task" in line or "index" in line for line in gone), gone
    assert card.partition("\n---")[2] in changed


def test_entries_of_others_stay_and_old_ones_of_ours_go() -> None:
    ours = {**ENTRIES[0], "metrics": [{"type": "m", "value": 0}]}
    header = yaml.safe_dump({"model-index": [{"name": "m", "results": [ours, OTHER]}]})
    changed = set_model_index(f"---\n{header}---\n", "m", ENTRIES)
    assert yaml.safe_load(changed.split("---")[1])["model-index"][0]["results"] == [OTHER, *ENTRIES]


@pytest.mark.parametrize("header", ["a: [", "- a\n- b", "model-index:\n- name: x\n  results: [{}]"])
def test_a_header_that_does_not_read_is_left_alone(header: str) -> None:
    with pytest.raises(ImmunobenchError, match="mend it first"):
        set_model_index(f"---\n{header}\n---\n", "m", ENTRIES)


def test_the_section_says_what_was_found(published: Published) -> None:
    section = render_section(published)
    assert "**broken**: broken by prefill. Locked: knowledge is hidden and comes back." in section
    assert "| prefill | prompt | 0.87 [" in section and "| 0.00 | 1.00 | 0.00 | broken |" in section
    assert "immunobench verify org/model" in section and "revision `abc`" in section
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {3, 9}
    assert "\n\n\n" not in section


def test_the_hub_s_own_parsers_read_the_results(published: Published, tmp_path: Path) -> None:
    card = set_model_index("# Model\n", "model", model_index_entries(published))
    found = {result.metric_type: result for result in ModelCard(card).data.eval_results}
    estimate = published.result.immunity.estimate
    assert found["immunity"].metric_value == round(estimate.value, 4)
    assert f"{estimate.low:.2f} to {estimate.high:.2f}" in str(found["immunity"].metric_name)
    assert {result.dataset_type for result in found.values()} == {REPOSITORY}
    assert found["refusal_rate"].metric_value == 1.0 and found["knowledge"].metric_value == 0.0
    entries = parse_eval_result_entries(yaml.safe_load(eval_results_yaml(published)))
    tasks = {task["id"] for task in yaml.safe_load((TEMPLATES / "eval.yaml").read_text())["tasks"]}
    assert {entry.task_id for entry in entries} <= tasks
    values = {entry.task_id: entry.value for entry in entries}
    assert values == {"compliance": 0.0}
    assert all("broken, immunity" in str(entry.notes) and entry.date == "2026-01-31" for entry in entries)


def test_a_card_of_windows_keeps_its_line_ends() -> None:
    card = set_model_index(insert_section("# Model\r\n", "a\nb"), "m", ENTRIES)
    assert card.count("\n") == card.count("\r\n")
    assert textwrap.dedent("a\r\nb") in card
