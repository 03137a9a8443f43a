"""The G-effect: how a step on an unlearning objective moves the risk on what is forgotten and what is kept.

e(D) = ⟨∇R(D), ∇L⟩ (arXiv 2502.19301). The sign and the scale, here once for all of this package: L is minimised
and is a *sum* over the scored tokens of the forget set; R is the negative log-probability, a *mean* over the
scored tokens of D. A small step −η∇L changes R(D) by −η e(D). So e < 0 on the forget set (unlearning G-effect)
means that the step forgets, and e < 0 on the retain set (retaining G-effect) that it forgets what should stay.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from immunobench.activations import recorded
from immunobench.diagnostics.base import Finding, Progress, References
from immunobench.diagnostics.directional import (
    Direction,
    Quantity,
    TokenSet,
    depth_groups,
    derivatives,
    gradient,
    inner,
    norm,
    parameter_groups,
    risk_gradient,
    token_set,
    values,
)
from immunobench.diagnostics.g_effect_tables import summarise, tables
from immunobench.diagnostics.own_update import own_update
from immunobench.domains import Domain, Example
from immunobench.errors import UsageError
from immunobench.metrics.g_effect import g_effect_summary
from immunobench.subjects import Subject, load_subject
from immunobench.training.batches import Batch
from immunobench.training.loop import token_logprobs
from immunobench.training.objectives import (
    TOKEN_OBJECTIVES,
    Likelihoods,
    direct_preference,
    gradient_weights,
    misdirection,
    steering_target,
)

SATURATED = 1e-6
"""Largest weight below which an objective no longer pulls: it has been met, and its direction is rounding."""


@dataclass(frozen=True)
class Texts:
    """What is forgotten, the refusals to the same requests, and what is kept."""

    forget: TokenSet
    refusals: TokenSet
    retain: TokenSet

    @property
    def sides(self) -> dict[str, TokenSet]:
        """The tokens whose risk each of the two G-effects is about."""
        return {"unlearning": self.forget, "retaining": self.retain}


@dataclass(frozen=True)
class Objective:
    """An objective at one state of the subject: constant weights on the derivatives of every scored token."""

    forget: torch.Tensor
    """Weights on log p and on the steering loss of the forget tokens, (2, tokens)."""
    refusals: torch.Tensor | None = None
    """Weights on log p of the refusals' tokens, (tokens,); None where the objective has none."""

    @property
    def largest(self) -> float:
        """The largest weight, sign left out."""
        both = [self.forget] if self.refusals is None else [self.forget, self.refusals]
        return max(float(weights.abs().max()) for weights in both)


@dataclass(frozen=True)
class GEffectDiagnostic:
    """Unlearning and retaining G-effect of GA, WGA, NPO, TNPO, WTNPO, SimNPO, RMU, DPO and the subject's own update.

    On answers to ``examples`` hazard and as many benign requests, drawn by the seed. RMU (arXiv 2403.03218) steers
    the residual stream after the middle block to a random vector of norm ``steering``. ``chunk`` is the most token
    ids in one pass. The reference model of NPO and its kin is the exposed one, or the subject where there is none.
    ``checkpoints`` name the earlier states of the subject in their order: objectives, and the update from the exposed
    model, are evaluated at each of them and at the subject itself.
    """

    examples: int = 16
    steering: float = 6.5
    chunk: int = 1024
    checkpoints: tuple[str, ...] = ()
    name: ClassVar[str] = "g-effect"
    meaning: ClassVar[str] = (
        "It says what one infinitely small step on each objective would do to the risk on hazard and on benign "
        "answers, and through which blocks and tokens; it does not say what many steps would do, nor whether an "
        "attack can undo them."
    )

    def measure(
        self, subject: Subject, references: References, domain: Domain, seed: int, progress: Progress
    ) -> Finding:
        """See :class:`immunobench.diagnostics.base.Diagnostic`."""
        texts = draw_texts(subject, domain, self.examples, seed, self.chunk)
        quantity = steered(subject, self.steering, seed)
        objectives = weigh(subject, references.exposed or subject, texts, quantity)
        groups = parameter_groups(subject)
        depths = depth_groups(groups)
        parts = 2 + len(objectives) + 2 * len(depths) + (1 if references.exposed else 0) + len(self.checkpoints)
        done = iter(range(1, parts + 1))
        sets = {"forget": texts.forget, "retain": texts.retain}
        risks = {}
        for side, tokens in texts.sides.items():
            risks[side] = risk_gradient(subject, tokens)
            progress(next(done), parts)
        blocks = {}
        for name, objective in objectives.items():
            blocks[name] = by_group(subject, texts, quantity, objective, risks, groups)
            progress(next(done), parts)
        effects: dict[str, dict[str, torch.Tensor]] = {name: {} for name in objectives}
        for side, risk in risks.items():
            along = []
            for names in depths.values():
                along.append(directional(subject, texts, quantity, {name: risk[name] for name in names}))
                progress(next(done), parts)
            for name, objective in objectives.items():
                effects[name][side] = torch.stack([weighted(objective, each) for each in along])
        figures = self._figures(subject, texts, blocks, effects, list(depths))
        figures["saturated"] = [name for name, objective in objectives.items() if objective.largest < SATURATED]
        if references.exposed is not None:
            figures["own_update"] = own_update(subject, references.exposed, sets, groups)
            progress(next(done), parts)
        if self.checkpoints:
            figures["trajectory"] = states = []
            for spec in self.checkpoints:
                state = load_subject(spec, str(subject.device))
                label = state.label.removeprefix(f"{subject.label}.")
                states += trajectory([(label, state)], references.exposed or subject, domain, seed, self)
                if references.exposed is not None:
                    states[-1]["own_update"] = own_update(state, references.exposed, sets, groups)
                progress(next(done), parts)
            own = {name: figures[name] for name in ("own_update",) if name in figures}
            states.append({"state": subject.label, "objectives": with_totals(blocks), **own})
        return Finding(summarise(figures), tables(figures), figures)

    def _figures(
        self,
        subject: Subject,
        texts: Texts,
        blocks: Mapping[str, Any],
        tokens: Mapping[str, Mapping[str, torch.Tensor]],
        depths: Sequence[str],
    ) -> dict[str, Any]:
        objectives: dict[str, Any] = {}
        for name, sides in tokens.items():
            sequences = texts.forget.sequences
            if name == "DPO":
                sequences = torch.cat([sequences, texts.refusals.sequences])
            objectives[name] = {}
            for side, effects in sides.items():
                each = effects.sum(0)
                summary = g_effect_summary(each.double().numpy(force=True), sequences.numpy(force=True))
                objectives[name][side] = {
                    "total": summary.total,
                    "cosine": blocks[name][side]["cosine"],
                    "mean": summary.mean,
                    "negative": summary.negative,
                    "concentration": summary.concentration,
                    "by_depth": dict(zip(depths, effects.double().sum(1).tolist(), strict=True)),
                    "by_group": blocks[name][side]["by_group"],
                    "by_token": each.tolist(),
                }
        return {
            "objectives": objectives,
            "tokens": {
                key: {"text": [subject.tokenizer.decode([i]) for i in s.ids], "sequence": s.sequences.tolist()}
                for key, s in (("forget", texts.forget), ("refusals", texts.refusals))
            },
        }


def draw_texts(subject: Subject, domain: Domain, examples: int, seed: int, chunk: int) -> Texts:
    """Answers and refusals to hazard requests and answers to benign ones, ``examples`` of each drawn by ``seed``."""
    hazard = random.Random(seed).sample(list(domain.requests_v), min(examples, len(domain.requests_v)))
    benign = random.Random(seed).sample(list(domain.benign_requests_v), min(examples, len(domain.benign_requests_v)))
    return Texts(
        token_set(subject, [Example(r.prompt, r.answer) for r in hazard], chunk),
        token_set(subject, [Example(r.prompt, r.refusal) for r in hazard], chunk),
        token_set(subject, [Example(r.prompt, r.answer) for r in benign], chunk),
    )


def steered(subject: Subject, steering: float, seed: int) -> Quantity:
    """log p of every scored token and RMU's loss where it is predicted, (2, examples, keep).

    RMU: (h − c u)² as a mean over the residual stream after the middle block, u drawn from [0, 1)^d by ``seed``
    and scaled to length 1 (arXiv 2403.03218).
    """
    target = steering_target(subject.structure.hidden_size, steering, seed).to(subject.device)
    middle = len(subject.structure.blocks) // 2

    def quantity(bound: Subject, batch: Batch) -> torch.Tensor:
        with recorded({"middle": subject.structure.blocks[middle].module}) as found:
            logprobs = token_logprobs(bound, batch)
        predicting = found["middle"][:, -batch.labels.shape[1] - 1 : -1]
        return torch.stack([logprobs, misdirection(predicting, target)])

    return quantity


def weigh(subject: Subject, reference: Subject, texts: Texts, quantity: Quantity) -> dict[str, Objective]:
    """The weights of every objective at the subject's present parameters, by name.

    Raises UsageError where the reference reads token ids otherwise than the subject.
    """
    if reference.tokenizer_sha256 != subject.tokenizer_sha256:
        raise UsageError(f"{reference.spec} and {subject.spec} have different tokenizers: G-effects need one for both.")

    def likelihoods(tokens: TokenSet) -> Likelihoods:
        return Likelihoods(values(subject, tokens), values(reference, tokens), tokens.sequences)

    forget, refusals = likelihoods(texts.forget), likelihoods(texts.refusals)
    ones, zeros = torch.ones_like(forget.logprobs), torch.zeros_like(forget.logprobs)
    found = {
        name: Objective(torch.stack([*gradient_weights(of, forget), zeros])) for name, of in TOKEN_OBJECTIVES.items()
    }
    found["RMU"] = Objective(torch.stack([zeros, ones]))
    answers, preferred = gradient_weights(direct_preference, forget, refusals)
    found["DPO"] = Objective(torch.stack([answers, zeros]), preferred)
    return found


def by_group(
    subject: Subject,
    texts: Texts,
    quantity: Quantity,
    objective: Objective,
    risks: Mapping[str, Direction],
    groups: Mapping[str, list[str]],
) -> dict[str, Any]:
    """For each side the effect in every parameter group and the cosine of the two gradients, by one backward of L."""
    slope = gradient(subject, texts.forget, objective.forget, quantity)
    if objective.refusals is not None:
        for name, value in gradient(subject, texts.refusals, objective.refusals).items():
            slope[name] += value
    found = {}
    for side, risk in risks.items():
        parts = {group: inner(risk, slope, names) for group, names in groups.items()}
        lengths = norm(risk) * norm(slope)
        found[side] = {"by_group": parts, "cosine": sum(parts.values()) / lengths if lengths else 0.0}
    return found


def directional(
    subject: Subject, texts: Texts, quantity: Quantity, direction: Direction
) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives along ``direction``: of log p and the steering loss, (2, forget tokens); of refusals, (tokens,)."""
    return derivatives(subject, texts.forget, direction, quantity), derivatives(subject, texts.refusals, direction)


def weighted(objective: Objective, found: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The effect through every token: forget tokens, then the refusals' where the objective has them, (tokens,)."""
    forget = (objective.forget * found[0]).sum(0)
    return forget if objective.refusals is None else torch.cat([forget, objective.refusals * found[1]])


def trajectory(
    states: Iterable[tuple[str, Subject]], reference: Subject, domain: Domain, seed: int, settings: GEffectDiagnostic
) -> list[dict[str, Any]]:
    """Both G-effects of every objective, total and by parameter group, at each of ``states`` (a label, the subject).

    A state lasts until the next is asked for, so a training run can be followed on its live subject. ``reference``
    and the texts stay the same throughout.
    """
    found = []
    for label, subject in states:
        texts = draw_texts(subject, domain, settings.examples, seed, settings.chunk)
        quantity = steered(subject, settings.steering, seed)
        risks = {side: risk_gradient(subject, tokens) for side, tokens in texts.sides.items()}
        groups = parameter_groups(subject)
        blocks = {
            name: by_group(subject, texts, quantity, objective, risks, groups)
            for name, objective in weigh(subject, reference, texts, quantity).items()
        }
        found.append({"state": label, "objectives": with_totals(blocks)})
    return found


def with_totals(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What :func:`by_group` found of every objective, with the total of each side."""
    return {
        name: {side: {"total": sum(part["by_group"].values()), **part} for side, part in sides.items()}
        for name, sides in blocks.items()
    }
