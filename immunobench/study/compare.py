"""Two studies side by side: paired changes with intervals, and what else differs between them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from immunobench.errors import ImmunobenchError, UsageError
from immunobench.metrics.estimate import Estimate
from immunobench.metrics.intervals import mean, share
from immunobench.metrics.knowledge import CHANCE, knowledge_accuracy
from immunobench.metrics.recovery import recovery_change
from immunobench.study.conclusions import conclude_trial, trios_of
from immunobench.study.evidence import KNOWS, Cells, Key, Trio
from immunobench.study.measurements import stacked
from immunobench.study.request import Trial
from immunobench.study.reread import load_study, trials_of
from immunobench.study.score import Result, Score
from immunobench.study.settings import (
    SEVERITIES,
    Discrepancy,
    Facets,
    Severity,
    adversary_differences,
    differences,
    facets,
)

LOSS = ("knowledge", "cloze_loss")


@dataclass(frozen=True)
class Paired:
    """One figure in both studies."""

    first: Estimate
    second: Estimate
    change: Estimate
    """Second less first, paired over items."""
    alike: Estimate | None = None
    """Share of items with the same value in both; None of R and losses, which are no counts of items."""
    distance: Estimate | None = None
    """Mean over items of how far the two values are apart, where ``alike`` says nothing: of losses."""


@dataclass(frozen=True)
class AdversaryChange:
    """One adversary in both studies, each at its own worst point."""

    adversary: str
    first: str
    """Outcome in the first study."""
    second: str
    measures: Mapping[str, Paired]
    """R, K, loss of the hazard's values in nats a token, utility, and the shares of requests refused and right."""


@dataclass(frozen=True)
class SubjectChange:
    """One subject of each study."""

    first: str
    second: str
    verdicts: tuple[str, str]
    before: Mapping[str, Paired]
    """Figures of the unattacked subjects."""
    adversaries: Sequence[AdversaryChange]


@dataclass(frozen=True)
class Comparison:
    """What changed from the first study to the second."""

    subjects: Sequence[SubjectChange]
    """Empty where a breaking difference makes figures incomparable."""
    settings: Sequence[Discrepancy]
    """The gravest first."""


@dataclass(frozen=True)
class _Side:
    """One subject of one study."""

    trial: Trial
    result: Result
    trios: Mapping[str, Trio]
    tier: str

    @property
    def adversaries(self) -> dict[str, Any]:
        """The identity of each adversary that was run."""
        return {name: trio.subject[0].cell.identity["adversary"] for name, trio in self.trios.items()}

    def settings(self) -> Facets:
        """What was set for its cells and those of its references."""
        trios = list(self.trios.values())
        models = {"exposed": trios[0].exposed, "never-exposed": trios[0].never_exposed}
        if trios[0].never_exposed_key is not None:
            del models["never-exposed"]
        measured = [m for trio in trios for m in (*trio.subject, *trio.exposed, *trio.never_exposed)]
        references: dict[tuple[Severity, str], str] = {
            ("serious", f"{name} reference"): cells[0].cell.identity["subject"]["weights_sha256"][:16]
            for name, cells in models.items()
        }
        return {**facets([m.cell for m in measured], self.tier), **references}


def compare(first: Path, second: Path) -> Comparison:
    """Compare the study in ``second`` with that in ``first``, subject by subject of the same name, or their only ones.

    Raises UsageError where a folder holds no study or the two share no subject, ImmunobenchError for damaged cells.
    """
    subjects: list[SubjectChange] = []
    settings: dict[Discrepancy, None] = {}
    for one, other in _pairs(_sides(first), _sides(second)):
        found = differences(one.settings(), other.settings())
        settings |= dict.fromkeys([*found, *adversary_differences(one.adversaries, other.adversaries)])
        if not any(setting.severity == "breaking" for setting in found):
            subjects.append(_subject_change(one, other))
    return Comparison(subjects, sorted(settings, key=lambda setting: SEVERITIES.index(setting.severity)))


def _sides(folder: Path) -> dict[str, _Side]:
    study, request, record = load_study(folder)
    sides = {}
    for trial in trials_of(record):
        rows = list(study.rows.values())
        trios = {name: trio for name, (_, trio) in trios_of(trial, rows, study).items()}
        sides[trial.subject] = _Side(trial, conclude_trial(trial, rows, study), trios, request.tier)
    return sides


def _pairs(first: Mapping[str, _Side], second: Mapping[str, _Side]) -> Iterator[tuple[_Side, _Side]]:
    shared = [name for name in first if name in second]
    if not shared and not len(first) == len(second) == 1:
        raise UsageError(
            f"the studies share no subject ({', '.join(first)}; {', '.join(second)}): compare studies of one subject "
            "each, or of the same ones."
        )
    if shared:
        yield from ((first[name], second[name]) for name in shared)
    else:
        yield next(iter(first.values())), next(iter(second.values()))


def _subject_change(first: _Side, second: _Side) -> SubjectChange:
    none = first.trios["none"], second.trios["none"]
    start = next(iter(none[0].subject[0].points)), next(iter(none[1].subject[0].points))
    scores, others = ({score.adversary: score for score in side.result.scores} for side in (first, second))
    return SubjectChange(
        first.trial.subject,
        second.trial.subject,
        (first.result.verdict.name, second.result.verdict.name),
        _measures(none, start, attacked=False),
        [
            _adversary_change(scores[name], others[name], (first.trios[name], second.trios[name]))
            for name, identity in first.adversaries.items()
            if identity == second.adversaries.get(name)
        ],
    )


def _adversary_change(one: Score, other: Score, trios: tuple[Trio, Trio]) -> AdversaryChange:
    measures: Mapping[str, Paired] = {}
    if one.worst and other.worst:
        keys = (one.worst.variant, one.worst.steps), (other.worst.variant, other.worst.steps)
        measures = _measures(trios, keys, attacked=True)
    return AdversaryChange(one.adversary, one.outcome.name, other.outcome.name, measures)


def _measures(trios: tuple[Trio, Trio], keys: tuple[Key, Key], attacked: bool) -> dict[str, Paired]:
    """Figures of the report half at the key of either study; behaviour at the end of its variant."""
    found = {"R": _recovery(trios, keys)} if attacked else {}
    subjects = trios[0].subject, trios[1].subject
    if trios[0].protected == KNOWS:
        found["K"] = _paired(subjects, keys, KNOWS, knowledge_accuracy, CHANCE)
        if all(c[0].has(c[0].points[key].index, *LOSS) for c, key in zip(subjects, keys, strict=True)):
            found["loss"] = _loss(subjects, keys)
    found["utility"] = _paired(subjects, keys, ("utility", "correct"), knowledge_accuracy, CHANCE)
    ends = _end(subjects[0], keys[0]), _end(subjects[1], keys[1])
    if all(c[0].has(c[0].points[end].index, "behaviour", "refused") for c, end in zip(subjects, ends, strict=True)):
        for name in ("refused", "right"):
            found[name] = _paired(subjects, ends, ("behaviour", name), share, 0.0)
    return found


def _end(cells: Cells, key: Key) -> Key:
    """The last point of the variant of ``key``."""
    return next(other for other in reversed(cells[0].points) if other[0] == key[0])


def _recovery(trios: tuple[Trio, Trio], keys: tuple[Key, Key]) -> Paired:
    sides = []
    for trio, key in zip(trios, keys, strict=True):
        cells = (trio.subject, key), (trio.never_exposed, trio.never_exposed_key or key), (trio.exposed, key)
        sides.append([stacked(*each, *trio.protected, "report") for each in cells])
    first, second = _alike_seeds(*sides)
    clusters = _clusters(trios[0].subject, keys[0], trios[0].protected)
    one, other = (trio.evidence(key, "report").recovery for trio, key in zip(trios, keys, strict=True))
    return Paired(one, other, recovery_change(first, second, clusters=clusters))


def _paired(
    cells: tuple[Cells, Cells],
    keys: tuple[Key, Key],
    what: tuple[str, str],
    estimate: Callable[..., Estimate],
    chance: float,
) -> Paired:
    """``what``, a probe and its measure, in both studies, corrected for ``chance`` as ``estimate`` corrects it."""
    first, second, clusters = _both(cells, keys, what)
    scale = 1 - chance
    return Paired(
        estimate(first, clusters=clusters),
        estimate(second, clusters=clusters),
        mean((second - first) / scale, clusters, reach=2 / scale),
        share((first == second).astype(float), clusters),
    )


def _loss(cells: tuple[Cells, Cells], keys: tuple[Key, Key]) -> Paired:
    first, second, clusters = _both(cells, keys, LOSS)
    one, other, change, distance = (mean(v, clusters) for v in (first, second, second - first, abs(second - first)))
    return Paired(one, other, change, distance=distance)


def _both(
    cells: tuple[Cells, Cells], keys: tuple[Key, Key], what: tuple[str, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Values of the report half in both studies, (seeds, items) each, and the items' clusters."""
    values = [[stacked(c, k, *what, "report")] for c, k in zip(cells, keys, strict=True)]
    [first], [second] = _alike_seeds(*values)
    return first, second, _clusters(cells[0], keys[0], what)


def _alike_seeds(
    first: list[NDArray[np.float64]], second: list[NDArray[np.float64]]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Both sides with as many seeds: as they are, or averaged over seeds where they have unequally many.

    Raises ImmunobenchError where the items are not as many.
    """
    if first[0].shape[-1] != second[0].shape[-1]:
        raise ImmunobenchError("the studies measured different items under one name: verify them both.")
    if len({len(values) for values in (*first, *second)} - {1}) <= 1:
        return first, second
    averaged = [[values.mean(axis=0, keepdims=True) for values in side] for side in (first, second)]
    return averaged[0], averaged[1]


def _clusters(cells: Cells, key: Key, what: tuple[str, str]) -> list[str]:
    return cells[0].clusters(cells[0].points[key].index, *what, "report")
