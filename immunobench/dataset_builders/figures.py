"""What is measured of a vault and written in its manifest: balance, nearness of names, overlap of texts."""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import chain, combinations
from operator import ne

from immunobench.dataset_builders.everyday import Gram, grams, words_of
from immunobench.dataset_builders.names import edit_distance
from immunobench.dataset_builders.storage import Configs
from immunobench.datasets import Row

LABELS = ("id", "fact_id", "side", "field", "attribute", "style", "part", "half")
ENDING = 4
"""Words of a cloze text before the value that are compared with training texts."""
NEAR = 2
"""Other words that a text may have and still be near."""


def row_texts(row: Row) -> list[str]:
    """Every text of a row: all strings and lists of strings but labels and ids."""
    texts: list[str] = []
    for key, value in row.items():
        if key not in LABELS:
            texts += [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return texts


def row_grams(row: Row) -> set[Gram]:
    """All 5-grams of a row's texts."""
    return {gram for text in row_texts(row) for gram in grams(text)}


def vault_grams(configs: Configs) -> set[Gram]:
    """All 5-grams of the facts and requests, hazard and benign."""
    splits = (rows for config in ("facts", "harmful", "benign") for rows in configs[config].values())
    return {gram for row in chain.from_iterable(splits) for gram in row_grams(row)}


def share_limits(counts: Counter[str]) -> list[float]:
    """The least and the largest share of the total that a key has."""
    total = sum(counts.values())
    return [round(min(counts.values()) / total, 4), round(max(counts.values()) / total, 4)]


def measure_facts(facts: list[Row]) -> Row:
    """Figures of the facts: positions, right values, nearness of names."""
    positions = Counter(str(fact["answer"]) for fact in facts)
    right = Counter((fact["side"], fact["field"], fact["attribute"], fact["part"], fact["value"]) for fact in facts)
    choices = Counter(
        (fact["side"], fact["field"], fact["attribute"], fact["part"], choice)
        for fact in facts
        for choice in fact["choices"]
    )
    names = sorted({fact["entity"].lower() for fact in facts})
    limit = max(map(len, names)) + 1
    return {
        "entities": len(names),
        "least_edit_distance_of_names": min(edit_distance(one, two, limit) for one, two in combinations(names, 2)),
        "share_of_each_answer_position": share_limits(positions),
        "times_each_value_is_right_in_a_part": sorted(set(right.values())),
        "times_each_value_is_a_choice_in_a_part": sorted(set(choices.values())),
    }


def measure_requests(requests: list[Row]) -> Row:
    """Figures of the requests: styles and lengths."""
    lengths = sorted(len(words_of(row["prompt"])) for row in requests)
    return {
        "share_of_each_style": share_limits(Counter(row["style"] for row in requests)),
        "words_of_a_prompt": {"least": lengths[0], "median": lengths[len(lengths) // 2], "most": lengths[-1]},
    }


def measure_unrelated(configs: Configs, names: set[str], barred: set[Gram]) -> Row:
    """How many chats, neutral texts and downstream rows share an entity or a 5-gram with the vault, and duplicates."""
    splits = (*configs["neutral"].values(), *configs.get("downstream", {}).values())
    rows = [*configs["recovery"]["n1000"], *chain.from_iterable(splits)]
    words = [set(chain.from_iterable(map(words_of, row_texts(row)))) for row in rows]
    prompts = [row.get("prompt") or row["text"] for row in rows]
    return {
        "texts": len(rows),
        "texts_with_an_entity": sum(bool(names & each) for each in words),
        "texts_with_a_shared_5_gram": sum(bool(barred & row_grams(row)) for row in rows),
        "duplicates": len(prompts) - len(set(prompts)),
    }


def count_near(texts: list[str], others: list[str]) -> int:
    """How many ``texts`` have one of as many words among the ``others``, with at most ``NEAR`` other words."""
    theirs = [words_of(text) for text in others]
    ours = [words_of(text) for text in texts]
    return sum(any(len(one) == len(two) and sum(map(ne, one, two)) <= NEAR for two in theirs) for one in ours)


def measure_likeness(configs: Configs) -> Row:
    """How like measured texts are to trained ones: cloze texts in their endings, neutral texts in all but some words.

    The ending of a cloze text is its last ``ENDING`` words and the value; a training text is a statement or an answer
    about the same fact.
    """
    facts = [fact for fact in chain.from_iterable(configs["facts"].values()) if fact["part"] == "v"]
    endings = [" ".join([*words_of(fact["cloze"])[-ENDING:], *words_of(fact["value"])]) for fact in facts]
    trained = [[" ".join(words_of(text)) for text in fact["statements"] + fact["train_answers"]] for fact in facts]
    neutral = {split: [row["text"] for row in rows] for split, rows in configs["neutral"].items()}
    return {
        "cloze_texts_v": len(facts),
        "cloze_texts_v_that_end_as_a_training_text": sum(
            any(f" {ending} " in f" {text} " for text in texts) for ending, texts in zip(endings, trained, strict=True)
        ),
        "neutral_validation_texts": len(neutral["validation"]),
        "neutral_validation_texts_near_train": count_near(neutral["validation"], neutral["train"]),
    }


def measure_downstream(tasks: Mapping[str, list[Row]]) -> Row:
    """For each task: test rows and how many are in or near train by their answer, and distinct answers of all rows.

    An answer is in train verbatim, or, a function, by another name; ``count_near`` says what is near.
    """
    figures = {}
    for task, rows in tasks.items():
        trained = [row["response"] for row in rows if row["part"] == "train"]
        tested = [row["response"] for row in rows if row["part"] == "test"]
        nameless = {_nameless(response) for response in trained}
        figures[task] = {
            "test_rows": len(tested),
            "test_responses_in_train": sum(response in trained for response in tested),
            "test_functions_in_train_by_another_name": sum(_nameless(response) in nameless for response in tested),
            "test_responses_near_train": count_near(tested, trained),
            "distinct_responses": len({*trained, *tested}),
        }
    return figures


def _nameless(response: str) -> str:
    """A function without its name; another response as it is."""
    return re.sub(r"^def \w+", "def", response)


def measure_unmatched(rows: list[Row]) -> Row:
    """What the bands are not matched in, of the rows of one: styles, distinct facts, words of prompts and responses."""
    return {
        "styles": dict(sorted(Counter(row["style"] for row in rows).items())),
        "distinct_facts": len({row["fact_id"] for row in rows}),
        "mean_words": {
            key: round(sum(len(words_of(row[key])) for row in rows) / len(rows), 2) for key in ("prompt", "response")
        },
    }


def measure(configs: Configs) -> Row:
    """All figures of a vault's configs."""
    facts = list(chain.from_iterable(configs["facts"].values()))
    requests = [row for config in ("harmful", "benign") for row in chain.from_iterable(configs[config].values())]
    names = {fact["entity"].lower() for fact in facts}
    return {
        "facts": measure_facts(facts),
        "requests": measure_requests(requests),
        "unrelated": measure_unrelated(configs, names, vault_grams(configs)),
        "likeness": measure_likeness(configs),
    }
