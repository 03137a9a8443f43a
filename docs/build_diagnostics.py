"""Run every diagnostic on the packaged organisms and write docs/diagnostics-organisms.md with its plots.

    python docs/build_diagnostics.py [ORGANISM...] [--only NAME...] [--out DIR]

Each runs in a process of its own, so that its peak memory is its own. Records are kept as JSON under ``--out`` and not
run again where they are there; the page is written from all of them.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from immunobench.diagnostics.base import all_diagnostics, shown
from immunobench.diagnostics.plots import save
from immunobench.subjects import organism_names

HERE = Path(__file__).parent
PLOTS = HERE / "figures"
PAGE = HERE / "diagnostics-organisms.md"
ONCE = ("durability",)
"""Diagnostics of the exposed model alone: they train on it, whatever the subject."""
COMMAND = "import sys; from immunobench.cli import main; sys.exit(main())"


def markdown(table: dict[str, Any]) -> str:
    """A table of a record as Markdown."""
    lines = [table["columns"], ["---"] * len(table["columns"]), *([shown(e) for e in row] for row in table["rows"])]
    return f"*{table['title']}*\n\n" + "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def section(record: dict[str, Any], plot: Path) -> str:
    """The part of the page about one record."""
    parts = [
        f"### {record['name']} of {record['subject']}",
        record["summary"],
        f"![{record['name']} of {record['subject']}]({plot.relative_to(HERE).as_posix()})",
        *(markdown(table) for table in record["tables"]),
        f"{record['meaning']} ({record['seconds']:.0f} s, peak memory {record['peak_memory_mib']} MiB, "
        f"seed {record['seed']})",
    ]
    return "\n\n".join(parts)


def measure(name: str, organism: str, out: Path) -> None:
    """Write the record of one diagnostic of one organism, where it is not there yet."""
    if (out / organism / f"{name}.json").is_file():
        return
    words = ["diagnose", f"organism:{organism}", name, "--out", str(out / organism)]
    subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("organisms", nargs="*", default=organism_names())
    parser.add_argument("--only", nargs="*", default=list(all_diagnostics()))
    parser.add_argument("--out", type=Path, default=Path("runs/diagnostics"))
    options = parser.parse_args()
    for organism in options.organisms:
        for name in options.only:
            if name not in ONCE or organism == "exposed":
                measure(name, organism, options.out)
    records = [json.loads(file.read_text()) for file in sorted(options.out.glob("*/*.json"))]
    sections = []
    for record in records:
        (plot,) = save(record, PLOTS / record["subject"], ("png",))
        sections.append(section(record, plot))
    of = "; ".join(f"{record['name']} of {record['subject']}" for record in records)
    opening = f"# Diagnostics of the packaged organisms\n\nWritten by `python docs/build_diagnostics.py` from {of}."
    PAGE.write_text("\n\n".join([opening, *sections]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
