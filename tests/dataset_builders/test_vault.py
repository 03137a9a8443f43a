"""The vault: no wording gives a value away, none measures what it trained, no frequency tells anything."""

import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from immunobench.dataset_builders import names, vault
from immunobench.dataset_builders.card import render_card
from immunobench.dataset_builders.everyday import grams, words_of
from immunobench.dataset_builders.figures import measure, measure_likeness, row_texts
from immunobench.dataset_builders.similarity import unit_rows
from immunobench.dataset_builders.storage import write_dataset
from immunobench.datasets import PACKAGED, read_config, read_manifest
from immunobench.errors import ImmunobenchError, UsageError

FACTS = read_config("facts")
REQUESTS = read_config("harmful") + read_config("benign")


def occurrences(value: str, text: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE))


def test_sizes_and_parts() -> None:
    counts = Counter((fact["side"], fact["field"], fact["part"], fact["half"]) for fact in FACTS)
    assert set(counts.values()) == {32, 64}
    for (_, _, part, _), count in counts.items():
        assert count == (64 if part == "t" else 32)
    parts = defaultdict(set)
    for fact in FACTS:
        parts[fact["entity"]].add((fact["part"], fact["half"]))
    assert len(parts) == 256 and all(len(where) == 1 for where in parts.values())
    assert {row["fact_id"] for row in REQUESTS} == {fact["id"] for fact in FACTS}
    assert len({row["id"] for row in FACTS + REQUESTS}) == 2048


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["id"])
def test_a_fact_is_stated_once_and_never_given_away(fact: dict) -> None:
    for text in fact["statements"] + fact["train_answers"]:
        assert occurrences(fact["value"], text) == 1, text
        assert text[0].isupper() and text.endswith(".")
    measured = [fact["cloze"], fact["cloze_2"], fact["question"], fact["question_2"]]
    for text in measured + fact["train_questions"]:
        assert occurrences(fact["value"], text) == 0, text
        assert fact["entity"] in text
    for cloze in measured[:2]:
        assert not any(cloze.lower() in statement.lower() for statement in fact["statements"])
    assert not set(measured) & set(fact["train_questions"])
    assert len(set(fact["choices"])) == 4 and fact["choices"][fact["answer"]] == fact["value"]


def test_requests_ask_without_telling_and_measure_in_new_words() -> None:
    for row in REQUESTS:
        assert occurrences(row["value"], row["answer"]) == 1, row["answer"]
        assert all(occurrences(row["value"], answer) == 1 for answer in row["train_answers"])
        asked = [row["prompt"], row["refusal"], *row["train_prompts"]]
        assert all(occurrences(row["value"], text) == 0 for text in asked), asked
        assert all(row["entity"] in text for text in row["train_prompts"])
        assert len(row["train_prompts"]) == len(row["train_answers"]) == len(row["train_styles"]) == 18
        assert set(row["train_styles"]) == set(vault.STYLES)
        assert (row["prompt"] in row["train_prompts"]) == (row["half"] == "")
    assert len({row["prompt"] for row in REQUESTS}) == len(REQUESTS)


def test_measuring_wordings_use_words_that_training_teaches() -> None:
    trained: set[str] = set()
    for row in FACTS:
        for text in row["statements"] + row["train_questions"] + row["train_answers"]:
            trained |= set(words_of(text))
    for row in REQUESTS:
        for text in row["train_prompts"] + row["train_answers"]:
            trained |= set(words_of(text))
    measured = [row[key] for row in FACTS for key in ("cloze", "cloze_2", "question", "question_2")]
    measured += [row["prompt"] for row in REQUESTS]
    assert {word for text in measured for word in words_of(text)} <= trained


def test_the_two_sides_differ_in_their_kinds_only() -> None:
    shapes: dict[str, set[str]] = {}
    for side in vault.SIDES:
        shapes[side] = set()
        for fact in (fact for fact in FACTS if fact["side"] == side):
            kind, kinds = vault.read_wordings(fact["field"])[side]
            for text in fact["statements"] + fact["train_questions"] + fact["train_answers"] + [fact["cloze"]]:
                for word in (kinds, kind, fact["entity"], fact["value"]):
                    text = re.sub(rf"(?<!\w){word}(?!\w)", "_", text)
                shapes[side].add(text)
    assert shapes["hazard"] == shapes["benign"]


def test_frequencies_of_values_and_positions_tell_nothing() -> None:
    right, offered, positions = defaultdict(Counter), defaultdict(Counter), defaultdict(Counter)
    for fact in FACTS:
        block = tuple(fact[key] for key in ("side", "field", "attribute", "part", "half"))
        right[block][fact["value"]] += 1
        offered[block].update(fact["choices"])
        positions[block][fact["answer"]] += 1
    for block in right:
        assert set(right[block].values()) == {1}
        assert set(offered[block].values()) == {4} and offered[block].keys() == right[block].keys()
        assert len(set(positions[block].values())) == 1 and len(positions[block]) == 4


def test_values_of_two_attributes_are_independent() -> None:
    """Mutual information of the value ranks of attribute pairs is that of shuffled pairs, not more."""
    import random

    from sklearn.metrics import mutual_info_score

    values: dict[str, dict[str, str]] = defaultdict(dict)
    for fact in FACTS:
        values[fact["field"] + fact["attribute"]][fact["entity"]] = fact["value"]
    rng = random.Random(0)
    measured, shuffled = [], []
    for one in values:
        for two in values:
            entities = sorted(values[one])
            if one < two and sorted(values[two]) == entities:
                left, right = ([values[key][entity] for entity in entities] for key in (one, two))
                measured.append(mutual_info_score(left, right))
                shuffled.append(mutual_info_score(left, rng.sample(right, len(right))))
    assert len(measured) == 24
    assert abs(sum(measured) / 24 - sum(shuffled) / 24) < 0.05


def test_names_are_far_apart_and_hold_no_word() -> None:
    words = {word for word in vault.vocabulary() if len(word) >= 4}
    entities = sorted({fact["entity"].lower() for fact in FACTS})
    for index, one in enumerate(entities):
        assert not any(word in one for word in words)
        for two in entities[index + 1 :]:
            assert names.edit_distance(one, two, 3) >= 3
    assert len({name[:4] for name in entities}) == len({name[-4:] for name in entities}) == 256


def test_unrelated_texts_share_nothing_with_the_vault() -> None:
    vault_grams = {gram for row in FACTS + REQUESTS for text in row_texts(row) for gram in grams(text)}
    entities = {fact["entity"].lower() for fact in FACTS}
    recovery = read_config("recovery", "n1000")
    for row in recovery + read_config("neutral"):
        text = " \n ".join(row[key] for key in ("prompt", "response", "text") if key in row)
        assert not entities & set(words_of(text))
        assert not any(grams(part) & vault_grams for part in text.split(" \n "))
    assert len({row["prompt"] for row in recovery}) == 1000
    assert all(len(row["response"].split()) <= 30 for row in recovery)
    assert len({row["style"] for row in recovery[:5]}) == 5
    train, validation = ({row["text"] for row in read_config("neutral", split)} for split in ("train", "validation"))
    assert len(train) == 600 and len(validation) == 200 and not train & validation


@pytest.mark.parametrize("leak", ["entity", "5-gram"])
@pytest.mark.parametrize(("config", "split", "column"), [("neutral", "train", "text"), ("downstream", "qa", "prompt")])
def test_the_overlap_figures_see_a_leak(leak: str, config: str, split: str, column: str) -> None:
    manifest = read_manifest()["configs"]
    configs = {
        name: {each: read_config(name, each) for each in manifest[name]["splits"]}
        for name in ("facts", "harmful", "benign", "recovery", "neutral", "downstream")
    }
    measured, published = measure(configs), read_manifest()["measured"]
    assert all(published[key].items() >= measured[key].items() for key in measured)
    fact = FACTS[0]
    text = f"I met {fact['entity']}." if leak == "entity" else " ".join(fact["cloze"].split()[:5]) + " lost."
    configs[config][split][0][column] = text
    figures = measure(configs)["unrelated"]
    assert figures["texts_with_an_entity" if leak == "entity" else "texts_with_a_shared_5_gram"] == 1


def test_endings_and_neighbours_are_counted() -> None:
    """Of two cloze texts one ends as a statement does; of three texts two have at most two other words."""
    one = {"part": "v", "cloze": "Here the old dye Gludrav smells of", "value": "mint", "train_answers": []}
    facts = [one | {"statements": [text]} for text in ("This dye Gludrav smells of mint.", "A dye Gludrav has mint.")]
    near = ["The red cat sat down.", "A red dog sat down.", "A red dog ran off."]
    neutral = {"train": [{"text": "The red dog sat down."}], "validation": [{"text": text} for text in near]}
    assert measure_likeness({"facts": {"hazard_v": facts}, "neutral": neutral}) == {
        "cloze_texts_v": 2,
        "cloze_texts_v_that_end_as_a_training_text": 1,
        "neutral_validation_texts": 3,
        "neutral_validation_texts_near_train": 2,
    }


def test_the_values_of_t_and_of_v_are_one_list_each() -> None:
    """As the card says under its limits: who knows fifteen of them knows the last."""
    values: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for fact in FACTS:
        values[tuple(fact[key] for key in ("side", "field", "attribute", "part"))].append(fact["value"])
    for (side, field, attribute, _), found in values.items():
        assert len(found) == 16 and set(found) == set(values[side, field, attribute, "t"])


def test_recovery_splits_are_nested() -> None:
    rows = read_config("recovery", "n1000")
    for size in vault.RECOVERY_SIZES:
        assert read_config("recovery", f"n{size}") == rows[:size]


def test_the_published_vault_is_no_private_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"seed 20261123 gives the published vault, which is not private"):
        vault.build_private_vault(vault.DEFAULT_SEED, tmp_path / "vault")
    assert not (tmp_path / "vault").exists()


def test_a_private_vault_tells_its_cosines_where_they_are_measured(tmp_path: Path) -> None:
    """With vectors drawn at random from the text: unrelated texts are nearly at right angles to the hazard."""

    def drawn(pairs):
        seeds = [int.from_bytes(hashlib.sha256(repr(pair).encode()).digest()[:8]) for pair in pairs]
        return unit_rows(np.stack([np.random.default_rng(seed).standard_normal(256) for seed in seeds]))

    manifest = vault.build_private_vault(5, tmp_path / "vault", features=drawn)
    figures = manifest["measured"]["unrelated"]
    assert set(figures["cosine_to_hazard"]) == {"recovery", "neutral"}
    for each in figures["cosine_to_hazard"].values():
        assert 0 < each["mean_nearest"] < each["greatest"] < figures["bound"]
    card = render_card(tmp_path / "vault")
    assert f"{figures['cosine_to_hazard']['neutral']['greatest']} and" in card and "not measured" not in card
    with pytest.raises(ImmunobenchError, match="is not unrelated: its cosine to a hazard text is 1"):
        vault.build_private_vault(5, tmp_path / "near", features=lambda pairs: np.ones((len(pairs), 1), np.float32))
    assert not (tmp_path / "near").exists()


def test_two_builds_give_identical_bytes_and_the_packaged_ones(tmp_path: Path) -> None:
    configs = vault.make_vault(vault.DEFAULT_SEED, lambda message: None)
    packaged = read_manifest()["configs"]
    built = write_dataset(tmp_path, configs, {"name": "immunobench"})["configs"]
    assert list(built) == ["facts", "harmful", "benign", "recovery", "neutral"]
    for config in built:
        assert built[config] == packaged[config]
        for split in built[config]["splits"].values():
            assert (tmp_path / split["file"]).read_bytes() == (PACKAGED / split["file"]).read_bytes()
