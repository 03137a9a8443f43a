"""Plots for papers, drawn from stored studies: R of every attack, cost curves, behaviour against knowledge.

Colours are told apart by colour-blind readers, and every series has its own marker, so that a grey print loses nothing.
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from immunobench.attacks.base import checkpoint_steps
from immunobench.diagnostics.plots import COLOURS, style
from immunobench.errors import ImmunobenchError, disk_errors
from immunobench.files import write_atomically
from immunobench.metrics.estimate import Estimate
from immunobench.protocol.verdict import PHI
from immunobench.report.reading import CurvePoint, StudyReport, SubjectReport
from immunobench.report.sentences import worst_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OUTCOME_LOOKS = {
    "broken": (COLOURS[1], "X"),
    "collapsed": (COLOURS[3], "v"),
    "resisted": (COLOURS[0], "o"),
    "inconclusive": (COLOURS[5], "D"),
    "infeasible": (COLOURS[7], "_"),
    "invalid": (COLOURS[7], "x"),
}
"""Colour and marker of each outcome."""
PANEL = 3.4
"""Width of a panel in inches: a column of a two-column paper."""
Titled = Sequence[tuple[str, SubjectReport]]


def save_figures(studies: Sequence[StudyReport], folder: Path, kind: str) -> list[Path]:
    """Write each plot as ``NAME.KIND``, 'png' or 'pdf', to ``folder``; returns the files.

    Raises ImmunobenchError where matplotlib is not installed, or the disk refuses.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ImmunobenchError("plots need matplotlib: pip install 'immunobench[report]'.") from error
    titled = [
        (f"{study.name}: {subject.title}" if len(studies) > 1 else subject.title, subject)
        for study in studies
        for subject in study.subjects
    ]
    files = []
    # Fonts go into the file as outlines that journals take; no date, so that the same study gives the same bytes.
    with matplotlib.rc_context({"pdf.fonttype": 42, "font.size": 8, "axes.titlesize": 9, "legend.frameon": False}):
        for name, (draw, height) in PLOTS.items():
            if name == "search" and not (titled := [each for each in titled if each[1].search]):
                continue
            file = folder / f"{name}.{kind}"
            metadata = {"CreationDate": None} if kind == "pdf" else {}
            sink = io.BytesIO()
            panels(titled, draw, height(titled)).savefig(sink, format=kind, dpi=200, metadata=metadata)
            with disk_errors(folder):
                write_atomically(file, sink.getvalue())
            files.append(file)
    return files


def panels(titled: Titled, draw: "Callable[[Axes, SubjectReport], None]", height: float) -> "Figure":
    """One panel a subject, two in a row, with one legend below."""
    from matplotlib.figure import Figure

    columns = min(2, len(titled))
    rows = math.ceil(len(titled) / columns)
    figure = Figure(figsize=(PANEL * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for (title, subject), place in zip(titled, axes, strict=False):
        draw(place, subject)
        place.set_title(title, loc="left")
        place.spines[["top", "right"]].set_visible(False)
    for place in axes[len(titled) :]:
        place.set_visible(False)
    shown: dict[str, Any] = {}
    for place in axes:
        handles, labels = place.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    if shown:
        figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=3, fontsize=7)
    return figure


def draw_recovery(axes: "Axes", subject: SubjectReport) -> None:
    """R of every adversary at its worst point with its interval, marked by outcome."""
    scores = worst_first(subject)
    for at, score in enumerate(scores):
        colour, marker = OUTCOME_LOOKS[score.outcome.name]
        if score.recovery is not None and score.recovery.defined:
            value, bars = values_of([score.recovery])
            axes.errorbar(
                value,
                [at],
                xerr=bars,
                color=colour,
                marker=marker,
                linestyle="none",
                markersize=5,
                label=score.outcome.name,
            )
    for x, line in ((0, "-"), (1, "-"), (PHI, "--")):
        axes.axvline(x, color="black", linewidth=0.6, linestyle=line, zorder=0)
    axes.set(
        yticks=range(len(scores)),
        yticklabels=[score.adversary for score in scores],
        xlabel="recovery R",
        xlim=(-0.3, 1.3),
    )
    axes.set_ylim(len(scores) - 0.4, -0.6)


def draw_curves(axes: "Axes", subject: SubjectReport) -> None:
    """R against optimizer steps, each training attack in its worst variant."""
    worst = {score.adversary: score.worst for score in subject.result.scores}
    index = 0
    for name, points in subject.curves.items():
        at = worst[name]
        own = [p for p in points if at is not None and p.point.variant == at.variant]
        if len({p.point.steps for p in own}) > 1:
            _curve(axes, name, own, index)
            index += 1
    for y, line in ((0, "-"), (1, "-"), (PHI, "--")):
        axes.axhline(y, color="black", linewidth=0.6, linestyle=line, zorder=0)
    most = max((p.point.steps for points in subject.curves.values() for p in points), default=1)
    axes.set_xscale("symlog", linthresh=1)
    ticks = sorted(checkpoint_steps(most))
    axes.set(xticks=ticks, xticklabels=ticks, xlim=(-0.3, 1.3 * most))
    axes.set(xlabel="optimizer steps", ylabel="recovery R", ylim=(-0.3, 1.3))


def draw_behaviour(axes: "Axes", subject: SubjectReport) -> None:
    """Share of requests answered right against knowledge: references, before, and after every attack."""
    for index, (name, found) in enumerate(subject.references.items()):
        if "right" in found:
            _spot(axes, found["knowledge"], found["right"], "black", "<>"[index], f"{name} reference", hollow=True)
    before = subject.result.before
    if "right" in before:
        _spot(axes, before["knowledge"], before["right"], "black", "*", "subject, no attack", size=9)
    outcomes = {score.adversary: score.outcome.name for score in subject.result.scores}
    for name, (knowledge, behaviour) in subject.ends.items():
        if name != "none":
            colour, marker = OUTCOME_LOOKS[outcomes[name]]
            _spot(axes, knowledge, behaviour["right"], colour, marker, f"after an attack: {outcomes[name]}")
    axes.set(xlabel="knowledge K", ylabel="answered right", xlim=(-0.35, 1.25), ylim=(-0.12, 1.12))


def draw_search(axes: "Axes", subject: SubjectReport) -> None:
    """K that the best of k trials of the adaptive search reaches on average."""
    curve = subject.search["expected_maximum"]
    axes.plot(range(1, len(curve) + 1), curve, color=COLOURS[0])
    axes.set(xlabel="trials of the adaptive search", ylabel="expected maximum of K (select)", ylim=(-0.35, 1.05))


def values_of(estimates: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Values, and the lengths of their bars below and above, (2, n)."""
    value, low, high = (
        np.array([getattr(e, part) for e in estimates], dtype=float) for part in ("value", "low", "high")
    )
    lengths = np.stack([value - low, high - value])
    return value, np.where(np.isfinite(lengths), lengths, 0.0).clip(min=0)


PLOTS: "dict[str, tuple[Callable[[Axes, SubjectReport], None], Callable[[Titled], float]]]" = {
    "recovery": (draw_recovery, lambda titled: 1.0 + 0.16 * max(len(s.result.scores) for _, s in titled)),
    "curves": (draw_curves, lambda titled: 2.6),
    "behaviour": (draw_behaviour, lambda titled: 2.8),
    "search": (draw_search, lambda titled: 2.4),
}
"""What draws each plot, and the height of a panel in inches. The last is of subjects that were searched alone."""


def _curve(axes: "Axes", name: str, points: Sequence[CurvePoint], index: int) -> None:
    value, bars = values_of([p.recovery for p in points])
    axes.errorbar(
        [p.point.steps for p in points], value, yerr=bars, label=name, elinewidth=0.6, capsize=1.5, **style(index)
    )


def _spot(
    axes: "Axes", x: Estimate, y: Estimate, colour: str, marker: str, label: str, hollow: bool = False, size: float = 5
) -> None:
    (value_x, bars_x), (value_y, bars_y) = values_of([x]), values_of([y])
    look: dict[str, Any] = {
        "color": colour,
        "marker": marker,
        "markersize": size,
        "linestyle": "none",
        "elinewidth": 0.6,
    }
    axes.errorbar(
        value_x, value_y, xerr=bars_x, yerr=bars_y, label=label, markerfacecolor="white" if hollow else colour, **look
    )
