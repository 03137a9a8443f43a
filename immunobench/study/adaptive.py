"""The adaptive search on one subject: its trials are run in place and measured on the select items."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from immunobench.domains import Domain, load_domain
from immunobench.engines.base import Engine, Sampling
from immunobench.engines.hf import HFEngine
from immunobench.metrics.knowledge import knowledge_accuracy
from immunobench.metrics.utility import utility_drop
from immunobench.probes import collapse, knowledge, utility
from immunobench.probes.base import Row
from immunobench.protocol.adversary import Adversary, fingerprint
from immunobench.protocol.search import Found, Plan, Reading, found, search
from immunobench.protocol.space import Parameters, parameters_of
from immunobench.protocol.v1 import ADVERSARIES
from immunobench.rendering import PromptEdit
from immunobench.study.claim import claimed
from immunobench.study.evidence import COLLAPSE_NATS
from immunobench.study.execute import Task
from immunobench.study.references import exposed_for
from immunobench.study.score import Score
from immunobench.subjects import Subject

FOLDER = "search"
FROM_TABLE = 5
"""The best rows of the table that a search begins from."""


@dataclass(frozen=True)
class Search:
    """A search to run, by names alone."""

    model: str
    domain: str
    exposed: str
    plan: Plan
    begin: tuple[Parameters, ...] = ()
    """Parameters of the table's best rows."""

    @property
    def name(self) -> tuple[str | int, ...]:
        """What tells it from every other search of a study."""
        return self.model, self.domain, self.exposed, "search"


def run_search(asked: Search, engine: Engine, root: Path) -> Found | None:
    """Spend what is left of the trials; None where another process is at it.

    The journal is known by all that can change a trial, and not by how many there are: a longer search goes on in
    it. Trials are measured by the transformers engine whatever serves the cells: they choose, they are not reported.
    """
    domain, subject = load_domain(asked.domain), engine.subject
    plan = {name: value for name, value in asked.plan.identity().items() if name not in ("trials", "winners")}
    hf = HFEngine(subject)
    none = Task(ADVERSARIES["none"], asked.plan.seed, domain, Sampling(), asked.exposed).identity(hf)
    exposed = exposed_for(subject, asked.exposed).weights_sha256
    mark = fingerprint({**none, "exposed": exposed, "search": plan})
    domain = select_half(domain)
    with claimed(root, mark, {"job": list(asked.name), "identity": none}) as mine:
        if not mine:
            return None
        before = measure(hf, domain, PromptEdit())

        def curve(adversary: Adversary, seed: int) -> Iterator[Reading]:
            return readings(adversary, seed, subject, domain, asked.exposed, before)

        journal = root / FOLDER / f"{mark}.journal"
        search(asked.plan, journal, curve, asked.begin)
        return found(asked.plan, journal, _share(before))


def readings(
    adversary: Adversary, seed: int, subject: Subject, domain: Domain, exposed: str, before: Sequence[Row]
) -> Iterator[Reading]:
    """The curve of one run on the select items; the subject is as it was when this is closed."""
    engine = HFEngine(subject)
    checkpoints = Task(adversary, seed, domain, Sampling(), exposed).checkpoints(subject)
    try:
        for checkpoint in checkpoints:
            after = measure(engine, domain, checkpoint.artifact.prompt)
            drop = utility_drop(_values(before, "utility"), _values(after, "utility"), level=0.90)
            rise = np.median(_values(after, "collapse", "loss")) - np.median(_values(before, "collapse", "loss"))
            yield Reading(checkpoint.cost.steps, _share(after), drop, bool(rise <= COLLAPSE_NATS))
    finally:
        close = getattr(checkpoints, "close", None)
        if close is not None:
            close()


def measure(engine: HFEngine, domain: Domain, edit: PromptEdit) -> list[Row]:
    """Knowledge, utility and neutral loss; nothing is generated."""
    return [
        *knowledge.measure(engine, domain, edit),
        *utility.measure(engine, domain, edit, False),
        *collapse.measure(engine, domain, False),
    ]


def select_half(domain: Domain) -> Domain:
    """The domain with only those of its measured facts that attacks may be chosen by."""
    return replace(
        domain,
        hazard_v=[fact for fact in domain.hazard_v if fact.half == "select"],
        benign_v=[fact for fact in domain.benign_v if fact.half == "select"],
        neutral=list(domain.neutral)[::2],
    )


def best_rows(scores: Sequence[tuple[Adversary, Score, float]]) -> tuple[Parameters, ...]:
    """Parameters of the table's best rows that lie in the space, from (row, score, R on select) of each."""
    ranked = sorted(scores, key=lambda each: math.inf if math.isnan(each[2]) else -each[2])
    points = []
    for row, score, _ in ranked:
        if score.worst and (point := parameters_of(row, f"{score.worst.variant},{score.worst.detail}")):
            points.append(point)
    return tuple(points[:FROM_TABLE])


def _values(rows: Sequence[Row], probe: str, measure: str = "correct") -> list[float]:
    return [row.values[measure] for row in rows if row.probe == probe]


def _share(rows: Sequence[Row]) -> float:
    return knowledge_accuracy(_values(rows, "knowledge")).value
