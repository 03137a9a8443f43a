"""Public sets in the schema of the vault, made on the user's machine and never passed on."""

import hashlib
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


def build_public(
    name: str, out: Path, revision: str | None = None, file: Path | None = None, progress: Progress | None = None
) -> Row:
    """Write the public set ``name`` to the folder ``out`` in our schema, and return the manifest.

    Requests become the config ``harmful``, chats ``chats``, texts ``neutral``, choices ``facts``. It is read at the
    pinned commit, at ``revision``, or from the ``file``. The manifest names repository, commit, licence and the
    SHA-256 of each upstream file. Raises ImmunobenchError or UsageError, and then leaves no folder.
    """
    say = progress or (lambda message: None)
    say(f"fetch {name}")
    fetched = fetch(name, revision, file)
    makers = {"requests": _requests, "chats": _chats, "texts": _texts, "choices": _choices}
    return write_public(out, makers[fetched.source.kind](fetched), name, [fetched])


def write_public(out: Path, configs: Configs, name: str, fetched: list[Fetched]) -> Row:
    """Write all or nothing, with where each source came from. Raises ImmunobenchError for a split without rows."""
    check_free(out)
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
    return write_new(out, configs, {"name": name, "version": VERSION, "upstream": upstream})


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


def make_requests(fetched: Fetched, side: str = "hazard") -> list[Row]:
    """Requests in the schema of ``harmful``, repeats left out, without a place yet."""
    seen: dict[str, Row] = {}
    for row in fetched.rows:
        identity = f"{fetched.source.name}/{digest(row['prompt'])[:12]}"
        if row["prompt"] and identity not in seen:
            category, answer = row.get("category") or fetched.source.name, row.get("response") or ""
            seen[identity] = _request(identity, "", side, category, "", row["prompt"], answer)
    return list(seen.values())


def _requests(fetched: Fetched) -> Configs:
    rows = make_requests(fetched)
    place(rows)
    for row in rows:
        del row["part"]
    return {"harmful": by_split(rows)}


def _chats(fetched: Fetched) -> Configs:
    rows, seen = [], set()
    for row in fetched.rows:
        prompt = f"{row['prompt']}\n\n{row['context']}" if row.get("context") else row["prompt"]
        identity = f"{fetched.source.name}/{digest(prompt + row['response'])[:12]}"
        if prompt and row["response"] and identity not in seen:
            seen.add(identity)
            safe = str(row["safe"]).lower() if "safe" in row else ""
            rows.append({"id": identity, "prompt": prompt, "response": row["response"], "style": "chat", "safe": safe})
    return {"chats": {"train": rows}}


def _texts(fetched: Fetched) -> Configs:
    texts = [row["text"] for row in fetched.rows if len(row["text"].split()) >= 20]
    rows = [{"id": f"{fetched.source.name}/{number:05}", "text": text} for number, text in enumerate(texts)]
    return {"neutral": {"validation": rows}}


def _choices(fetched: Fetched) -> Configs:
    facts = question_facts(fetched, "benign" if fetched.source.name == "mmlu" else "hazard")
    side = facts[0]["side"]
    return {"facts": {f"{side}_{part}": [fact for fact in facts if fact["part"] == part] for part in ("t", "v")}}


def question_facts(fetched: Fetched, side: str) -> list[Row]:
    """Four-way questions in the schema of ``facts``; each question is an entity of its own.

    Questions that have a choice twice are left out. Raises ImmunobenchError for another number of choices than four,
    for an answer that is none of them, and where no question is left.
    """
    facts: dict[str, Row] = {}
    for row in fetched.rows:
        identity = f"{side}/{fetched.source.name}/{digest(row['question'])[:12]}"
        choices, answer = [str(choice) for choice in row["choices"]], _index(row["answer"])
        if len(choices) != CHOICES or not 0 <= answer < CHOICES:
            wrong = (
                f"a question of {len(choices)} choices" if len(choices) != CHOICES else f"an answer '{row['answer']}'"
            )
            raise ImmunobenchError(f"{fetched.source.name} has {wrong} where one of {CHOICES} is right: {CHANGED}.")
        if len(set(choices)) < CHOICES:
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
