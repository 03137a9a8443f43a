"""Slopes against other ways of computing them, controls by their definition, and the base put back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from immunobench import datasets
from immunobench.diagnostics.alignment_score import read_alignment, score_alignment_set, table
from immunobench.diagnostics.base import References
from immunobench.diagnostics.durability import (
    BANDS,
    SETS,
    DurabilityDiagnostic,
    last_states,
    refusals,
    shuffled,
    similarity_to,
    slopes,
    task_examples,
)
from immunobench.domains import Domain, Example
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.subjects import Subject
from tests.conftest import same_bits, weights

SIMILARITY = {"low": 0.1, "mid": 0.2, "high": 0.4}


def runs(effect: float, noise: float = 0.01) -> list[dict[str, Any]]:
    """Three seeds of runs in which each unit of similarity takes ``effect`` of the refusals, shuffled sets none."""
    generator = np.random.default_rng(0)
    found: list[dict[str, Any]] = []
    for seed in range(3):
        for name in SETS:
            similarity = SIMILARITY[label := name.rpartition(" ")[2]]
            lost = 0.2 + effect * similarity * (name in BANDS) + noise * generator.standard_normal()
            row = {
                "set": name,
                "label": label,
                "seed": seed,
                "similarity": similarity,
                "own_similarity": 2 * similarity,
            }
            found.append(
                row | {"lost": lost, "lost_by_item": [lost, lost], "gained": 0.0, "gained_by_item": [0.0, 0.0]}
            )
    return found


def test_slope_is_that_of_the_bands_alone() -> None:
    rows = runs(0.8)
    real = [row for row in rows if row["set"] in BANDS]
    found = slopes(rows, "lost")
    slope = np.polyfit([r["similarity"] for r in real], [r["lost"] for r in real], 1)[0]
    assert found["bands"]["slope"].value == pytest.approx(slope)
    assert found["bands_by_own_similarity"]["slope"].value == pytest.approx(slope / 2)
    assert found["bands"]["slope"].low > 0.5 and found["bands"]["p_value"] <= 2 / 216
    assert found["by_set"]["low"].value == pytest.approx(np.mean([r["lost"] for r in real if r["set"] == "low"]))


def test_shuffled_sets_have_an_interval_of_their_own() -> None:
    """One of every label and seed: nine runs, where three would leave the interval infinite."""
    shuffled_sets = slopes(runs(0.8), "lost")["shuffled"]["slope"]
    assert shuffled_sets.n == 9
    assert -0.3 < shuffled_sets.low <= 0 <= shuffled_sets.high < 0.3


@pytest.mark.parametrize("task", ["qa", "list"])
def test_bands_and_the_shuffled_set_are_matched(task: str) -> None:
    bands = {band: datasets.read_config(f"alignment_{band}", task) for band in BANDS}
    drawn = [shuffled(bands, seed) for seed in (0, 1)]
    sizes = {band: len(rows) for band, rows in bands.items()}
    assert len({*sizes.values(), *map(len, drawn)}) == 1
    categories = [sorted(row["category"] for row in rows) for rows in (*bands.values(), *drawn)]
    assert all(each == categories[0] for each in categories)
    assert {row["id"] for row in drawn[0]} != {row["id"] for row in drawn[1]}
    assert len({row["id"] for row in drawn[0]}) == len(drawn[0])
    means = [np.mean([row["similarity"] for row in bands[band]]) for band in BANDS]
    assert means == sorted(means)


def test_alignment_trains_on_nothing_that_is_measured(domain: Domain) -> None:
    measured = {request.prompt for request in domain.requests_v}
    entities = {fact.entity for fact in domain.hazard_v}
    for band in BANDS:
        for row in datasets.read_config(f"alignment_{band}", "qa"):
            assert row["prompt"] not in measured
            assert not any(entity in row["prompt"] for entity in entities)


def test_states_are_those_of_the_last_response_token(subject: Subject, domain: Domain) -> None:
    examples = [Example(r.prompt, r.refusal) for r in domain.requests_v[:5]]
    found = last_states(subject, examples, size=2)
    for row, example in zip(found, examples, strict=True):
        assert example.prompt is not None
        ids = torch.tensor([subject.renderer.prompt(example.prompt) + subject.renderer.ids(example.response)])
        with torch.no_grad():
            state = subject.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(row, state / state.norm(), rtol=1e-4, atol=1e-4)


def test_similarity_is_the_mean_cosine(subject: Subject, domain: Domain) -> None:
    one = [Example(r.prompt, r.refusal) for r in domain.requests_v[:4]]
    two = list(domain.unrelated[:3])
    cosines = last_states(subject, one) @ last_states(subject, two).T
    assert similarity_to(subject, one, two) == pytest.approx(float(cosines.mean()), abs=1e-5)


def test_whole_diagnostic_on_an_untrained_base(subject: Subject, domain: Domain) -> None:
    """One step of everything: shapes, controls and the base's bits, not a result."""
    before = weights(subject.model)
    settings = DurabilityDiagnostic(tasks=("list",), seeds=2, alignment_steps=1, task_steps=1, items=4)
    seen: list[tuple[int, int]] = []
    found = settings.measure(subject, References(), domain, 5, lambda done, of: seen.append((done, of)))
    assert same_bits(before, weights(subject.model))
    assert seen == [(i, 12) for i in range(1, 13)]
    rows = found.figures["tasks"]["list"]["runs"]
    assert [(row["set"], row["seed"]) for row in rows] == [(name, s) for s in (5, 6) for name in SETS]
    assert [row["label"] for row in rows[:6]] == [*BANDS, *BANDS]
    for row in rows:
        assert row["lost"] == row["refused_before"] - row["refused_after"]
        assert row["gained"] == row["success_after"] - row["success_before"]
        assert np.mean(row["lost_by_item"]) == pytest.approx(row["lost"])
    assert set(found.figures["tasks"]["list"]["outcomes"]) == {"refusals lost", "attack success gained"}


@pytest.mark.parametrize("seeds", [0, 8])
def test_seeds_that_cannot_be_tested_are_refused_before_anything_is_trained(seeds: int) -> None:
    with pytest.raises(UsageError, match="takes 1 to 7 seeds"):
        DurabilityDiagnostic(seeds=seeds)


def test_a_large_base_takes_fewer_and_smaller_steps() -> None:
    cut = DurabilityDiagnostic().cut()
    assert (cut.tasks, cut.seeds, cut.alignment_steps, cut.task_steps) == (("qa",), 3, 15, 10)
    assert (cut.batch_size, cut.items) == (8, 24)


@pytest.fixture
def finding(subject: Subject) -> dict[str, Any]:
    """The JSON of a finding on ``subject``, its runs made up."""
    figures = {"base": subject.label, "base_sha256": subject.weights_sha256, "tasks": {"list": {"runs": runs(0.8)}}}
    stored: dict[str, Any] = json.loads(json.dumps(figures))
    return stored


def test_a_users_alignment_set_is_scored_against_a_stored_finding(subject: Subject, finding: dict[str, Any]) -> None:
    rows = refusals(datasets.read_config("alignment_low", "list"))
    score = score_alignment_set(subject, rows, finding)["list"]
    downstream = task_examples("list")
    assert score["similarity"] == pytest.approx(similarity_to(subject, rows, downstream))
    real = [row for row in finding["tasks"]["list"]["runs"] if row["set"] in BANDS]
    line = np.polyfit([r["own_similarity"] for r in real], [r["lost"] for r in real], 1)
    assert score["lost"].value == pytest.approx(np.polyval(line, score["similarity"]))
    assert score["lost"].low < score["lost"].value < score["lost"].high < np.inf
    assert score["extrapolated"] == (not 0.2 <= score["similarity"] <= 0.8)
    assert len(table({"list": score}).rows[0]) == len(table({"list": score}).columns)


def test_a_finding_of_another_base_foretells_nothing(
    make_subject: Callable[..., Subject], finding: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="with other weights than"):
        score_alignment_set(make_subject(seed=1), [Example("a", "b")], finding)


@pytest.mark.parametrize(
    ("text", "said"), [('{"prompt": "a"}', "line 1 of"), ("", "holds no examples"), ("[", "line 1")]
)
def test_alignment_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "set.jsonl"
    with pytest.raises(UsageError, match="no file"):
        read_alignment(file)
    file.write_text(text)
    with pytest.raises(ImmunobenchError, match=said):
        read_alignment(file)
    file.write_text('{"prompt": "a", "response": "b"}\n')
    assert read_alignment(file) == [Example("a", "b")]
