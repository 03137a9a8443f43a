"""What a G-effect finding says to a reader: its tables and its sentence."""

from collections.abc import Mapping
from typing import Any

from immunobench.diagnostics.base import Table
from immunobench.diagnostics.directional import THIRDS

STRONGEST = 5


def tables(figures: Mapping[str, Any]) -> tuple[Table, ...]:
    """By objective, by parameter group, and of the subject's own update."""
    objectives = figures["objectives"]
    summary = Table(
        "G-effect by objective (below 0: a step on it raises the risk)",
        ("objective", "unlearning", "cosine", "retaining", "cosine ", "tokens that forget", "half of it in"),
        tuple(
            (
                name,
                o["unlearning"]["total"],
                o["unlearning"]["cosine"],
                o["retaining"]["total"],
                o["retaining"]["cosine"],
                o["unlearning"]["negative"],
                o["unlearning"]["concentration"],
            )
            for name, o in objectives.items()
        ),
    )
    parts = list(objectives["GA"]["unlearning"]["by_group"])
    found = [
        Table(f"{side} G-effect by parameter group".capitalize().replace("g-e", "G-e"), ("group", *objectives), rows)
        for side in ("unlearning", "retaining")
        if (rows := tuple((part, *(o[side]["by_group"][part] for o in objectives.values())) for part in parts))
    ]
    found.append(
        Table(
            f"The {STRONGEST} tokens with the strongest effect (DPO's include those of the refusals)",
            ("objective", "unlearning", "retaining"),
            tuple((name, *(strongest(o[side], figures) for side in o)) for name, o in objectives.items()),
        )
    )
    if "own_update" in figures:
        own = figures["own_update"]
        rows = tuple(
            (part, own["forget"][split][part], own["retain"][split][part])
            for split in ("by_depth", "by_group")
            for part in own["forget"][split]
            if split == "by_group" or part in THIRDS
        )
        totals = tuple(
            (label, own["forget"][key], own["retain"][key]) for label, key in (("all", "total"), ("measured", "actual"))
        )
        title = "Risk that the subject's own update took away (all: the sum over blocks, embedding and head)"
        found.append(Table(title, ("group", "hazard", "benign"), (*rows, *totals)))
    if "trajectory" in figures and "own_update" in figures:
        every = [(state["state"], state["own_update"]) for state in figures["trajectory"]]
        fell = tuple((state, own["forget"]["actual"], own["retain"]["actual"]) for state, own in every)
        found.append(Table("Risk that the update had taken away along the run", ("state", "hazard", "benign"), fell))
    for side in ("unlearning", "retaining") if "trajectory" in figures else ():
        states: list[tuple[Any, ...]] = []
        for state in figures["trajectory"]:
            found_there = [o[side] for o in state["objectives"].values()]
            states.append((state["state"], "all", *(o["total"] for o in found_there)))
            states += [(state["state"], part, *(o["by_group"][part] for o in found_there)) for part in parts]
        columns = ("state", "group", *objectives)
        found.append(Table(f"{side.capitalize()} G-effect along the run", columns, tuple(states)))
    return (summary, *found)


def strongest(effect: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """The tokens whose effects are the largest by size, each with its effect, as text."""
    texts = figures["tokens"]["forget"]["text"] + figures["tokens"]["refusals"]["text"]
    found = sorted(zip(effect["by_token"], texts, strict=False), key=lambda pair: -abs(pair[0]))[:STRONGEST]
    return ", ".join(f"{text.strip() or repr(text)} {value:.3g}" for value, text in found)


def summarise(figures: Mapping[str, Any]) -> str:
    """What came out, in one sentence."""
    saturated = figures["saturated"]
    pulling = {name: o["retaining"]["cosine"] for name, o in figures["objectives"].items() if name not in saturated}
    parts = []
    if pulling:
        harshest, kindest = min(pulling, key=pulling.__getitem__), max(pulling, key=pulling.__getitem__)
        parts.append(
            f"of all objectives {harshest} goes most against what is kept (cosine {pulling[harshest]:+.2f}) and "
            f"{kindest} least ({pulling[kindest]:+.2f})"
        )
    if saturated:
        met = "is met already and pulls" if len(saturated) == 1 else "are met already and pull"
        parts.append(f"{', '.join(saturated)} {met} nowhere")
    if "own_update" in figures:
        own = figures["own_update"]
        parts.append(
            f"the subject's own update raised the risk on hazard answers by {-own['forget']['actual']:.2f} nats a "
            f"token and on benign ones by {-own['retain']['actual']:.2f}"
        )
    told = "; ".join(parts)
    return f"{told[0].upper()}{told[1:]}."
