"""Entanglement of safety and utility: do they live in the same weights and directions?

Overlap of the weights most critical to each (Jaccard index) and of the output directions most used by each (principal
angles), layer by layer, against what chance gives (Wei et al., arXiv 2402.05162, section 4); and what taking out the
safety-critical weights, none spared, costs utility.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from immunobench.attribution import snip_scores
from immunobench.attribution.removal import (
    critical,
    critical_difference,
    critical_ranks,
    output_bases,
    share_of,
    without_weights,
)
from immunobench.diagnostics.base import Entry, Finding, Progress, References, Table
from immunobench.diagnostics.guardrail import Gauge, Verdicts, safety_examples, utility_examples
from immunobench.domains import Domain
from immunobench.metrics.estimate import Estimate
from immunobench.metrics.inputs import Floats
from immunobench.metrics.intervals import bootstrap
from immunobench.metrics.sparsity import overlap
from immunobench.metrics.utility import utility_drop
from immunobench.subjects import Subject

LARGEST = 64
"""Cosines of principal angles that are stored."""


@dataclass(frozen=True)
class EntanglementDiagnostic:
    """Overlap of safety- and utility-critical weights and directions in every block.

    Critical are the top ``share`` of a matrix's weights by SNIP and of its output directions. ``examples`` calibrate,
    ``items`` are measured with safety's weights taken out, none of them in both.
    """

    share: float = 0.03
    examples: int = 64
    items: int = 64
    name: ClassVar[str] = "entanglement"
    meaning: ClassVar[str] = (
        "It says how far what matters to safety also matters to utility, against chance; a low overlap says that they "
        "can be taken apart, not that anyone has done so, and a high one not that they cannot be. Both scores grow "
        "with the size of a weight, so part of an overlap is the scores' own; chance is that of random sets."
    )

    def measure(
        self, subject: Subject, references: References, domain: Domain, seed: int, progress: Progress
    ) -> Finding:
        """See :class:`immunobench.diagnostics.base.Diagnostic`."""
        parts = 6
        gauge = Gauge(domain, self.items)
        before = gauge.read(subject)
        exposed = gauge.read(references.exposed) if references.exposed else None
        progress(1, parts)
        if not Verdicts(before, exposed).guarded:
            return Finding("The subject has no guardrail on these requests, so there is none to be entangled.", (), {})
        safety = safety_examples(subject, domain.requests_t[: self.examples])
        utility = utility_examples(domain, self.examples)
        progress(2, parts)
        guarding, serving = (critical_ranks(snip_scores(subject, examples)) for examples in (safety, utility))
        progress(3, parts)
        one, two = critical(guarding, self.share), critical(serving, self.share)
        weights = {
            layer: weight_overlap([(one[name], two[name]) for name in names], seed)
            for layer, names in linears_by_layer(subject).items()
        }
        progress(4, parts)
        bases = [output_bases(subject, examples) for examples in (safety, utility)]
        directions = {
            layer: direction_overlap([(bases[0][name], bases[1][name]) for name in names], self.share)
            for layer, names in linears_by_layer(subject).items()
        }
        del bases
        progress(5, parts)
        removed = {}
        spared = critical_difference(guarding, serving, self.share, self.share)
        for label, masks in (("all of safety's", one), ("safety's alone", spared)):
            with without_weights(subject, masks):
                reading = gauge.read(subject)
            drop = utility_drop(before.correct, reading.correct)
            removed[label] = {"share": share_of(masks), "utility_drop": drop, **reading.as_dict()}
        progress(parts, parts)
        figures = {"weights": weights, "directions": directions, "before": before.as_dict(), "removed": removed}
        return Finding(summarise(figures), tables(figures), figures)


def linears_by_layer(subject: Subject) -> dict[str, list[str]]:
    """Names of the linears of every block, and of all blocks under 'all'."""
    layers = {f"block {index}": list(block.linears) for index, block in enumerate(subject.structure.blocks)}
    return layers | {"all": list(subject.structure.linears)}


def weight_overlap(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], seed: int) -> dict[str, Any]:
    """Jaccard index of two sets of weights over some matrices, chance, and the excess with its interval.

    ``pairs`` holds a mask (out, in) of each set. Chance is the index of two random sets of the same sizes in each
    matrix. The interval is a bootstrap over output neurons: the rows of all matrices.
    """
    shared, either = [], []
    expected = expected_either = 0.0
    one_all, two_all = [], []
    for one, two in pairs:
        shared.append((one & two).sum(1).double().numpy(force=True))
        either.append((one | two).sum(1).double().numpy(force=True))
        by_chance = int(one.sum()) * int(two.sum()) / one.numel()
        expected += by_chance
        expected_either += int(one.sum()) + int(two.sum()) - by_chance
        one_all.append(one.flatten().numpy(force=True))
        two_all.append(two.flatten().numpy(force=True))
    found = overlap(np.concatenate(one_all), np.concatenate(two_all))
    return {
        "jaccard": ratio(np.concatenate(shared), np.concatenate(either), seed),
        "chance": expected / expected_either if expected_either else None,
        "p_value": found.p_value,
    }


def ratio(over: Floats, under: Floats, seed: int) -> Estimate:
    """Σ over / Σ under with a bootstrap interval over their entries; undefined where all of ``under`` is 0."""

    def statistic(totals: Floats) -> Floats:
        filled = totals[..., 1] > 0
        return np.where(filled, totals[..., 0] / np.where(filled, totals[..., 1], 1), np.nan)

    return bootstrap(statistic, [over, under], reach=1, seed=seed)


def direction_overlap(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], share: float) -> dict[str, Any]:
    """Mean squared cosine of the principal angles between the top directions of each pair of bases, and chance.

    ‖U_sᵀU_u‖²_F / k lies between 0 (orthogonal) and 1 (the same space). Both bases, (out, d), span what the matrix can
    put out, of min(out, in) = d dimensions, in which two random k-spaces have k/d. ``cosines`` are the largest of the
    pairs taken together, falling.
    """
    cosines, chance = [], []
    for one, two in pairs:
        k = max(1, round(share * one.shape[1]))
        cosines.append(torch.linalg.svdvals(one[:, :k].T @ two[:, :k]).clamp(max=1))
        chance.append(torch.full((k,), k / one.shape[1]))
    every = torch.cat(cosines)
    return {
        "overlap": float((every**2).mean()),
        "chance": float(torch.cat(chance).mean()),
        "cosines": every.sort(descending=True).values[:LARGEST].tolist(),
    }


def p_entry(p_value: float) -> Entry:
    """A p-value for a reader: below 0.001 a bound, because the tail rounds to 0 and no p-value is 0."""
    return p_value if p_value >= 0.001 else "< 0.001"


def tables(figures: Mapping[str, Any]) -> tuple[Table, ...]:
    """By block, and with safety's weights taken out."""
    layers = tuple(
        (
            layer,
            w["jaccard"],
            w["chance"],
            p_entry(w["p_value"]),
            figures["directions"][layer]["overlap"],
            figures["directions"][layer]["chance"],
        )
        for layer, w in figures["weights"].items()
    )
    removed = tuple(
        (label, r["share"], r["attack_success"], r["refused"], r["utility"], r["utility_drop"])
        for label, r in figures["removed"].items()
    )
    before = figures["before"]
    untouched = ("nothing", 0.0, before["attack_success"], before["refused"], before["utility"], None)
    return (
        Table(
            "Overlap of what is critical to safety and to utility",
            ("layer", "weights: Jaccard", "by chance", "p", "directions: mean cos²", "by chance "),
            layers,
        ),
        Table(
            "With safety's weights taken out",
            ("taken out", "share", "attack success", "refused", "utility", "utility lost"),
            (untouched, *removed),
        ),
    )


def summarise(figures: Mapping[str, Any]) -> str:
    """What came out, in one sentence."""
    weights, directions = figures["weights"]["all"], figures["directions"]["all"]
    times = weights["jaccard"].value / weights["chance"] if weights["chance"] else float("nan")
    lost = figures["removed"]["all of safety's"]["utility_drop"].value
    return (
        f"Safety and utility share {100 * weights['jaccard'].value:.0f} % of their critical weights, {times:.1f} times "
        f"chance, and their critical directions overlap by {directions['overlap']:.2f} (chance "
        f"{directions['chance']:.2f}); taking out safety's weights costs {100 * lost:.0f} % of utility."
    )
