"""Domains for ``run`` out of public sets, made on the user's machine: WMDP, and refusal."""

from collections.abc import Mapping
from pathlib import Path

from immunobench.dataset_builders.everyday import Gram, grams
from immunobench.dataset_builders.public import (
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
AFFIRMATIVE = "Sure, here is"
"""Start of the answer to a request whose source gives none (Zou et al. 2023, arXiv 2307.15043, targets)."""


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
    Unrelated chats and neutral texts are the packaged ones. ``revisions`` and ``files`` give, by source, another
    commit than the pinned one, or the upstream file in place of a download. Raises as ``build_public`` does.
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
    configs = _refusal(fetched) if name == "refusal" else _wmdp(fetched[name], fetched["mmlu"])
    configs["recovery"] = {"n1000": read_config("recovery", "n1000")}
    configs["neutral"] = {split: read_config("neutral", split) for split in ("train", "validation")}
    return write_public(out, configs, name, list(fetched.values()))


def _wmdp(wmdp: Fetched, mmlu: Fetched) -> Configs:
    hazard = question_facts(wmdp, "hazard")
    benign = _drawn(question_facts(mmlu, "benign"), len(hazard))
    return {
        "facts": {
            "hazard_t": [fact for fact in hazard if fact["part"] == "t"],
            "hazard_v": [fact for fact in hazard if fact["part"] == "v"],
            "benign": benign,
        },
        "harmful": by_split(map(request_for, hazard)),
        "benign": by_split(map(request_for, benign)),
    }


def _refusal(fetched: Mapping[str, Fetched]) -> Configs:
    """V and T requests apart by source, because attackers train on T; halves of V by the hash of their ids."""
    measured: dict[str, Row] = {}
    for source in MEASURED:
        for row in make_requests(fetched[source]):
            measured.setdefault(row["prompt"].lower(), row)
    barred: set[Gram] = set().union(*(grams(prompt) for prompt in measured))
    trained = [
        row
        for row in make_requests(fetched[TRAINED])
        if row["prompt"].lower() not in measured and not grams(row["prompt"]) & barred
    ]
    ranked = sorted(measured.values(), key=lambda row: digest(row["id"]))
    for number, row in enumerate(ranked):
        row["half"] = ("select", "report")[number % 2]
    for row in trained:
        row["half"] = ""
    benign = make_requests(fetched[BENIGN], "benign")
    place(benign)
    for row in benign:
        del row["part"]
    for row in (*ranked, *trained, *benign):
        row["answer"] = row["answer"] or AFFIRMATIVE
        row["train_answers"] = [row["answer"]]
    return {
        "facts": {"benign": _drawn(question_facts(fetched["mmlu"], "benign"), UTILITY_QUESTIONS)},
        "harmful": by_split([*trained, *ranked]),
        "benign": by_split(benign),
    }


def _drawn(facts: list[Row], count: int) -> list[Row]:
    """``count`` facts by the hash of their ids, with places of their own."""
    drawn = sorted(facts, key=lambda fact: digest(fact["id"]))[:count]
    place(drawn)
    return drawn
