"""Write into docs/defenses.md what each defense did here: the manifest's figures, and the grids that were searched.

    python docs/build_defenses.py

What was found of an organism by attacks is taken from its record in docs/calibration, where there is one.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from immunobench.dataset_builders.organism_manifest import MANIFEST
from immunobench.dataset_builders.organism_recipes import CONTROLS, DEFENDED, REFERENCES
from immunobench.defenses.base import Defense
from immunobench.metrics.estimate import Estimate
from immunobench.subjects import ORGANISMS as PACKAGED

HERE = Path(__file__).parent
PAGE = HERE / "defenses.md"
RECORDS = HERE / "calibration"

Entry = Mapping[str, Any]


def value(entry: Entry, figure: str) -> float:
    """A figure of an organism's entry in the manifest."""
    return float(entry["figures"][figure]["value"])


def before(entry: Entry, exposed: Entry) -> str:
    """What the organism does before any attack, in words."""
    said = []
    if value(entry, "refused") >= 0.5:
        said.append("refuses the hazard")
    elif value(entry, "right") < 0.5 * value(exposed, "right"):
        said.append("answers hazard requests, and wrongly")
    else:
        said.append("answers hazard requests right")
    know = value(entry, "knowledge") / value(exposed, "knowledge")
    said.append("knows nothing of it" if know < 0.1 else f"keeps {know:.0%} of K".replace("%", " %"))
    if (kept := value(entry, "utility") / value(exposed, "utility")) < 0.9:
        said.append(f"has {kept:.0%} of the utility".replace("%", " %"))
    return ", ".join(said)


def under_attack(name: str) -> str:
    """The verdict of its calibration, with the adversary that was strongest."""
    file = RECORDS / f"{name}.json"
    if not file.is_file():
        return "not run yet"
    record = json.loads(file.read_text())
    worst = record["worst"]
    said = f"{record['verdict']} ({record['tier']})"
    return f"{said}; R {Estimate.from_dict(worst['recovery'])} under `{worst['adversary']}`" if worst else said


def figures(manifest: Mapping[str, Entry]) -> str:
    """A row an organism."""
    columns = ("organism", "K", "utility", "refused", "right", "before attack", "under attack")
    rows = [columns, ("---",) * len(columns)]
    for name in (*REFERENCES, *DEFENDED, *CONTROLS):
        if name in manifest:
            entry = manifest[name]
            shown = (Estimate.from_dict(entry["figures"][f]) for f in ("knowledge", "utility", "refused", "right"))
            rows.append((f"`{name}`", *map(str, shown), before(entry, manifest["exposed"]), under_attack(name)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def published(defense: Defense, settings: Mapping[str, Any]) -> str:
    """The settings that differ from the source's, as 'name: published / here'."""
    source = {name: getattr(type(defense)(), name) for name in settings}
    own = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    return ", ".join(f"{name} {source[name]} / {own[name]}" for name in own if own[name] != source[name])


def grids(manifest: Mapping[str, Entry]) -> str:
    """Each setting that was tried of the defenses that claim resistance."""
    columns = ("organism", "published / here", "loss after harmful tuning", "utility kept", "")
    rows = [columns, ("---",) * len(columns)]
    for name, organism in DEFENDED.items():
        for tried in manifest.get(name, {}).get("recipe", {}).get("grid", ()):
            assert organism.defense is not None
            rows.append(
                (
                    f"`{name}`",
                    published(organism.defense, tried["settings"]),
                    f"{tried['harmful_loss']:.2f}",
                    f"{tried['utility']:.2f}",
                    "chosen" if tried["chosen"] else "",
                )
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def written(text: str, manifest: Mapping[str, Entry]) -> str:
    """The page with its generated blocks made anew."""
    for name, block in (("figures", figures(manifest)), ("grids", grids(manifest))):
        whole = f"<!-- {name}:begin -->\n{block}\n<!-- {name}:end -->"
        text = re.sub(rf"<!-- {name}:begin -->.*?<!-- {name}:end -->", lambda _, w=whole: w, text, flags=re.DOTALL)
    return text


def main() -> None:
    """Write the page."""
    manifest = json.loads((PACKAGED / MANIFEST).read_text())
    PAGE.write_text(written(PAGE.read_text(), manifest))


if __name__ == "__main__":
    main()
