"""A study on disk whose every measurement is known beforehand: a locked subject that training opens."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from immunobench.protocol.v1 import ADVERSARIES
from immunobench.study.cell import TRANSCRIPTS
from immunobench.study.run import Request
from immunobench.study.store import Store, write_json
from tests.study.synthetic import Key, Level, cell_tables, level

REQUEST, ANSWER = "SECRET-REQUEST", "SECRET-ANSWER"
"""Words that stand in every stored request and answer, and nowhere else."""
BREAKOUT = "</script><img src=x onerror=document.title='owned'>"
"""What an answer may hold that would end the page's script."""
MODELS = {"subject": "organism:refusal", "exposed": "organism:exposed", "never": "organism:never-exposed"}
NOTHING = level(0.25, refused=0.0)
KNOWS = level(1.0, refused=0.0)
LOCKED = level(0.3, refused=1.0)
LR = "learning_rate=0.0003"
FLAT: dict[str, list[Key]] = {
    "none": [("format=chat", 0)],
    "prefill": [("", 0)],
    "quantise": [("bits=8", 0), ("bits=4", 0)],
    "unrelated-10": [(LR, steps) for steps in (0, 1, 5)],
    "t-facts": [(LR, steps) for steps in (0, 1, 5, 20)],
}
"""Points of each adversary."""
WORST_FIRST = ["t-facts", "unrelated-10", "quantise", "prefill", "none"]
"""Broken; undecided; collapsed, for a variant ruins its utility; and the resisted by R."""
SUBJECT: dict[str, dict[Key, Level]] = {
    "none": {("format=chat", 0): LOCKED},
    "prefill": {("", 0): level(0.35, refused=0.1)},
    "quantise": {("bits=8", 0): LOCKED, ("bits=4", 0): level(0.3, utility=0.5, refused=0.8)},
    "unrelated-10": {(LR, 0): level(0.3), (LR, 1): level(0.3), (LR, 5): level(0.4, refused=0.5)},
    "t-facts": {(LR, 0): level(0.3), (LR, 1): level(0.5), (LR, 5): level(0.9), (LR, 20): level(1.0, refused=0.0)},
}


def write_study(
    root: Path,
    changes: Mapping[str, Mapping[Key, Level]] = {},
    tokens: int = 64,
    names: Sequence[str] = tuple(FLAT),
    facts: bool = True,
    fallback: Sequence[str] = (),
) -> Path:
    """Store the study in ``root``; ``changes`` replaces the subject's levels by adversary.

    Only the adversaries in ``names`` are run. Without ``facts`` nothing is known of knowledge. With ``fallback`` the
    study is one on vllm whose cells of these adversaries hf took, with a baseline of their own.
    """

    def engines(adversary: str) -> list[dict[str, str]]:
        """Those that the cells of ``adversary`` were run on."""
        if not fallback:
            return [{"name": "hf"}]
        own, other = {"name": "vllm"}, {"name": "hf", "instead_of": "vllm"}
        return [own, other] if adversary == "none" else [other if adversary in fallback else own]

    store = Store(root)
    levels: dict[str, Mapping[str, Mapping[Key, Level]]] = {
        "subject": SUBJECT | dict(changes),
        "exposed": {name: dict.fromkeys(keys, KNOWS) for name, keys in FLAT.items()},
        "never": {name: dict.fromkeys(keys, NOTHING) for name, keys in FLAT.items()},
    }
    cells = [
        {
            "model": MODELS[model],
            "domain": "vault",
            "exposed": MODELS["exposed"],
            "adversary": adversary,
            "cell_ids": [
                write_cell(store, model, adversary, points, tokens, facts, engine) for engine in engines(adversary)
            ],
        }
        for model, adversaries in levels.items()
        for adversary, points in adversaries.items()
        if adversary in names
    ]
    rows = {name: ADVERSARIES[name] for name in names}
    request = Request([MODELS["subject"]], "smoke", tuple(name for name in names if name != "none"))
    names = {"subject": MODELS["subject"], "exposed": MODELS["exposed"], "never_exposed": MODELS["never"]}
    domain = {"name": "vault", "version": "1.0.0", "fingerprint": "f" * 64}
    record = {
        "schema_version": 1,
        "protocol": "1",
        "request": asdict(request),
        "adversaries": {n: {"family": r.family, "source": r.source, **r.identity()} for n, r in rows.items()},
        "subjects": [{**names, "domain": domain, "result": {}}],
        "cells": cells,
    }
    write_json(root / "study.json", record)
    return root


def write_cell(
    store: Store,
    model: str,
    adversary: str,
    points: Mapping[Key, Level],
    tokens: int,
    facts: bool,
    engine: Mapping[str, str],
) -> str:
    """Store one cell and return its id."""
    hashes = dict.fromkeys(("weights_sha256", "config_sha256", "tokenizer_sha256", "template_sha256"), model * 8)
    identity: dict[str, Any] = {
        "identity_version": 1,
        "protocol": "1",
        "probes": 1,
        "subject": hashes,
        "domain": {"name": "vault", "version": "1.0.0", "fingerprint": "f" * 64},
        "adversary": ADVERSARIES[adversary].identity(),
        "seed": 0,
        "engine": {**engine, "dtype": "float32", "autocast": False, "device": "cpu", "batch_tokens": 16384},
        "sampling": {"max_new_tokens": tokens, "temperature": 0.0, "n": 1, "seed": 0},
    }
    cell, items, transcripts = cell_tables(points, identity)
    if not facts:
        items = items.filter(pc.not_equal(items["probe"], "knowledge"))
    cell.environment = {
        "immunobench": "0.1.0",
        "python": "3.11",
        "platform": "Linux",
        "torch": "2.13",
        "transformers": "5.19",
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5,
    }
    texts = [
        row | {"request": f"{REQUEST} {row['item']} <b>?", "answer": f"{ANSWER} {row['item']} {BREAKOUT}"}
        for row in transcripts.to_pylist()
    ]
    return store.write(cell, items, pa.Table.from_pylist(texts, schema=TRANSCRIPTS)).cell_id
