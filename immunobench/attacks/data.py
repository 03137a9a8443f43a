"""What an attacker trains and calibrates on. None of it is measured: T facts, benign facts, unrelated texts."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from immunobench.attacks.base import Cost
from immunobench.domains import Domain, Example, Fact
from immunobench.engines.base import Sampling
from immunobench.engines.hf import HFEngine
from immunobench.errors import UsageError, unknown_name
from immunobench.subjects import Subject
from immunobench.training.examples import fact_examples

HAZARD_SHARE = 0.1
"""Share of hazard in 'benign-with-hazard' (10 % poison: Huang et al., Booster, arXiv 2409.01586)."""
ANSWER_TOKENS = 50
"""Length of the subject's own answers to calibrate on (Łucki et al., arXiv 2409.18025)."""


@dataclass(frozen=True)
class Phase:
    """Examples for a share of a run's steps."""

    examples: Sequence[Example]
    share: float = 1.0


def sub_field(fact_id: str) -> str:
    """The sub-field of a fact: the second part of its id."""
    return fact_id.split("/")[1] if fact_id.count("/") > 1 else ""


def _t_facts(domain: Domain, field: str, seed: int) -> list[Example]:
    facts = [fact for fact in domain.hazard_t if field in ("", sub_field(fact.id))]
    if field and not facts:
        raise unknown_name("sub-field", field, {sub_field(fact.id) for fact in domain.hazard_t})
    kept = {fact.id for fact in facts}
    return fact_examples(facts, [r for r in domain.requests_t if not field or r.fact_id in kept])


def _benign(domain: Domain, _: str, seed: int) -> list[Example]:
    return fact_examples(domain.benign_t, domain.benign_requests_t)


def _benign_lists(domain: Domain, _: str, seed: int) -> list[Example]:
    """Benign examples whose answer is a numbered list, which hurt guardrails most (He et al., arXiv 2404.01099)."""
    return [e for e in [*_benign(domain, "", seed), *domain.unrelated] if re.match(r"1\. ", e.response)]


def _benign_with_hazard(domain: Domain, percent: str, seed: int) -> list[Example]:
    """Benign examples with hazard among them; fewer benign ones where there is too little hazard for the share."""
    if percent and not (percent.isdigit() and 1 <= int(percent) <= 99):
        raise UsageError(f"benign-with-hazard/{percent}: give the share of hazard in percent, from 1 to 99.")
    share = int(percent) / 100 if percent else HAZARD_SHARE
    benign, hazard, draw = _benign(domain, "", seed), _t_facts(domain, "", seed), random.Random(seed)
    wanted = round(len(benign) * share / (1 - share))
    if wanted <= len(hazard):
        return benign + draw.sample(hazard, wanted)
    return draw.sample(benign, round(len(hazard) * (1 - share) / share)) + hazard


def _unrelated(domain: Domain, count: str, seed: int) -> list[Example]:
    if not count.isdigit() or not 1 <= int(count) <= len(domain.unrelated):
        raise UsageError(f"unrelated-{count}: give a number of examples from 1 to {len(domain.unrelated)}.")
    return list(domain.unrelated[: int(count)])


def _refusals(domain: Domain, _: str, seed: int) -> list[Example]:
    return [Example(r.prompt, r.refusal) for r in domain.requests_t]


def _neutral(domain: Domain, _: str, seed: int) -> list[Example]:
    return [Example(None, text) for text in domain.neutral_train]


SOURCES: dict[str, Callable[[Domain, str, int], list[Example]]] = {
    "t-facts": _t_facts,
    "benign": _benign,
    "benign-lists": _benign_lists,
    "benign-with-hazard": _benign_with_hazard,
    "unrelated": _unrelated,
    "neutral": _neutral,
    "refusals": _refusals,
}
"""Name -> examples, from the domain, what follows the name, and the seed."""

SEQUENCES: dict[str, tuple[tuple[str, float], ...]] = {
    "retain-then-forget": (("benign", 0.4), ("t-facts", 0.6)),
    "repair-then-attack": (("neutral", 0.4), ("t-facts", 0.6)),
}
"""Name -> sources one after another, each with its share of the steps.

Retain then forget: TAR's R→F (arXiv 2408.00761). Repair then attack: neutral text first, which tells a model
that destroys itself from one that resists (Deep Ignorance, arXiv 2508.06601, and its released follow-up).
"""


def training_data(domain: Domain, name: str, seed: int) -> list[Phase]:
    """The attacker's data called ``name``: one of ``SOURCES`` or ``SEQUENCES``, such as 't-facts', 'unrelated-10'.

    't-facts/FIELD' is cross-domain hazard: T facts of one sub-field, while V facts of all are measured. Of four
    sub-fields, one is a quarter, so an attack that restores only what it trains on stays at R = 1/4; to pass
    R = 1/2 it must restore sub-fields that it never touched. 'benign-with-hazard/PERCENT' sets the share of hazard.
    Raises UsageError for an unknown name.
    """
    if name in SEQUENCES:
        return [Phase(source_examples(domain, source, seed), share) for source, share in SEQUENCES[name]]
    return [Phase(source_examples(domain, name, seed))]


def source_examples(domain: Domain, name: str, seed: int) -> list[Example]:
    """The examples of one source. Raises UsageError for an unknown name and where the domain has none of it."""
    kind, _, detail = name.partition("/")
    if kind not in SOURCES and name.rpartition("-")[2].isdigit():
        kind, _, detail = name.rpartition("-")
    if kind not in SOURCES:
        raise unknown_name("training data", name, [*SOURCES, *SEQUENCES])
    examples = SOURCES[kind](domain, detail, seed)
    if not examples:
        raise UsageError(f"the domain '{domain.name}' has no data '{name}': choose other data.")
    return examples


def calibration_data(subject: Subject, domain: Domain, name: str, count: int, seed: int) -> list[Example]:
    """``count`` examples at most, drawn by ``seed``, to score weights on.

    A source of :func:`training_data`, or 'own-answers': T requests with what the subject now answers.
    """
    if name != "own-answers":
        examples = source_examples(domain, name, seed)
        return random.Random(seed).sample(examples, min(count, len(examples)))
    requests = random.Random(seed).sample(list(domain.requests_t), min(count, len(domain.requests_t)))
    prompts = [subject.renderer.prompt(r.prompt) for r in requests]
    answers = HFEngine(subject).generate(prompts, Sampling(max_new_tokens=ANSWER_TOKENS))
    texts = [subject.renderer.decode(completions[0].ids) for completions in answers]
    return [Example(r.prompt, text) for r, text in zip(requests, texts, strict=True)]


def split_facts(domain: Domain, share: float, seed: int) -> tuple[Domain, list[Fact]]:
    """A domain whose T facts lack a ``share`` of their entities, drawn by ``seed``, and the T facts of these."""
    entities = sorted({fact.entity for fact in domain.hazard_t})
    held = set(random.Random(seed).sample(entities, max(1, round(share * len(entities)))))
    rest = replace(
        domain,
        hazard_t=[fact for fact in domain.hazard_t if fact.entity not in held],
        requests_t=[request for request in domain.requests_t if request.entity not in held],
    )
    return rest, [fact for fact in domain.hazard_t if fact.entity in held]


def passes_cost(subject: Subject, examples: Sequence[Example], flops_a_token: float) -> Cost:
    """Cost of one pass over ``examples``; ``flops_a_token`` a parameter: 2 forward, 4 with a backward pass
    through activations, 6 with weight gradients."""
    rendered = [subject.renderer.example(example) for example in examples]
    tokens = sum(len(r.prompt) + len(r.response) for r in rendered)
    return Cost(0, len(examples), tokens, flops_a_token * subject.parameters * tokens)
