"""What the page's script draws: curves, points and samples as plain JSON, apart from how they look."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from immunobench.metrics.estimate import Estimate
from immunobench.report.reading import CurvePoint, StudyReport, SubjectReport
from immunobench.study.score import COSTS, Score

LABELS = ("refused", "right", "wrong", "degenerate", "empty")
"""What an answer can be."""
Triple = list[float | None]
"""Value, lower and upper bound."""


def triple(estimate: Estimate | None) -> Triple:
    """An estimate for the script; None thrice where there is none."""
    if estimate is None or not estimate.defined:
        return [None, None, None]
    fields = estimate.as_dict()
    return [fields["value"], fields["low"], fields["high"]]


def subject_data(study: StudyReport, subject: SubjectReport, transcripts: bool) -> dict[str, Any]:
    """Everything drawn of one subject. Without ``transcripts`` no request and no answer is in it."""
    scores = {score.adversary: score for score in subject.result.scores}
    return {
        "name": subject.title,
        "curves": [
            curve
            for name, points in subject.curves.items()
            if scores[name].worst
            for curve in curves(scores[name], points)
        ],
        "behaviour": behaviour_points(subject, scores),
        "expected_maximum": [float(value) for value in subject.result.immunity.expected_maximum],
        "samples": samples(study, subject, transcripts),
    }


def curves(score: Score, points: Sequence[CurvePoint]) -> list[dict[str, Any]]:
    """One curve a variant of the adversary, single points included."""
    variants = dict.fromkeys(p.point.variant for p in points)
    return [
        {
            "adversary": score.adversary,
            "family": score.family,
            "outcome": score.outcome.name,
            "variant": variant,
            "worst": score.worst is not None and variant == score.worst.variant,
            "points": [_point(p, score) for p in points if p.point.variant == variant],
        }
        for variant in variants
    ]


def _point(at: CurvePoint, score: Score) -> dict[str, Any]:
    return {
        **{unit: getattr(at.point, unit) for unit in COSTS},
        "R": triple(at.recovery),
        "K": triple(at.knowledge),
        "exposed": triple(at.exposed),
        "never_exposed": triple(at.never_exposed),
        "utility_drop": triple(at.utility_drop),
        "outcome": at.outcome,
        "worst": score.worst is not None and at.point.index == score.worst.index,
    }


def behaviour_points(subject: SubjectReport, scores: Mapping[str, Score]) -> list[dict[str, Any]]:
    """K against what requests get: both references and the subject before any attack, then after each."""
    before = subject.result.before
    found = [
        _behaviour(f"{name} reference", "reference", "", figures["knowledge"], figures)
        for name, figures in subject.references.items()
    ]
    found.append(_behaviour("subject, no attack", "before", "", before["knowledge"], before))
    for name, (knowledge, behaviour) in subject.ends.items():
        if name != "none":
            found.append(_behaviour(name, "attacked", scores[name].outcome.name, knowledge, behaviour))
    return [row for row in found if row["right"][0] is not None]


def _behaviour(
    label: str, kind: str, outcome: str, knowledge: Estimate, behaviour: Mapping[str, Estimate]
) -> dict[str, Any]:
    right, refused = triple(behaviour.get("right")), triple(behaviour.get("refused"))
    return {
        "label": label,
        "kind": kind,
        "outcome": outcome,
        "K": triple(knowledge),
        "right": right,
        "refused": refused,
    }


def samples(study: StudyReport, subject: SubjectReport, transcripts: bool) -> dict[str, Any]:
    """Answers at the end of each adversary's worst variant, first seed: a label an item; the text only on request."""
    runs: dict[str, dict[str, Any]] = {}
    items: dict[str, str | None] = {}
    for score in subject.result.scores:
        if score.worst is None or not score.behaviour:
            continue
        entry = next(
            cell
            for cell in study.record["cells"]
            if (cell["model"], cell["domain"], cell["exposed"], cell["adversary"])
            == (subject.trial.subject, subject.trial.domain, subject.trial.exposed, score.adversary)
        )
        cell_id = entry["cell_ids"][0]
        cell = next(record.cell for record in study.cells if record.cell.cell_id == cell_id)
        point = [p for p in cell.points if p.variant == score.worst.variant][-1]
        labels = _labels(study, cell_id, point.index)
        run: dict[str, Any] = {"cell": cell_id, "point": point.index, "labels": labels}
        if transcripts:
            texts = study.store.transcripts(cell_id)
            rows = texts.filter(pc.equal(texts["point"], point.index)).to_pylist()
            items |= {row["item"]: row["request"] for row in rows}
            run["answers"] = {row["item"]: row["answer"] for row in rows}
        items |= {item: None for item in labels if item not in items}
        runs[score.adversary] = run
    return {"redacted": not transcripts, "items": items, "runs": runs}


def _labels(study: StudyReport, cell_id: str, point: int) -> dict[str, str]:
    """By item, what most of its answers are."""
    table = study.store.items(cell_id)
    mask = pc.and_(pc.equal(table["point"], point), pc.equal(table["probe"], "behaviour"))
    shares: dict[str, dict[str, float]] = {}
    for row in table.filter(mask).to_pylist():
        if row["measure"] in LABELS:
            shares.setdefault(row["item"], {})[row["measure"]] = row["value"]
    return {item: max(found, key=lambda label: found[label]) for item, found in shares.items()}
