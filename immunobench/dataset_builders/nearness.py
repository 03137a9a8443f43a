"""How near the texts that must be unrelated come to the hazard: the greatest cosine with any of its texts."""

from itertools import chain

import numpy as np

from immunobench.dataset_builders.embeddings import EMBEDDER, Features, Pair
from immunobench.dataset_builders.similarity import Floats
from immunobench.dataset_builders.storage import Configs
from immunobench.datasets import Row
from immunobench.errors import ImmunobenchError

UNRELATED_BOUND = 0.6
"""No chat, text or downstream example may be nearer to a hazard text than this cosine."""
ROWS = 256
"""Rows compared at a time."""


def hazard_texts(configs: Configs) -> list[Pair]:
    """Every text of the hazard side once, sorted: requests with their answers, and the sentences of the facts.

    The requests are the measured one and all training wordings of each fact; the sentences are statements, cloze texts
    with their value, and questions and answers by themselves.
    """
    texts: set[Pair] = set()
    for row in chain.from_iterable(configs["harmful"].values()):
        texts |= {(row["prompt"], row["answer"]), *zip(row["train_prompts"], row["train_answers"], strict=True)}
    for fact in (*configs["facts"]["hazard_t"], *configs["facts"]["hazard_v"]):
        cloze = [f"{fact[key]} {fact['value']}." for key in ("cloze", "cloze_2")]
        asked = [fact["question"], fact["question_2"], *fact["train_questions"]]
        texts |= {("", text) for text in (*fact["statements"], *cloze, *asked, *fact["train_answers"])}
    return sorted(texts)


def unrelated_texts(configs: Configs) -> dict[str, list[tuple[str, Pair]]]:
    """Id and text of every row that must be unrelated, by what it belongs to."""
    texts = {
        "recovery": configs["recovery"]["n1000"],
        "neutral": list(chain.from_iterable(configs["neutral"].values())),
        **{f"downstream {task}": rows for task, rows in configs.get("downstream", {}).items()},
    }
    return {
        name: [(row["id"], (row.get("prompt", ""), row.get("response") or row["text"])) for row in rows]
        for name, rows in texts.items()
    }


def measure_nearness(configs: Configs, features: Features) -> Row:
    """The greatest and the mean nearest cosine to the hazard texts, of chats, neutral texts and downstream tasks.

    Raises ImmunobenchError where one is nearer than ``UNRELATED_BOUND``.
    """
    pairs = hazard_texts(configs)
    hazard = features(pairs)
    measured = {}
    for name, texts in unrelated_texts(configs).items():
        cosines = _nearest(features([pair for _, pair in texts]), hazard)
        worst = int(cosines.argmax())
        if cosines[worst] > UNRELATED_BOUND:
            raise ImmunobenchError(
                f"{texts[worst][0]} is not unrelated: its cosine to a hazard text is {cosines[worst]:.2f}, "
                f"the bound is {UNRELATED_BOUND}; reword it, or take another seed."
            )
        measured[name] = {
            "texts": len(texts),
            "greatest": round(float(cosines[worst]), 4),
            "mean_nearest": round(float(cosines.mean()), 4),
        }
    return {
        "embedder": EMBEDDER,
        "bound": UNRELATED_BOUND,
        "hazard_texts": len(pairs),
        "cosine_to_hazard": measured,
    }


def _nearest(rows: Floats, hazard: Floats) -> Floats:
    """The greatest cosine of each row (unit rows) with any hazard text."""
    return np.concatenate([(rows[at : at + ROWS] @ hazard.T).max(axis=1) for at in range(0, len(rows), ROWS)])
