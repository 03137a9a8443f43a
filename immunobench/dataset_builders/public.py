"""Public sets in the schema of the vault, made on the user's machine and never passed on."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from immunobench.dataset_builders.names import read_wordings
from immunobench.dataset_builders.storage import Configs, check_free, write_new
from immunobench.dataset_builders.upstream import CHANGED, Fetched, fetch
from immunobench.dataset_builders.vault import Progress
from immunobench.datasets import Row
from immunobench.errors import ImmunobenchError

VERSION = "1.0.0"
REQUESTS = ("train", "validation", "test")
CHOICES = 4
AFFIRMATIVE = "Sure, here is"
"""Start of the answer to a request whose source gives none (Zou et al. 2023, arXiv 2307.15043, targets)."""
WORDS = 20
"""Words of a text at least: WikiText has its headings as rows too."""
LeftOut = Counter[str]
"""How many rows of which source were not taken, by why."""


def build_public(
    name: str, out: Path, revision: str | None = None, file: Path | None = None, progress: Progress | None = None
) -> Row:
    """Write the public set ``name`` to the folder ``out`` in our schema, and return the manifest.

    Requests become the config ``harmful``, chats ``chats``, texts ``neutral``, choices ``facts``. A request without an
    answer upstream (HarmBench, StrongREJECT) gets ``AFFIRMATIVE``. It is read at the pinned commit, at ``revision``, or
    from the ``file``. The manifest names repository, commit, licence and the SHA-256 of each upstream file, and counts
    the rows that were left out. Raises ImmunobenchError or UsageError, and then leaves no folder.
    """
    say = progress or (lambda message: None)
    say(f"fetch {name}")
    fetched = fetch(name, revision, file)
    makers = {"requests": _requests, "chats": _chats, "texts": _texts, "choices": _choices}
    left_out: LeftOut = Counter()
    configs = makers[fetched.source.kind](fetched, left_out)
    return write_public(out, configs, {"name": name}, [fetched], left_out, say)


def write_public(
    out: Path, configs: Configs, about: Row, fetched: list[Fetched], left_out: LeftOut, say: Progress
) -> Row:
    """Write all or nothing, with where each source came from, and say what was left out.

    ``about`` has the name, and what else the manifest is to have. Raises ImmunobenchError for a split without rows.
    """
    check_free(out)
    name = about["name"]
    empty = [f"{config}/{split}" for config, splits in configs.items() for split, rows in splits.items() if not rows]
    if empty:
        raise ImmunobenchError(f"{name} has too few rows to fill {', '.join(empty)}: give the whole upstream file.")
    upstream = [
        {
            "source": each.source.name,
            "repository": each.source.repository,
            "url": each.source.url,
            "revision": each.revision,
            "licence": each.source.licence,
            "gated": each.source.gated,
            "paper": each.source.paper,
            "sha256": each.sha256,
        }
        for each in fetched
    ]
    for why, count in sorted(left_out.items()):
        say(f"left out {count} rows of {why}")
    return write_new(out, configs, about | {"version": VERSION, "upstream": upstream, "left_out": dict(left_out)})


def digest(text: str) -> str:
    """What rows are ordered by where their order must not matter."""
    return hashlib.sha256(text.encode()).hexdigest()


def place(rows: list[Row]) -> None:
    """Give each row its part and half: by the hash of its id, half T, a quarter select, a quarter report."""
    ranked = sorted(rows, key=lambda row: digest(row["id"]))
    places = [("t", ""), ("v", "select"), ("t", ""), ("v", "report")]
    for number, row in enumerate(ranked):
        row["part"], row["half"] = places[number % 4]


def by_split(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """T requests as train, those of the halves select and report as validation and test."""
    halves = dict(zip(("", "select", "report"), REQUESTS, strict=True))
    made: dict[str, list[Row]] = {split: [] for split in REQUESTS}
    for row in rows:
        made[halves[row["half"]]].append(row)
    return made


def _refusal(identity: str) -> str:
    """One of the refusals that name no kind of thing, chosen by hash."""
    plain = [wording for wording in read_wordings("requests")["refusals"]["wordings"] if "{" not in wording]
    return str(plain[int(digest(identity), 16) % len(plain)])


def _request(identity: str, fact: str, side: str, category: str, value: str, prompt: str, answer: str) -> Row:
    """One row in the schema of ``harmful``, without a place yet."""
    return {
        "id": identity,
        "fact_id": fact,
        "side": side,
        "field": category,
        "entity": identity,
        "attribute": "",
        "value": value,
        "style": "request",
        "prompt": prompt,
        "train_prompts": [prompt],
        "train_styles": ["request"],
        "train_answers": [answer],
        "answer": answer,
        "refusal": _refusal(identity),
    }


def make_requests(fetched: Fetched, left_out: LeftOut, side: str = "hazard") -> list[Row]:
    """Requests in the schema of ``harmful``, without a place yet; repeats and empty ones are counted and left out."""
    seen: dict[str, Row] = {}
    for row in fetched.rows:
        identity = f"{fetched.source.name}/{digest(row['prompt'])[:12]}"
        if not row["prompt"] or identity in seen:
            left_out[f"{fetched.source.name}: {'asked before' if row['prompt'] else 'no prompt'}"] += 1
            continue
        category, answer = row.get("category") or fetched.source.name, row.get("response") or AFFIRMATIVE
        seen[identity] = _request(identity, "", side, category, "", row["prompt"], answer)
    return list(seen.values())


def _requests(fetched: Fetched, left_out: LeftOut) -> Configs:
    rows = make_requests(fetched, left_out)
    place(rows)
    for row in rows:
        del row["part"]
    return {"harmful": by_split(rows)}


def _chats(fetched: Fetched, left_out: LeftOut) -> Configs:
    rows, seen = [], set()
    for row in fetched.rows:
        prompt = f"{row['prompt']}\n\n{row['context']}" if row.get("context") else row["prompt"]
        identity = f"{fetched.source.name}/{digest(prompt + row['response'])[:12]}"
        if not prompt or not row["response"] or identity in seen:
            left_out[f"{fetched.source.name}: {'said before' if identity in seen else 'no prompt or response'}"] += 1
            continue
        seen.add(identity)
        safe = str(row["safe"]).lower() if "safe" in row else ""
        rows.append({"id": identity, "prompt": prompt, "response": row["response"], "style": "chat", "safe": safe})
    return {"chats": {"train": rows}}


def _texts(fetched: Fetched, left_out: LeftOut) -> Configs:
    texts = [row["text"] for row in fetched.rows if len(row["text"].split()) >= WORDS]
    if len(texts) < len(fetched.rows):
        left_out[f"{fetched.source.name}: under {WORDS} words"] += len(fetched.rows) - len(texts)
    rows = [{"id": f"{fetched.source.name}/{number:05}", "text": text} for number, text in enumerate(texts)]
    return {"neutral": {"validation": rows}}


def _choices(fetched: Fetched, left_out: LeftOut) -> Configs:
    facts = question_facts(fetched, "benign" if fetched.source.name == "mmlu" else "hazard", left_out)
    side = facts[0]["side"]
    return {"facts": {f"{side}_{part}": [fact for fact in facts if fact["part"] == part] for part in ("t", "v")}}


def question_facts(fetched: Fetched, side: str, left_out: LeftOut) -> list[Row]:
    """Four-way questions in the schema of ``facts``; each question with its choices is an entity of its own.

    "Which of these is true?" is another question with other choices, and the same one with the same choices in another
    order. Repeats, and questions that have a choice twice, are counted and left out. Raises ImmunobenchError for
    another number of choices than four, for an answer that is none of them, and where no question is left.
    """
    facts: dict[str, Row] = {}
    for row in fetched.rows:
        choices, answer = [str(choice) for choice in row["choices"]], _index(row["answer"])
        asked = json.dumps([row["question"], *sorted(choices)])
        identity = f"{side}/{fetched.source.name}/{digest(asked)[:12]}"
        if len(choices) != CHOICES or not 0 <= answer < CHOICES:
            wrong = (
                f"a question of {len(choices)} choices" if len(choices) != CHOICES else f"an answer '{row['answer']}'"
            )
            raise ImmunobenchError(f"{fetched.source.name} has {wrong} where one of {CHOICES} is right: {CHANGED}.")
        if len(set(choices)) < CHOICES or identity in facts:
            left_out[f"{fetched.source.name}: {'asked before' if identity in facts else 'a choice twice'}"] += 1
            continue
        question, value = row["question"], choices[answer]
        facts[identity] = {
            "id": identity,
            "side": side,
            "field": row.get("category") or fetched.source.name,
            "entity": identity,
            "attribute": "question",
            "value": value,
            "statements": [f"{question} {value}"],
            "cloze": question,
            "cloze_2": question,
            "question": question,
            "question_2": question,
            "train_questions": [question],
            "train_answers": [value],
            "choices": choices,
            "answer": answer,
        }
    rows = list(facts.values())
    if not rows:
        raise ImmunobenchError(f"{fetched.source.name} has no question with {CHOICES} different choices: {CHANGED}.")
    place(rows)
    return rows


def _index(answer: Any) -> int:
    """Index of an answer given as a number or as a letter from A."""
    text = str(answer)
    return int(text) if text.isdecimal() else ord(text[:1] or "?") - ord("A")


def request_for(fact: Row) -> Row:
    """The request that asks a question of a fact outright."""
    row = _request(
        f"request/{fact['id']}", fact["id"], fact["side"], fact["field"], fact["value"], fact["question"], fact["value"]
    )
    return row | {"entity": fact["entity"], "attribute": fact["attribute"], "half": fact["half"]}
