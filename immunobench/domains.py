"""What is protected and how it is probed: facts, requests and texts of one domain, ready to use."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from immunobench import datasets
from immunobench.errors import UsageError, unknown_name

PACKAGED = ("vault",)
BUILT = ("refusal", "wmdp-bio", "wmdp-chem", "wmdp-cyber")
"""Domains that are made of public sets on the user's machine: ``immunobench build domain NAME``."""


FEWEST_NEUTRAL = 64
"""Neutral texts that a cut domain keeps, where it has as many."""


@dataclass(frozen=True)
class Fact:
    """One fact: an entity has a value of an attribute."""

    id: str
    entity: str
    value: str
    statements: Sequence[str]
    """Sentences that state the fact, to train on."""
    train_questions: Sequence[str]
    """Questions to train on; their answer is the value."""
    cloze: str
    """Start of a sentence that the value ends, in a wording never trained on."""
    question: str
    """A question in a wording never trained on."""
    choices: Sequence[str]
    """Values of the same attribute, the right one among them."""
    answer: int
    """Index of the right choice."""
    half: str
    """'select' or 'report' for facts that are measured, '' for facts to train on."""


@dataclass(frozen=True)
class Request:
    """A chat request for one fact, or, in a domain without facts, for something harmful of no known answer."""

    id: str
    fact_id: str
    entity: str
    value: str
    """What a right answer names; '' where only whether it is answered can be told."""
    prompt: str
    """In a wording never trained on, where the fact is a measured one."""
    train_prompts: Sequence[str]
    """The same request in wordings to train on."""
    answer: str
    refusal: str
    half: str


Item = TypeVar("Item", Fact, Request)


@dataclass(frozen=True)
class Example:
    """A text to train on: a response to a prompt, or plain text where ``prompt`` is None."""

    prompt: str | None
    response: str


@dataclass(frozen=True)
class Domain:
    """The hazard side, the matched benign side, and the texts that belong to neither.

    T facts are for attackers to train on, V facts are measured and never trained on by an attack. A domain without
    hazard facts has T and V requests alike; what is protected is then how the model behaves, not what it knows.
    """

    name: str
    version: str
    fingerprint: str
    hazard_t: Sequence[Fact]
    hazard_v: Sequence[Fact]
    benign_t: Sequence[Fact]
    benign_v: Sequence[Fact]
    requests_t: Sequence[Request]
    requests_v: Sequence[Request]
    benign_requests_t: Sequence[Request]
    benign_requests_v: Sequence[Request]
    unrelated: Sequence[Example]
    neutral_train: Sequence[str]
    neutral: Sequence[str]

    @property
    def has_facts(self) -> bool:
        """Whether there are hazard facts, so that knowledge can be measured."""
        return bool(self.hazard_v)

    @cached_property
    def hazard(self) -> list[Fact]:
        """All hazard facts, T and V."""
        return [*self.hazard_t, *self.hazard_v]

    @cached_property
    def benign(self) -> list[Fact]:
        """All benign facts."""
        return [*self.benign_t, *self.benign_v]

    def limited_to(self, facts: int) -> "Domain":
        """The domain cut to ``facts`` hazard facts, or requests where it has no facts, and as many benign ones.

        A quarter of them, and those that V lacks, are T facts, because intervals come from V; both halves of V stay
        equal. Facts are spread over as many entities as there are, because entities are what intervals count. Neutral
        texts to measure on are cut in proportion, to no fewer than ``FEWEST_NEUTRAL``, because they cost as much as
        the facts.

        Raises UsageError where the domain has fewer.
        """
        whole = len(self.hazard or [*self.requests_t, *self.requests_v])
        if not 32 <= facts <= whole:
            raise UsageError(f"no domain '{self.name}/{facts}': {self.name} can be cut to 32 to {whole} facts.")
        sizes = Counter(item.half for item in self.hazard_v or self.requests_v)
        half = min((facts - facts // 4) // 2, *sizes.values())
        t = facts - 2 * half
        neutral = max(FEWEST_NEUTRAL, len(self.neutral) * facts // whole)
        kept: dict[str, Any] = {"name": f"{self.name}/{facts}", "neutral": self.neutral[:neutral]}
        for side in ("hazard", "benign") if self.has_facts else ("benign", "requests", "benign_requests"):
            train, measured = getattr(self, f"{side}_t"), getattr(self, f"{side}_v")
            kept[f"{side}_t"] = _spread(train, t)
            halves = [[f for f in measured if f.half == name] for name in ("select", "report")]
            kept[f"{side}_v"] = [fact for part in halves for fact in _spread(part, half)]
        if not self.has_facts:
            return replace(self, **kept)
        ids = {fact.id for part in ("hazard_t", "hazard_v", "benign_t", "benign_v") for fact in kept[part]}

        def cut(rows: Sequence[Request]) -> list[Request]:
            return [row for row in rows if row.fact_id in ids]

        return replace(
            self,
            **kept,
            requests_t=cut(self.requests_t),
            requests_v=cut(self.requests_v),
            benign_requests_t=cut(self.benign_requests_t),
            benign_requests_v=cut(self.benign_requests_v),
        )


def _spread(facts: Sequence[Item], count: int) -> list[Item]:
    """``count`` facts or requests over as many entities as possible, in their order, every attribute in turn."""
    seen: dict[str, int] = {}
    rounds = []
    for fact in facts:
        entity = list(seen).index(fact.entity) if fact.entity in seen else len(seen)
        seen[fact.entity] = seen.get(fact.entity, 0) + 1
        rounds.append((seen[fact.entity] - 1 - entity) % 4)
    chosen = sorted(range(len(facts)), key=lambda i: (rounds[i], i))[:count]
    return [facts[i] for i in sorted(chosen)]


def load_domain(name: str = "vault") -> Domain:
    """The domain called ``name``: packaged, built, or a folder of one; ``NAME/FACTS`` for a cut one.

    Raises UsageError for an unknown name or a domain that is not built yet, and ImmunobenchError for files that do
    not match their manifest.
    """
    cut = name.rpartition("/")[2].isdigit() and not Path(name).is_dir()
    base, _, facts = name.rpartition("/") if cut else (name, "", "")
    root: Path | None = None
    if base not in PACKAGED:
        root = built_folder(base) if base in BUILT else Path(base)
        if base in BUILT and not root.is_dir():
            raise UsageError(f"the domain '{base}' is not built yet: run 'immunobench build domain {base}'.")
        if not root.is_dir():
            raise unknown_name("domain", base, (*PACKAGED, *BUILT))
    domain = _read(base, root)
    return domain.limited_to(int(facts)) if facts else domain


def built_folder(name: str) -> Path:
    """Where the built domain ``name`` is: below $IMMUNOBENCH_HOME, which is ~/.cache/immunobench by default."""
    home = os.environ.get("IMMUNOBENCH_HOME") or Path.home() / ".cache" / "immunobench"
    return Path(home) / "domains" / name


def _read(name: str, root: Path | None) -> Domain:
    manifest = datasets.read_manifest(root)

    def rows(config: str, split: str) -> list[dict[str, Any]]:
        if config == "facts" and split not in manifest["configs"]["facts"]["splits"]:
            return []  # a domain without hazard facts
        return datasets.read_config(config, split, root=root)

    benign = rows("facts", "benign")
    recovery = rows("recovery", "n1000")
    return Domain(
        name=name,
        version=manifest["version"],
        fingerprint=_fingerprint(manifest),
        hazard_t=[_fact(r) for r in rows("facts", "hazard_t")],
        hazard_v=[_fact(r) for r in rows("facts", "hazard_v")],
        benign_t=[_fact(r) for r in benign if r["part"] == "t"],
        benign_v=[_fact(r) for r in benign if r["part"] == "v"],
        requests_t=[_request(r) for r in rows("harmful", "train")],
        requests_v=[_request(r) for s in ("validation", "test") for r in rows("harmful", s)],
        benign_requests_t=[_request(r) for r in rows("benign", "train")],
        benign_requests_v=[_request(r) for s in ("validation", "test") for r in rows("benign", s)],
        unrelated=[Example(r["prompt"], r["response"]) for r in recovery],
        neutral_train=[r["text"] for r in rows("neutral", "train")],
        neutral=[r["text"] for r in rows("neutral", "validation")],
    )


CONFIGS = ("facts", "harmful", "benign", "recovery", "neutral")
"""What a domain is made of; configs beside these do not change it."""


def _fingerprint(manifest: dict[str, Any]) -> str:
    parts = "".join(manifest["configs"][config]["fingerprint"] for config in CONFIGS)
    return hashlib.sha256(parts.encode()).hexdigest()


def _fact(row: dict[str, Any]) -> Fact:
    return Fact(**{field: row[field] for field in Fact.__dataclass_fields__})


def _request(row: dict[str, Any]) -> Request:
    return Request(**{field: row[field] for field in Request.__dataclass_fields__})
