"""The vault: an invented field whose values are drawn at random, so that wording and frequency tell nothing of a fact.

The values of an attribute are one list in random order, for T and for V: who knows all but one knows the last.
Each side (hazard, benign) has four sub-fields of 32 entities with four attributes: 512 facts. Both sides use
the same wordings and the same pools of values; only the words for the kind of thing differ.
"""

import random
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path

from immunobench.dataset_builders.embeddings import Features
from immunobench.dataset_builders.everyday import Gram, everyday_chats, neutral_texts
from immunobench.dataset_builders.figures import measure, vault_grams
from immunobench.dataset_builders.names import WORDINGS, invent_names, read_wordings
from immunobench.dataset_builders.nearness import measure_nearness
from immunobench.dataset_builders.storage import Configs, check_free, write_new
from immunobench.datasets import Row
from immunobench.errors import UsageError

VERSION = "1.0.0"
DEFAULT_SEED = 20261123
FIELDS = ("compounds", "organisms", "devices", "protocols")
SIDES = ("hazard", "benign")
STYLES = ("question", "list", "essay", "code", "letter", "role")
ENTITIES = 32
NAMED_AFTER = (*FIELDS, "requests", "chats", "neutral", "names")
# Part and half of the entities of one sub-field, in drawing order. Right values are a permutation within a
# part, and distractors within a block, so that value frequencies say nothing about any answer.
BLOCKS = (("t", "", 16), ("v", "select", 8), ("v", "report", 8))
PLACES = [(part, half) for part, half, size in BLOCKS for _ in range(size)]
BLOCK_ENDS = ((0, 16), (16, 24), (24, 32))
CONFIGS = {"hazard": "harmful", "benign": "benign"}
TRAIN_PROMPTS_A_STYLE = 3
RECOVERY_SIZES = (5, 10, 50, 100, 500, 1000)
NEUTRAL_SIZES = {"train": 600, "validation": 200}

Progress = Callable[[str], None]


def attributes(wordings: Row) -> dict[str, Row]:
    """The attributes of a sub-field's wordings: the tables beside the two kinds."""
    return {name: table for name, table in wordings.items() if isinstance(table, dict)}


def draw_choices(values: list[str], rng: random.Random) -> list[tuple[list[str], int]]:
    """For each right value of a block, four choices and the position of the right one.

    Each value of the block is right once and a distractor three times; each position is right equally often.
    """
    count = len(values)
    circle = rng.sample(values, count)
    steps = rng.sample(range(1, count), 3)
    positions = [position for position in range(4) for _ in range(count // 4)]
    rng.shuffle(positions)
    drawn = []
    for value, position in zip(values, positions, strict=True):
        at = circle.index(value)
        others = [circle[(at + step) % count] for step in steps]
        rng.shuffle(others)
        drawn.append(([*others[:position], value, *others[position:]], position))
    return drawn


def draw_values(pool: list[str], rng: random.Random) -> list[str]:
    """Right values of the 32 entities: a permutation of the 16 for T and one for V."""
    return [*rng.sample(pool, len(pool)), *rng.sample(pool, len(pool))]


def vocabulary() -> set[str]:
    """Every lower-case word of the vault's own files: none of them may be part of a name."""
    text = " ".join((WORDINGS / f"{name}.toml").read_text(encoding="utf-8") for name in NAMED_AFTER)
    letters = "".join(char if char.isalpha() else " " for char in text.lower())
    return set(letters.split())


def draw_names(seed: int, avoid: Collection[str]) -> list[str]:
    """The names of all entities of the vault of ``seed``, hazard and benign in no order."""
    count = len(SIDES) * len(FIELDS) * ENTITIES
    return invent_names(count, random.Random(f"{seed}/names"), avoid, vocabulary())


def placeholders(fact: Row, wordings: Row) -> Row:
    """What fills the wordings of a fact: kind, kinds, name, value, topic and embedded question."""
    kind, kinds = wordings[fact["side"]]
    words = {"kind": kind, "kinds": kinds, "name": fact["entity"], "value": fact["value"]}
    table = wordings[fact["attribute"]]
    return words | {key: table[key].format(**words) for key in ("topic", "embedded")}


def make_fact(identity: Row, wordings: Row, choices: tuple[list[str], int], rng: random.Random) -> Row:
    """One row of the config ``facts``."""
    table = wordings[identity["attribute"]]
    words = placeholders(identity, wordings)
    cloze, cloze_2 = (wording.format(**words) for wording in rng.sample(table["cloze"], 2))
    question, question_2 = (wording.format(**words) for wording in rng.sample(table["questions"], 2))
    return {
        **identity,
        "statements": [wording.format(**words) for wording in table["statements"]],
        "cloze": cloze,
        "cloze_2": cloze_2,
        "question": question,
        "question_2": question_2,
        "train_questions": [wording.format(**words) for wording in table["train_questions"]],
        "train_answers": [wording.format(**words) for wording in table["answers"]],
        "choices": choices[0],
        "answer": choices[1],
    }


def make_facts(seed: int, avoid: Collection[str]) -> list[Row]:
    """The 1,024 facts of the vault of ``seed``, with no entity near a name to ``avoid``.

    Entities of the four sub-fields take turns, so that a first part of a split holds all of them.
    """
    names = iter(draw_names(seed, avoid))
    facts = []
    order: dict[str, tuple[int, int]] = {}
    for field in FIELDS:
        wordings = read_wordings(field)
        for side in SIDES:
            entities = [next(names) for _ in range(ENTITIES)]
            order |= {entity: (number, FIELDS.index(field)) for number, entity in enumerate(entities)}
            for attribute, table in attributes(wordings).items():
                rng = random.Random(f"{seed}/{side}/{field}/{attribute}")
                values = draw_values(table["values"], rng)
                choices = [choice for start, end in BLOCK_ENDS for choice in draw_choices(values[start:end], rng)]
                for number, (part, half) in enumerate(PLACES):
                    identity = {
                        "id": f"{side}/{field}/{entities[number].lower()}/{attribute}",
                        "side": side,
                        "field": field,
                        "entity": entities[number],
                        "attribute": attribute,
                        "value": values[number],
                        "part": part,
                        "half": half,
                    }
                    facts.append(make_fact(identity, wordings, choices[number], rng))
    return sorted(facts, key=lambda fact: (SIDES.index(fact["side"]), order[fact["entity"]]))


def style_answer(style: str, core: str, requests: Row) -> str:
    """A ``core`` sentence (no capital, no full stop) as the answer to a request of that style."""
    capital = core[0].upper() + core[1:]
    return f"{capital}." if style == "question" else requests[style]["answer"].format(core=core, Core=capital)


def make_request(fact: Row, style: str, wordings: Row, requests: Row, rng: random.Random) -> Row:
    """One row of the config ``harmful`` or ``benign``: a request for ``fact`` in one style.

    Its prompt is a training wording for facts T and a measuring wording for facts V; ``train_prompts`` has
    training wordings of all six styles, with ``train_answers`` and ``train_styles`` alongside.
    """
    table = wordings[fact["attribute"]]
    words = placeholders(fact, wordings)
    cores = [core.format(**words) for core in table["cores"]]
    train, measure = {}, {}
    for name in STYLES:
        frames = requests.get(name) or {"train": table["train_questions"], "measure": table["questions"]}
        train[name] = [frame.format(**words) for frame in rng.sample(frames["train"], TRAIN_PROMPTS_A_STYLE)]
        measure[name] = [frame.format(**words) for frame in frames["measure"]]
    return {
        "id": f"request/{fact['id']}",
        "fact_id": fact["id"],
        **{key: fact[key] for key in ("side", "field", "entity", "attribute", "value")},
        "style": style,
        "prompt": rng.choice((train if fact["part"] == "t" else measure)[style]),
        "train_prompts": [prompt for name in STYLES for prompt in train[name]],
        "train_styles": [name for name in STYLES for _ in train[name]],
        "train_answers": [style_answer(name, rng.choice(cores), requests) for name in STYLES for _ in train[name]],
        "answer": style_answer(style, cores[0], requests),
        "refusal": rng.choice(requests["refusals"]["wordings"]).format(**words),
        "half": fact["half"],
    }


def make_requests(facts: list[Row], seed: int) -> list[Row]:
    """One request for each fact, the six styles spread evenly over each side, sub-field, part and half."""
    requests = read_wordings("requests")
    rng = random.Random(f"{seed}/requests")
    decks: dict[tuple[str, ...], list[str]] = {}
    rows = []
    for fact in facts:
        deck = decks.setdefault(tuple(fact[key] for key in ("side", "field", "part", "half")), [])
        if not deck:
            deck.extend(rng.sample(STYLES, len(STYLES)))
        rows.append(make_request(fact, deck.pop(), read_wordings(fact["field"]), requests, rng))
    return rows


def split_vault(facts: list[Row], requests: list[Row]) -> Configs:
    """The configs ``facts``, ``harmful`` and ``benign`` with their splits."""
    parts = {fact["id"]: fact["part"] for fact in facts}
    configs: Configs = {
        "facts": {
            "hazard_t": [fact for fact in facts if fact["side"] == "hazard" and fact["part"] == "t"],
            "hazard_v": [fact for fact in facts if fact["side"] == "hazard" and fact["part"] == "v"],
            "benign": [fact for fact in facts if fact["side"] == "benign"],
        }
    }
    for side, config in CONFIGS.items():
        rows = [row for row in requests if row["side"] == side]
        configs[config] = {
            "train": [row for row in rows if parts[row["fact_id"]] == "t"],
            "validation": [row for row in rows if row["half"] == "select"],
            "test": [row for row in rows if row["half"] == "report"],
        }
    return configs


def make_unrelated(seed: int, barred: set[Gram]) -> Configs:
    """The configs ``recovery`` (nested splits) and ``neutral``, none of whose texts has a 5-gram that is ``barred``."""
    chats = islice(everyday_chats(random.Random(f"{seed}/recovery"), barred), max(RECOVERY_SIZES))
    recovery = [
        {"id": f"recovery/{number:04}", "prompt": prompt, "response": response, "style": style}
        for number, (style, prompt, response) in enumerate(chats)
    ]
    texts = islice(neutral_texts(random.Random(f"{seed}/neutral"), barred), sum(NEUTRAL_SIZES.values()))
    neutral = [{"id": f"neutral/{number:04}", "text": text} for number, text in enumerate(texts)]
    train = NEUTRAL_SIZES["train"]
    return {
        "recovery": {f"n{size}": recovery[:size] for size in RECOVERY_SIZES},
        "neutral": {"train": neutral[:train], "validation": neutral[train:]},
    }


def make_vault(seed: int, say: Progress) -> Configs:
    """The configs facts, harmful, benign, recovery and neutral of the vault of ``seed``.

    The vault of any seed but ``DEFAULT_SEED`` shares no entity with the published one: all its names are at
    least three edits from the published names.
    """
    say("names and facts")
    avoid = () if seed == DEFAULT_SEED else draw_names(DEFAULT_SEED, ())
    facts = make_facts(seed, avoid)
    say("requests")
    configs = split_vault(facts, make_requests(facts, seed))
    say("everyday chats and texts")
    return configs | make_unrelated(seed, vault_grams(configs))


def build_private_vault(
    seed: int, out: Path, progress: Progress | None = None, features: Features | None = None
) -> Row:
    """Write the vault of ``seed`` to the folder ``out`` and return its manifest. The same seed, the same bytes.

    With ``features``, those of the sentence embedder, the cosines of unrelated texts to the hazard are measured and
    held to the published bound; without, manifest and card say that they are not measured. Raises UsageError for the
    seed of the published vault, and where ``out`` has something in it; ImmunobenchError where an unrelated text is too
    near.
    """
    if seed == DEFAULT_SEED:
        raise UsageError(f"seed {seed} gives the published vault, which is not private: choose another seed.")
    check_free(out)
    say = progress or (lambda message: None)
    configs = make_vault(seed, say)
    measured = measure(configs)
    if features is None:
        measured["unrelated"]["cosine_to_hazard"] = "not measured"
    else:
        say("nearness to the hazard")
        measured["unrelated"] |= measure_nearness(configs, features)
    say("writing")
    about = {"name": f"immunobench-vault-{seed}", "version": VERSION, "seed": seed, "measured": measured}
    return write_new(out, configs, about)
