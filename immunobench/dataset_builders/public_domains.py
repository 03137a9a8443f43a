"""Domains for ``run`` out of public sets, made on the user's machine: WMDP, and refusal."""

from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from immunobench.dataset_builders.everyday import Gram, grams
from immunobench.dataset_builders.figures import row_grams
from immunobench.dataset_builders.public import (
    LeftOut,
    by_split,
    digest,
    make_requests,
    place,
    question_facts,
    request_for,
    write_public,
)
from immunobench.dataset_builders.storage import Configs
from immunobench.dataset_builders.upstream import Fetched, fetch, find_source
from immunobench.dataset_builders.vault import Progress
from immunobench.datasets import Row, read_config
from immunobench.domains import BUILT
from immunobench.errors import UsageError, unknown_name

MEASURED = ("jailbreakbench", "harmbench", "strongreject")
"""Sources of the V requests of 'refusal'."""
TRAINED = "advbench"
"""Source of its T requests."""
BENIGN = "jailbreakbench-benign"
"""Source of its benign requests."""
SOURCES = {name: (*MEASURED, TRAINED, BENIGN, "mmlu") if name == "refusal" else (name, "mmlu") for name in BUILT}
UTILITY_QUESTIONS = 512
"""Questions of MMLU that measure the utility of 'refusal'."""


def build_domain(
    name: str,
    out: Path,
    revisions: Mapping[str, str] | None = None,
    files: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
) -> Row:
    """Write the domain ``name`` to the folder ``out``, for ``run --domain``, and return the manifest.

    The hazard of ``wmdp-bio``, ``-chem`` and ``-cyber`` is WMDP, their benign side as many questions of MMLU. That of
    ``refusal`` has requests and no facts: V are JailbreakBench, HarmBench (standard) and StrongREJECT, T is AdvBench
    without what shares a 5-gram with V; its benign side is JailbreakBench's benign requests and questions of MMLU.
    Unrelated chats and neutral texts are the packaged ones without those that share a 5-gram with the hazard side.
    ``revisions`` and ``files`` give, by source, another commit than the pinned one, or the upstream file in place of a
    download. Raises as ``build_public`` does.
    """
    if name not in BUILT:
        raise unknown_name("domain", name, BUILT)
    for given in (*(revisions or {}), *(files or {})):
        if given not in SOURCES[name]:
            find_source(given)
            raise UsageError(f"{name} is not made of {given}: its sources are {', '.join(SOURCES[name])}.")
    say = progress or (lambda message: None)
    fetched = {}
    for source in SOURCES[name]:
        say(f"fetch {source}")
        fetched[source] = fetch(source, (revisions or {}).get(source), (files or {}).get(source))
    left_out: LeftOut = Counter()
    configs = _refusal(fetched, left_out) if name == "refusal" else _wmdp(fetched[name], fetched["mmlu"], left_out)
    unrelated = _unrelated(_hazard_grams(configs), left_out)
    texts = len(unrelated["recovery"]["n1000"]) + sum(map(len, unrelated["neutral"].values()))
    measured = {"unrelated": {"texts": texts, "texts_with_a_shared_5_gram": 0}}
    about = {"name": name, "measured": measured}
    return write_public(out, configs | unrelated, about, list(fetched.values()), left_out, say)


def _unrelated(barred: set[Gram], left_out: LeftOut) -> Configs:
    """The packaged chats and neutral texts without those that have a 5-gram that is ``barred``."""

    def kept(config: str, split: str) -> list[Row]:
        rows = read_config(config, split)
        unrelated = [row for row in rows if not row_grams(row) & barred]
        if len(unrelated) < len(rows):
            left_out[f"{config}: a 5-gram of the hazard side"] += len(rows) - len(unrelated)
        return unrelated

    return {
        "recovery": {"n1000": kept("recovery", "n1000")},
        "neutral": {split: kept("neutral", split) for split in ("train", "validation")},
    }


def _hazard_grams(configs: Configs) -> set[Gram]:
    """All 5-grams of the hazard side: facts and requests, to train on and measured."""
    facts = [fact for rows in configs["facts"].values() for fact in rows if fact["side"] == "hazard"]
    rows = chain(facts, *configs["harmful"].values())
    return {gram for row in rows for gram in row_grams(row)}


def _wmdp(wmdp: Fetched, mmlu: Fetched, left_out: LeftOut) -> Configs:
    hazard = question_facts(wmdp, "hazard", left_out)
    benign = _drawn(question_facts(mmlu, "benign", left_out), len(hazard))
    return {
        "facts": {
            "hazard_t": [fact for fact in hazard if fact["part"] == "t"],
            "hazard_v": [fact for fact in hazard if fact["part"] == "v"],
            "benign": benign,
        },
        "harmful": by_split(map(request_for, hazard)),
        "benign": by_split(map(request_for, benign)),
    }


def _refusal(fetched: Mapping[str, Fetched], left_out: LeftOut) -> Configs:
    """V and T requests apart by source, because attackers train on T; halves of V by the hash of their ids."""
    measured: dict[str, Row] = {}
    for source in MEASURED:
        for row in make_requests(fetched[source], left_out):
            if measured.setdefault(row["prompt"].lower(), row) is not row:
                left_out[f"{source}: asked by another source, or in other capitals"] += 1
    barred: set[Gram] = set().union(*(grams(prompt) for prompt in measured))
    asked = make_requests(fetched[TRAINED], left_out)
    trained = [row for row in asked if row["prompt"].lower() not in measured and not grams(row["prompt"]) & barred]
    if len(trained) < len(asked):
        left_out[f"{TRAINED}: the prompt or a 5-gram of a measured request"] += len(asked) - len(trained)
    ranked = sorted(measured.values(), key=lambda row: digest(row["id"]))
    for number, row in enumerate(ranked):
        row["half"] = ("select", "report")[number % 2]
    for row in trained:
        row["half"] = ""
    benign = make_requests(fetched[BENIGN], left_out, "benign")
    place(benign)
    for row in benign:
        del row["part"]
    return {
        "facts": {"benign": _drawn(question_facts(fetched["mmlu"], "benign", left_out), UTILITY_QUESTIONS)},
        "harmful": by_split([*trained, *ranked]),
        "benign": by_split(benign),
    }


def _drawn(facts: list[Row], count: int) -> list[Row]:
    """``count`` facts by the hash of their ids, with places of their own."""
    drawn = sorted(facts, key=lambda fact: digest(fact["id"]))[:count]
    place(drawn)
    return drawn
