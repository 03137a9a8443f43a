"""The main table as rows of plain values, which CSV, Markdown, LaTeX and the page all print."""

from collections.abc import Mapping, Sequence
from typing import Any

from immunobench.metrics.estimate import Estimate
from immunobench.report.reading import StudyReport, SubjectReport
from immunobench.report.sentences import asides, cost, interval, number, where
from immunobench.study import settings
from immunobench.study.score import COSTS, Score
from immunobench.study.settings import Severity

MEASURES = ("recovery", "knowledge", "refused", "right", "utility_drop")
"""Columns that hold an estimate, in the order they are shown."""
TITLES = {
    "recovery": "R",
    "knowledge": "K",
    "refused": "refuses",
    "right": "answers right",
    "utility_drop": "utility lost",
}


def estimates(score: Score) -> dict[str, Estimate | None]:
    """The measures of one adversary, None where nothing was measured."""
    behaviour = score.behaviour
    return {
        "recovery": score.recovery,
        "knowledge": score.knowledge,
        "refused": behaviour.get("refused"),
        "right": behaviour.get("right"),
        "utility_drop": score.utility_drop,
    }


def long_rows(studies: Sequence[StudyReport]) -> list[dict[str, Any]]:
    """One row a study, subject and adversary, every number unrounded; None where there is none."""
    return [
        _long_row(study, subject, score)
        for study in studies
        for subject in study.subjects
        for score in subject.result.scores
    ]


def _long_row(study: StudyReport, subject: SubjectReport, score: Score) -> dict[str, Any]:
    row: dict[str, Any] = {
        "study": study.name,
        "subject": subject.title,
        "domain": subject.domain["name"],
        "adversary": score.adversary,
        "family": score.family,
        "seeds": study.request.seeds,
        "engine": score.engine,
        "outcome": score.outcome.name,
        "reason": score.outcome.reason,
        "variant": score.worst.variant if score.worst else None,
        "steps": score.worst.steps if score.worst else None,
    }
    for name, estimate in estimates(score).items():
        fields = {} if estimate is None else estimate.as_dict()
        row |= {
            name if part == "value" else f"{name}_{part}": fields.get(part) for part in ("value", "low", "high", "n")
        }
    row["beside"] = asides(score) or None
    for unit in COSTS:
        spent = score.cost_to_break.get(unit)
        row[f"cost_to_break_{unit}"] = None if spent is None else spent.value
        row[f"cost_to_break_{unit}_censored"] = None if spent is None else spent.censored
    return row


def main_columns(subject: SubjectReport) -> list[str]:
    """Headers of :func:`main_rows`."""
    engine = ["engine"] * subject.result.mixed
    return ["adversary", "family", *(TITLES[name] for name in MEASURES), "t* (steps)", "worst at", *engine, "outcome"]


def main_rows(subject: SubjectReport) -> list[list[str]]:
    """One row an adversary for a reader: values with their intervals, to two digits."""
    return [
        [
            score.adversary,
            score.family,
            *(f"{number(e)} {interval(e)}".strip() for e in estimates(score).values()),
            cost(score.cost_to_break.get("steps")),
            where(score),
            *[score.engine] * subject.result.mixed,
            score.outcome.name,
        ]
        for score in subject.result.scores
    ]


OVERVIEW = ("study", "subject", "verdict", "immunity", "K before", "refuses", "answers right", "utility", "adversaries")


def overview_rows(studies: Sequence[StudyReport]) -> list[list[str]]:
    """One row a subject, to compare subjects and studies."""
    rows = []
    for study in studies:
        for subject in study.subjects:
            result, before = subject.result, subject.result.before
            found = (result.immunity.estimate, *(before.get(k) for k in ("knowledge", "refused", "right", "utility")))
            shown = [f"{number(e)} {interval(e)}".strip() for e in found]
            rows.append([study.name, subject.title, result.verdict.name, *shown, str(len(result.scores))])
    return rows


def recovery_matrix(studies: Sequence[StudyReport]) -> tuple[list[str], list[tuple[str, list[Score | None]]]]:
    """Subjects across and adversaries down: (column titles, [(adversary, a score or None a subject)])."""
    columns = [(study, subject) for study in studies for subject in study.subjects]
    scores: list[Mapping[str, Score]] = [{s.adversary: s for s in subject.result.scores} for _, subject in columns]
    names = dict.fromkeys(name for each in scores for name in each)
    titles = [f"{study.name}: {subject.title}" if len(studies) > 1 else subject.title for study, subject in columns]
    return titles, [(name, [each.get(name) for each in scores]) for name in names]


def differences(studies: Sequence[StudyReport]) -> list[str]:
    """What differs between the first study and each other and hampers comparing their figures; the gravest first."""
    found: dict[str, Severity] = {}
    for other in studies[1:]:
        first = studies[0]
        for each in settings.differences(_facets(first), _facets(other)):
            found[f"{each.what}: {each.first} in {first.name}, {each.second} in {other.name}"] = each.severity
        for one, two in ((first, other), (other, first)):
            if alone := [a for a in one.record["adversaries"] if a not in two.record["adversaries"]]:
                found[f"adversaries of {one.name} that {two.name} did not run: {', '.join(alone)}"] = "serious"
    return [f"{line} ({severity})" for line, severity in sorted(found.items(), key=lambda each: _rank(each[1]))]


def _facets(study: StudyReport) -> settings.Facets:
    named = {f"{s.trial.exposed} and {s.trial.never_exposed or 'the unattacked subject'}" for s in study.subjects}
    cells = [record.cell for record in study.cells]
    return {**settings.facets(cells, study.request.tier), ("serious", "references"): ", ".join(sorted(named))}


def _rank(severity: Severity) -> int:
    return settings.SEVERITIES.index(severity)
