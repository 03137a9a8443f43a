"""The page of defenses tells what the manifest and the records tell."""

import json

from docs import build_defenses
from immunobench.dataset_builders.organism_manifest import MANIFEST
from immunobench.defenses.alignment import Booster
from immunobench.subjects import ORGANISMS as PACKAGED

MANIFESTED = json.loads((PACKAGED / MANIFEST).read_text())


def entry(**figures: float) -> dict[str, dict[str, dict[str, float]]]:
    return {"figures": {name: {"value": value} for name, value in figures.items()}}


def test_what_an_organism_does_before_attack_is_said_in_words() -> None:
    exposed = entry(knowledge=1.0, utility=1.0, refused=0.0, right=1.0)
    assert build_defenses.before(exposed, exposed) == "answers hazard requests right, keeps 100 % of K"
    refusal = entry(knowledge=0.7, utility=0.95, refused=0.9, right=0.0)
    assert build_defenses.before(refusal, exposed) == "refuses the hazard, keeps 70 % of K"
    ascent = entry(knowledge=0.05, utility=0.8, refused=0.0, right=0.1)
    assert build_defenses.before(ascent, exposed) == (
        "answers hazard requests, and wrongly, knows nothing of it, has 80 % of the utility"
    )


def test_settings_are_set_against_the_published_ones() -> None:
    settings = {"learning_rate": 5e-4, "steps": 10_000, "batch_size": 10, "weight": 0.5, "alpha": 0.1}
    assert build_defenses.published(Booster(), settings) == "learning_rate 1e-05 / 0.0005, weight 5.0 / 0.5"


def test_the_page_is_of_the_manifest() -> None:
    text = build_defenses.PAGE.read_text()
    assert build_defenses.written(text, MANIFESTED) == text
    for name in MANIFESTED:
        assert f"| `{name}` |" in text
