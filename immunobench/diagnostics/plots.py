"""A plot for each diagnostic, drawn from its JSON form, so that a stored record is enough.

Colours are those of Okabe & Ito (2008), told apart by colour-blind readers; every series also has its own marker and
line or hatch, so that a grey print loses nothing.
"""

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from immunobench.errors import ImmunobenchError, unknown_name
from immunobench.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKERS = "osD^vPX*"
LINES = ("-", "--", "-.", ":")
Record = Mapping[str, Any]


def save(record: Record, folder: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Draw the JSON form of a diagnosis and write it as ``NAME.FORMAT``; returns the files.

    Raises ImmunobenchError where matplotlib is not installed or the disk refuses, UsageError for a diagnostic that
    has no plot.
    """
    figure = draw(record)
    files = [folder / f"{record['name']}.{each}" for each in formats]
    for file in files:
        # No date in the file: the same record gives the same bytes.
        metadata = {"CreationDate": None} if file.suffix == ".pdf" else {}
        sink = io.BytesIO()
        figure.savefig(sink, format=file.suffix[1:], dpi=150, metadata=metadata)
        write_file(file, sink.getvalue())
    return files


def draw(record: Record) -> "Figure":
    """The plot of a diagnosis's JSON form, with its meaning below. Raises as :func:`save` does, the disk aside."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImmunobenchError("plots need matplotlib: pip install 'immunobench[report]'.") from error
    if record["name"] not in DRAWN:
        raise unknown_name("plot", record["name"], DRAWN)
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    figure.suptitle(f"{record['name']} of {record['subject']}", fontsize=11)
    figure.supxlabel("\n".join(textwrap.wrap(record["meaning"], 130)), fontsize=8)
    if record["tables"]:
        DRAWN[record["name"]](figure, record["figures"])
    else:
        figure.text(0.5, 0.5, "\n".join(textwrap.wrap(record["summary"], 80)), ha="center", va="center")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def style(index: int) -> dict[str, Any]:
    """Colour, marker and line of series ``index``. After a round of the colours, each takes the next marker."""
    turn = index + index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[turn % len(MARKERS)],
        "linestyle": LINES[turn % len(LINES)],
        "markersize": 4,
        "linewidth": 1.2,
    }


def values_of(estimates: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Values of estimates in JSON form, and the lengths of their bars below and above, (2, n)."""
    value, low, high = (
        np.array([np.nan if e[key] is None else e[key] for e in estimates], dtype=float)
        for key in ("value", "low", "high")
    )
    return value, np.nan_to_num(np.stack([value - low, high - value])).clip(min=0)


def _g_effect(figure: "Figure", figures: Record) -> None:
    left, right, *third = figure.subplots(1, 3 if "trajectory" in figures else 2)
    if third:
        _trajectory(third[0], figures["trajectory"])
    objectives = figures["objectives"]
    at = np.arange(len(objectives))
    for index, (side, filled) in enumerate((("unlearning", True), ("retaining", False))):
        cosines = [o[side]["cosine"] for o in objectives.values()]
        face = COLOURS[index] if filled else "white"
        left.plot(cosines, at, "os"[index], color=COLOURS[index], markerfacecolor=face, label=side)
    left.axvline(0, color="black", linewidth=0.8)
    names = [f"{name} (met)" if name in figures["saturated"] else name for name in objectives]
    left.set(yticks=at, yticklabels=names, xlim=(-1.05, 1.05), title="one step on an objective")
    left.set_xlabel("cosine of ∇R and ∇L (below 0: the risk rises)")
    left.invert_yaxis()
    left.legend(frameon=False, fontsize=8)
    if "own_update" in figures:
        own = figures["own_update"]
        groups = list(own["forget"]["by_group"])
        for index, (side, label) in enumerate((("forget", "hazard answers"), ("retain", "benign answers"))):
            heights = [-value for value in own[side]["by_group"].values()]
            _bars(right, np.arange(len(groups)) + 0.4 * index - 0.2, heights, index, label)
        right.set(title="the subject's own update", ylabel="rise of the risk, nats a token")
        _layer_ticks(right, groups)
    else:
        groups = list(objectives["GA"]["unlearning"]["by_group"])
        for index, name in enumerate(("GA", "NPO", "WTNPO", "RMU")):
            parts = np.array(list(objectives[name]["retaining"]["by_group"].values()))
            right.plot(parts / max(np.abs(parts).sum(), 1e-300), label=name, **style(index))
        right.set(title="retaining G-effect by group", ylabel="share of its absolute sum")
        right.axhline(0, color="black", linewidth=0.8)
        _layer_ticks(right, groups)
    right.legend(frameon=False, fontsize=8)


def _trajectory(axes: "Axes", states: Sequence[Record]) -> None:
    """Cosines along a run: totals of different objectives have no common scale. Filled: unlearning."""
    at = np.arange(len(states))
    for index, name in enumerate(("GA", "NPO", "WTNPO", "RMU")):
        for side, face in (("unlearning", COLOURS[index]), ("retaining", "white")):
            cosines = [row["objectives"][name][side]["cosine"] for row in states]
            look = style(index) | {"markerfacecolor": face, "linestyle": "-" if side == "unlearning" else ":"}
            axes.plot(at, cosines, label=name if side == "unlearning" else None, **look)
    axes.set(ylim=(-1.05, 1.05), ylabel="cosine of ∇R and ∇L")
    axes.set_title("along the run (filled: unlearning, hollow: retaining)", fontsize=9)
    axes.set_xticks(at)
    axes.set_xticklabels([row["state"] for row in states], fontsize=7, rotation=45, ha="right")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.legend(frameon=False, fontsize=8)


def _sparsity(figure: "Figure", figures: Record) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for index, (label, method) in enumerate(figures["methods"].items()):
        points = sorted(method["points"], key=lambda point: point["share"])
        shares = [100 * point["share"] for point in points]
        look = style(index) | {"linestyle": "-"}
        left.plot(shares, [point["attack_success"]["value"] for point in points], label=label, **look)
        hollow = look | {"linestyle": ":", "markerfacecolor": "white"}
        left.plot(shares, [point["utility"]["value"] for point in points], **hollow)
    left.set(xscale="log", ylim=(-0.03, 1.03), xlabel="taken out, % of weights or ranks", ylabel="share")
    left.set_title("filled, solid: attack success; hollow, dotted: utility", fontsize=9)
    left.legend(frameon=False, fontsize=7)
    frozen = figures["freezing"]
    at = np.arange(len(frozen))
    for index, (key, label) in enumerate((("attack_success", "attack success"), ("utility", "utility"))):
        value, bars = values_of([each[key] for each in frozen.values()])
        _bars(right, at + 0.4 * index - 0.2, value, index, label, bars)
    right.set(xticks=at, ylim=(0, 1.05), title="fine-tuned on T facts with … frozen")
    right.set_xticklabels(["\n".join(textwrap.wrap(label, 11)) for label in frozen], fontsize=7)
    right.legend(frameon=False, fontsize=8)


def _entanglement(figure: "Figure", figures: Record) -> None:
    left, right = figure.subplots(1, 2)
    layers = list(figures["weights"])[:-1]
    at = np.arange(len(layers))
    value, bars = values_of([figures["weights"][layer]["jaccard"] for layer in layers])
    left.errorbar(at, value, bars, label="weights: Jaccard", capsize=2, **style(0))
    left.plot(at, [figures["directions"][layer]["overlap"] for layer in layers], label="directions: cos²", **style(1))
    for index, key in enumerate(("weights", "directions")):
        chance = [figures[key][layer]["chance"] for layer in layers]
        line = (":", "-.")[index]
        left.plot(at, chance, color=COLOURS[index], linestyle=line, linewidth=1, label=f"{key}, by chance")
    left.set(ylim=(0, 1.02), title="overlap of safety and utility")
    _layer_ticks(left, layers)
    left.legend(frameon=False, fontsize=8)
    removed = {"nothing": figures["before"], **figures["removed"]}
    at = np.arange(len(removed))
    for index, (key, label) in enumerate(
        (("attack_success", "attack success"), ("refused", "refused"), ("utility", "utility"))
    ):
        value, bars = values_of([each[key] for each in removed.values()])
        _bars(right, at + 0.27 * (index - 1), value, index, label, bars, 0.25)
    right.set(xticks=at, ylim=(0, 1.05), title="with … taken out")
    right.set_xticklabels(list(removed), fontsize=8)
    right.legend(frameon=False, fontsize=8)


def _durability(figure: "Figure", figures: Record) -> None:
    outcomes = {"lost": "refusals lost", "gained": "attack success gained"}
    every = figure.subplots(1, len(outcomes) * len(figures["tasks"]), squeeze=False)[0]
    shown = [(task, found, outcome) for task, found in figures["tasks"].items() for outcome in outcomes]
    for axes, (task, found, outcome) in zip(every, shown, strict=True):
        real = [run for run in found["runs"] if run["set"] == run["label"]]
        for index, band in enumerate(("low", "mid", "high", "shuffled")):
            runs = [run for run in real if run["set"] == band] or [run for run in found["runs"] if run not in real]
            look = style(index) | {"linestyle": "none", "markersize": 6}
            if band == "shuffled":
                look["markerfacecolor"] = "white"
            axes.plot([run["similarity"] for run in runs], [run[outcome] for run in runs], label=band, **look)
        slope = found["outcomes"][outcomes[outcome]]["bands"]["slope"]
        if slope["value"] is not None:
            x = np.array([run["similarity"] for run in real])
            ends = np.array([x.min(), x.max()])
            centre = np.mean([run[outcome] for run in real])
            axes.plot(ends, centre + slope["value"] * (ends - x.mean()), color="black", linewidth=1)
            low, high = (f"{slope[key]:.2f}" if slope[key] is not None else "…" for key in ("low", "high"))
            axes.set_title(f"{task}: slope {slope['value']:.2f}\n[{low}, {high}]", fontsize=9)
        axes.axhline(0, color="black", linewidth=0.6, linestyle=":")
        axes.set(xlabel="similarity to the task", ylabel=f"{outcomes[outcome]} by fine-tuning")
    every[0].legend(frameon=False, fontsize=8)


def _probes(figure: "Figure", figures: Record) -> None:
    axes = figure.subplots(1, 3 if "update" in figures else 2)
    for panel, way in zip(axes, ("lens", "probe"), strict=False):
        for index, (model, curve) in enumerate(figures["curves"].items()):
            value, bars = values_of(curve[way])
            panel.errorbar(np.arange(len(value)), value, bars, label=model, capsize=2, **style(index))
        panel.axhline(0.25, color="black", linestyle=":", linewidth=0.8)
        panel.set(ylim=(0, 1.03), title={"lens": "logit lens", "probe": "linear probe"}[way])
        panel.set(xlabel="blocks passed", ylabel="accuracy on hazard facts (dotted: chance)")
        panel.legend(frameon=False, fontsize=8)
    if "update" in figures:
        rows = figures["update"]
        layers = list(dict.fromkeys(row["layer"] for row in rows))
        for index, (key, label) in enumerate(
            (("relative_norm", "relative norm"), ("stable_rank", "stable rank / full"))
        ):
            heights = [
                max(
                    (row[key] or 0) / (1 if key == "relative_norm" else row["full_rank"] or 1)
                    for row in rows
                    if row["layer"] == layer
                )
                for layer in layers
            ]
            _bars(axes[2], np.arange(len(layers)) + 0.4 * index - 0.2, heights, index, label)
        axes[2].set(title="update, largest parameter of a layer")
        _layer_ticks(axes[2], layers)
        axes[2].legend(frameon=False, fontsize=8)


def _bars(
    axes: "Axes",
    at: np.ndarray,
    heights: Sequence[float] | np.ndarray,
    index: int,
    label: str,
    error: np.ndarray | None = None,
    width: float = 0.4,
) -> None:
    look: dict[str, Any] = {"color": COLOURS[index], "hatch": ("", "///", "...")[index], "edgecolor": "black"}
    axes.bar(at, heights, width, yerr=error, label=label, linewidth=0.6, capsize=2, **look)


def _layer_ticks(axes: "Axes", layers: Sequence[str]) -> None:
    """Names of layers on the x axis, blocks by number alone, thinned out where there are many."""
    step = max(1, len(layers) // 12)
    at = list(range(0, len(layers), step))
    axes.set_xticks(at)
    short = {"embedding": "emb"}
    axes.set_xticklabels([short.get(layers[i], layers[i].removeprefix("block ")) for i in at], fontsize=8)
    axes.set_xlabel("block")


DRAWN: dict[str, Callable[["Figure", Record], None]] = {
    "g-effect": _g_effect,
    "sparsity": _sparsity,
    "entanglement": _entanglement,
    "durability": _durability,
    "probes": _probes,
}
