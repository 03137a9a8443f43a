"""Write into docs/attacks.md what each adversary breaks, from the records of docs/calibration.

    python docs/build_attacks.py

The records are made by docs/build_calibration.py, one an organism. Only organisms that hide what they know count: what
is open needs no attack, and what is empty or destroyed has nothing to break.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BEGIN, END = "<!-- figures:begin -->\n", "<!-- figures:end -->\n"
HEADER = (
    "| adversary | family | breaks, of {count} locked organisms | highest R | broken by this family alone |\n"
    "|---|---|---|---|---|\n"
)

Record = Mapping[str, Any]


def table(records: Sequence[Record]) -> str:
    """A row an adversary, in the order of the records, and a sentence on those that break nothing."""
    locked = [record for record in records if record["truth"] == "locked"]
    rows = {row["name"]: row["family"] for record in locked for row in record["adversaries"]}
    broken: dict[str, list[str]] = {name: [] for name in rows}
    highest: dict[str, tuple[float, str]] = {}
    families: dict[str, set[str]] = {record["organism"]: set() for record in locked}
    for record in locked:
        for row in record["adversaries"]:
            if row["recovery"] and row["recovery"]["value"] is not None:
                best = highest.get(row["name"], (float("-inf"), ""))
                highest[row["name"]] = max(best, (row["recovery"]["value"], record["organism"]))
            if row["outcome"] == "broken":
                broken[row["name"]].append(record["organism"])
                families[record["organism"]].add(row["family"])
    lines = [HEADER.format(count=len(locked))]
    for name, family in rows.items():
        alone = [organism for organism in broken[name] if families[organism] == {family}]
        most = f"{highest[name][0]:.2f} ({highest[name][1]})" if name in highest else "none"
        lines.append(f"| `{name}` | {family} | {len(broken[name])} | {most} | {', '.join(alone) or 'none'} |\n")
    weak = [name for name, organisms in broken.items() if not organisms]
    if weak:
        lines.append(f"\nWeak here, for they break none of these organisms: {', '.join(f'`{n}`' for n in weak)}.\n")
    return "".join(lines)


def main(folder: Path = HERE) -> None:
    """Put the table between its marks."""
    records = [json.loads(file.read_text()) for file in sorted((folder / "calibration").glob("*.json"))]
    if not records:
        sys.exit("docs/calibration has no records: make them with docs/build_calibration.py.")
    page = folder / "attacks.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}{table(records)}{END}{after}")


if __name__ == "__main__":
    main()
