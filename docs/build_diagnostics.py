"""Run every diagnostic on the packaged organisms and write docs/diagnostics-organisms.md with its plots.

    python docs/build_diagnostics.py [ORGANISM...] [--only NAME...] [--out DIR]

Each runs in a process of its own, so that its peak memory is its own. Records are kept as JSON under ``--out`` and not
run again where they are there: remove the folder when the code has changed. The page is written from all of them once
they cover every organism by what ``--only`` names: a sentence of each, and the tables and plots of some; and before
them what the records of benchmarks/diagnostics.py say of SmolLM2-135M.
"""

import argparse
import html
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
TIMED = HERE.parent / "benchmarks" / "records"
"""Where ``python benchmarks/diagnostics.py NAME > diagnostics-NAME.json`` keeps its records."""
ONCE = ("durability",)
"""Diagnostics of the exposed model alone: they train on it, whatever the subject."""
IN_FULL = ("exposed", "gradient-ascent", "refusal")
"""Organisms whose tables and plots are shown; the others' are printed by 'immunobench diagnose'."""
COMMAND = "import sys; from immunobench.cli import main; sys.exit(main())"


def markdown(table: dict[str, Any]) -> str:
    """A table of a record as Markdown."""
    lines = [table["columns"], ["---"] * len(table["columns"]), *([cell(e) for e in row] for row in table["rows"])]
    return f"*{table['title']}*\n\n" + "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def cell(entry: Any) -> str:
    """An entry whose text Markdown takes for nothing but text, such as a token ``<end>`` or ``|``."""
    return html.escape(shown(entry), quote=False).replace("|", "&#124;")


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
    had = {(record["name"], record["subject"]) for record in records}
    wanted = {(n, o) for n in options.only for o in organism_names() if n not in ONCE or o == "exposed"}
    if lacking := wanted - had:
        sys.exit(f"{len(lacking)} records are not in {options.out} yet: the page is written when all are.")
    PAGE.write_text(page(records, [json.loads(file.read_text()) for file in sorted(TIMED.glob("diagnostics-*.json"))]))


def timed(records: list[dict[str, Any]]) -> list[str]:
    """The part of the page about a real model."""
    columns = ("diagnostic", "processor seconds", "threads", "peak memory, MiB")
    rows = [(r["diagnostic"], r["cpu_seconds"], r["threads"], r["peak_memory_mib"]) for r in records]
    told = [f"- **{r['diagnostic']}**: {r['summary']}" for r in records]
    return [
        "## SmolLM2-135M",
        "Each in a process of its own, by `python benchmarks/diagnostics.py NAME smollm2-135m`; where a guardrail is "
        "asked after, the model was taught to refuse before (`--refuse`), whose memory counts and whose time does not.",
        markdown({"title": "Time and peak memory", "columns": columns, "rows": rows}),
        "\n".join(told),
    ]


def page(records: list[dict[str, Any]], real: list[dict[str, Any]]) -> str:
    """A real model's times, a sentence of every record by diagnostic, and then those that are shown in full."""
    parts = [
        "# Diagnostics of the packaged organisms",
        "Written by `python docs/build_diagnostics.py`. What they measure is in [diagnostics.md](diagnostics.md).",
        *timed(real),
        "## In a sentence",
    ]
    for name in sorted({record["name"] for record in records}):
        told = [f"- **{record['subject']}**: {record['summary']}" for record in records if record["name"] == name]
        parts += [f"### {name}", "\n".join(told)]
    parts += ["## In full"]
    for record in records:
        if record["subject"] in IN_FULL:
            (plot,) = save(record, PLOTS / record["subject"], ("png",))
            parts.append(section(record, plot))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
