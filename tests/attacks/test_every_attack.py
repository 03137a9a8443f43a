"""What every packaged attack declares, against what it does on tiny subjects of every family."""

import re
from fnmatch import fnmatch
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from immunobench.attacks.base import Attack, Budget, left_by, load_attack, needs_exposed
from immunobench.domains import Domain
from immunobench.engines.base import Artifact
from immunobench.engines.hf import HFEngine
from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_settings import Settings
from immunobench.protocol.v1 import ADVERSARIES
from immunobench.report.listing import LISTS
from immunobench.subjects import Subject
from tests.conftest import same_bits, weights
from tests.docs.pages import ROOT
from tests.fixtures_architectures import tiny, tiny_family
from tests.test_structure import FAMILIES

BUDGET = Budget(2)
RATES = {"learning_rates": (1e-3,)}
SETTINGS: dict[str, dict[str, Any]] = {
    "ActivationAblation": {"depths": (1.0,), "calibration": 4},
    "BenignTask": {"batch_size": 2},
    "DifferenceAblation": {"depths": (1.0,), "calibration": 4},
    "EnhancedGCG": {"tokens": 3, "items": 2, "width": 4, "top": 4, "candidates": 2},
    "FineTune": {"data": "unrelated-5", "rank": 2, **RATES},
    "FineTuneAroundSafety": {"data": "unrelated-5", "calibration": 4, **RATES},
    "FineTuneWithRetrieval": {"data": "unrelated-5", "statements": 1, **RATES},
    "GCG": {"tokens": 3, "items": 2, "width": 4, "top": 4, "candidates": 2},
    "InContext": {"statements": (1, 2)},
    "LinearProbe": {"wordings": 1},
    "LogitLens": {},
    "ManyShot": {"shots": (1, 2)},
    "NoAttack": {"formats": ("chat", "plain")},
    "Prefill": {},
    "RankRemoval": {"shares": ((0.1, 0.2),), "calibration": 4},
    "RefusalAblation": {"train": 4, "validation": 2},
    "RequestSoftPrompt": {"tokens": 2},
    "RoundToNearest": {"bits": (4,)},
    "Sampled": {"n": 2},
    "SetDifference": {"shares": (0.05,), "calibration": 4},
    "Templates": {},
    "UniversalSoftPrompt": {"tokens": 2, "batch_size": 2},
    "WeightNoise": {"scales": (0.1,)},
}
PATHS = {str(row["attack"]).rpartition(".")[2]: str(row["attack"]) for row in LISTS["attacks"]()}
BY_STRUCTURE = (
    "ActivationAblation",
    "DifferenceAblation",
    "EnhancedGCG",
    "GCG",
    "LinearProbe",
    "RefusalAblation",
    "RequestSoftPrompt",
    "UniversalSoftPrompt",
    "RankRemoval",
    "SetDifference",
)
"""Attacks that read or change the inside of a model, which is another in every family."""


def attack_of(name: str) -> Attack:
    attack: Attack = load_attack(PATHS[name])(**SETTINGS[name])
    return attack


def held(attack: Attack, subject: Subject, exposed: Subject, domain: Domain) -> None:
    """It does what its outline says, leaves what it declares, and then nothing."""
    before, other = weights(subject.model), weights(exposed.model)
    extra: dict[str, Any] = {"exposed": exposed} if needs_exposed(attack) else {}
    points = list(attack.run(subject, domain, BUDGET, 0, **extra))
    outline = attack.outline(BUDGET)
    assert len(points) == outline.points
    assert len({point.variant for point in points}) == outline.variants == sum(point.last for point in points)
    kinds = {point.artifact.kind for point in points} - {"none"}
    assert kinds <= set(left_by(attack)) <= set(attack.leaves)
    assert (outline.steps > 0) == any(point.cost.steps for point in points)
    assert same_bits(weights(subject.model), before) and same_bits(weights(exposed.model), other)
    assert all(p.requires_grad and p.grad is None for p in subject.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in subject.model.modules())


def test_every_packaged_attack_is_tried_here() -> None:
    assert set(SETTINGS) == set(PATHS)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_leaves_what_it_declares(
    name: str, subject: Subject, domain: Domain, tokenizer: PreTrainedTokenizerFast
) -> None:
    held(attack_of(name), subject, tiny("llama", tokenizer, seed=1), domain)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BY_STRUCTURE)
def test_in_every_family(name: str, family: str, tokenizer: PreTrainedTokenizerFast, domain: Domain) -> None:
    held(attack_of(name), tiny_family(family, tokenizer), tiny_family(family, tokenizer, seed=1), domain)


def test_listed_engines_serve_what_is_left(subject: Subject) -> None:
    for row in [*LISTS["attacks"](), *LISTS["adversaries"]()]:
        kinds = str(row["leaves"]).split()
        for engine in (HFEngine(subject), VLLMEngine(subject, Settings(adapters=True))):
            serves = all(engine.serves(Artifact(kind)) for kind in kinds)  # type: ignore[arg-type]
            assert serves == (engine.name in str(row["engines"]).split()), row


def test_every_attack_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "attacks.md").read_text()
    for path in PATHS.values():
        assert f"::: {path.rpartition('.')[0]}\n" in page


def test_every_row_is_on_the_page_of_attacks_under_its_family() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text()
    lines = {line.split("|")[1].strip(): re.findall(r"`([^`]+)`", line) for line in page.splitlines() if "| `" in line}
    for row in ADVERSARIES.values():
        assert any(fnmatch(row.name, pattern) for pattern in lines[row.family]), row.name
    names = [pattern for patterns in lines.values() for pattern in patterns]
    assert all(any(fnmatch(name, pattern) for name in ADVERSARIES) for pattern in names), names


def test_an_outline_counts_what_is_trained_on_every_item(subject: Subject, domain: Domain) -> None:
    attack = attack_of("RequestSoftPrompt")
    *_, last = attack.run(subject, domain, BUDGET, 0)
    assert attack.outline(BUDGET).trained_on(domain) == last.cost.examples > 0
