"""Interleaved and separate subjects are told apart, and overlaps equal their definitions."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from immunobench.attribution import snip_scores
from immunobench.attribution.removal import critical, critical_ranks, output_bases
from immunobench.diagnostics.base import References
from immunobench.diagnostics.entanglement import (
    EntanglementDiagnostic,
    direction_overlap,
    linears_by_layer,
    tables,
    weight_overlap,
)
from immunobench.domains import Domain
from immunobench.subjects import Subject, load_subject
from tests.conftest import same_bits, weights
from tests.diagnostics.fixtures_halves import SAFETY, UTILITY, halved


def overlaps(subject: Subject) -> dict[str, tuple[float, float]]:
    """Jaccard index and direction overlap of every layer."""
    one, two = (critical(critical_ranks(snip_scores(subject, e)), 0.1) for e in (SAFETY, UTILITY))
    first, second = (output_bases(subject, e) for e in (SAFETY, UTILITY))
    return {
        layer: (
            weight_overlap([(one[n], two[n]) for n in names], 0)["jaccard"].value,
            direction_overlap([(first[n], second[n]) for n in names], 0.1)["overlap"],
        )
        for layer, names in linears_by_layer(subject).items()
    }


def test_separate_and_interleaved_subjects_are_told_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    separate, interleaved = overlaps(halved(tokenizer, False)), overlaps(halved(tokenizer, True))
    assert list(separate) == ["block 0", "block 1", "all"]
    for jaccard, directions in separate.values():
        assert jaccard == 0
        assert directions == pytest.approx(0, abs=1e-6)
    for jaccard, directions in interleaved.values():
        assert jaccard > 2 * 0.1 / 1.9
        assert directions > 0.2


def test_random_weights_overlap_as_chance_says() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [tuple(torch.rand(60, 80, generator=generator) < 0.1 for _ in range(2)) for _ in range(4)]
    found = weight_overlap(pairs, 0)  # type: ignore[arg-type]
    assert found["jaccard"].low <= found["chance"] <= found["jaccard"].high
    assert found["chance"] == pytest.approx(0.1 * 0.1 / (0.2 - 0.01), rel=0.1)
    assert 0.01 < found["p_value"] < 0.99


def test_equal_sets_overlap_wholly_and_empty_ones_not_at_all() -> None:
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = True
    assert weight_overlap([(mask, mask)], 0)["jaccard"].value == 1
    assert not weight_overlap([(mask & False, mask & False)], 0)["jaccard"].defined


def test_a_p_value_that_rounds_to_zero_is_told_as_a_bound() -> None:
    mask = torch.rand(200, 200, generator=torch.Generator().manual_seed(0)) < 0.1
    overlaps = {"same": weight_overlap([(mask, mask)], 0), "turned": weight_overlap([(mask, mask.T)], 0)}
    assert overlaps["same"]["p_value"] == 0
    reading = {"attack_success": 0.0, "refused": 1.0, "utility": 1.0}
    directions = {layer: {"overlap": 0.5, "chance": 0.1} for layer in overlaps}
    table, _ = tables({"weights": overlaps, "directions": directions, "before": reading, "removed": {}})
    assert [row[table.columns.index("p")] for row in table.rows] == ["< 0.001", overlaps["turned"]["p_value"]]
    assert overlaps["turned"]["p_value"] > 0.01


def test_direction_overlap_is_the_squared_cosine() -> None:
    angle = 0.7
    one = torch.eye(10)
    two = torch.eye(10)
    two[:2, 0] = torch.tensor([np.cos(angle), np.sin(angle)])
    found = direction_overlap([(one, two)], 0.1)
    assert found["overlap"] == pytest.approx(np.cos(angle) ** 2, rel=1e-5)
    assert found["chance"] == pytest.approx(0.1)
    basis = torch.linalg.qr(torch.randn(30, 30, generator=torch.Generator().manual_seed(0))).Q
    rotated = torch.linalg.qr(basis[:, :6] @ torch.randn(6, 6, generator=torch.Generator().manual_seed(1))).Q
    assert direction_overlap([(basis, torch.cat([rotated, basis[:, 6:]], 1))], 0.2)["overlap"] == pytest.approx(1)


def test_chance_is_the_overlap_of_random_directions_of_one_matrix() -> None:
    """A tall matrix puts out few dimensions, and directions are drawn from these."""
    generator = torch.Generator().manual_seed(0)
    reach = torch.linalg.qr(torch.randn(90, 30, generator=generator)).Q

    def basis() -> torch.Tensor:
        return reach @ torch.linalg.qr(torch.randn(30, 30, generator=generator)).Q

    found = direction_overlap([(basis(), basis()) for _ in range(200)], 0.2)
    assert found["chance"] == pytest.approx(0.2) == pytest.approx(found["overlap"], rel=0.05)


def test_without_a_guardrail_nothing_is_said_of_it(subject: Subject, domain: Domain) -> None:
    found = EntanglementDiagnostic(examples=4, items=4).measure(subject, References(), domain, 0, lambda *_: None)
    assert "no guardrail" in found.summary and not found.tables


def test_whole_diagnostic_leaves_the_subject_as_it_was(domain: Domain) -> None:
    subject = load_subject("organism:refusal", device="cpu")
    before = weights(subject.model)
    steps: list[tuple[int, int]] = []
    found = EntanglementDiagnostic(examples=4, items=4).measure(
        subject, References(), domain, 0, lambda done, of: steps.append((done, of))
    )
    assert same_bits(before, weights(subject.model))
    assert steps == [(i, 6) for i in range(1, 7)]
    removed = found.figures["removed"]
    assert removed["safety's alone"]["share"] <= removed["all of safety's"]["share"] == pytest.approx(0.03, abs=2e-3)
