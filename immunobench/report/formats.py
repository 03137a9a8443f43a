"""A report as text: Markdown, CSV, JSON, LaTeX and BibTeX, of one study or of several side by side."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence

from immunobench.report import sentences
from immunobench.report.papers import BENCHMARK, papers
from immunobench.report.reading import StudyReport
from immunobench.report.tables import OVERVIEW, differences, long_rows, main_columns, main_rows, overview_rows
from immunobench.study.failure_modes import FailureMode

Studies = Sequence[StudyReport]


def as_markdown(studies: Studies) -> str:
    """Verdicts, the overview where there are several subjects, a table a subject, and what cannot be claimed."""
    parts = ["# Is the hazardous capability gone, or only hidden?"]
    overview = overview_rows(studies)
    if len(overview) > 1:
        parts.append(_markdown_table(OVERVIEW, overview))
    if apart := differences(studies):
        parts.append("The studies were not run alike:\n\n" + "\n".join(f"- {line}" for line in apart))
    for study in studies:
        for subject in study.subjects:
            name = f"{study.name}: {subject.title}" if len(studies) > 1 else subject.title
            parts.append(f"## {name}\n\n**{sentences.headline(subject)}** {sentences.evidence(subject)}")
            parts.append(_markdown_table(main_columns(subject), main_rows(subject)))
            parts += [_markdown_mode(mode) for mode in subject.failure_modes]
        parts.append(f"## What {study.name} cannot claim\n\n" + "\n".join(f"- {s}" for s in sentences.limits(study)))
    return "\n\n".join(parts) + "\n"


def as_csv(studies: Studies) -> str:
    """One row a study, subject and adversary with every number unrounded; empty where there is none."""
    rows = long_rows(studies)
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def as_json(studies: Studies) -> str:
    """The record of one study; of several, their records by name and how their settings differ."""
    if len(studies) == 1:
        return json.dumps(studies[0].record, indent=1) + "\n"
    records = {study.name: study.record for study in studies}
    return json.dumps({"studies": records, "differences": differences(studies)}, indent=1) + "\n"


def as_latex(studies: Studies) -> str:
    """A table a subject, for the package booktabs; the strongest attacks in bold."""
    tables = [
        _latex_table(
            main_columns(subject),
            main_rows(subject),
            f"{sentences.headline(subject)} Brackets hold 95 % intervals (90 % for utility lost).",
            f"tab:{_key(study.name)}-{_key(subject.title)}",
        )
        for study in studies
        for subject in study.subjects
    ]
    overview = overview_rows(studies)
    if len(overview) > 1:
        tables.insert(0, _latex_table(OVERVIEW, overview, "Verdicts.", "tab:immunobench-overview"))
    return "\n".join(tables)


def as_bibtex(studies: Studies) -> str:
    """The benchmark, and every paper that an adversary of these studies comes from."""
    sources = dict.fromkeys(row["source"] for study in studies for row in study.record["adversaries"].values())
    found = {key: entry for source in sources for key, entry in papers(source)}
    return "\n".join([BENCHMARK, *found.values()])


TEXT: dict[str, Callable[[Studies], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "json": as_json,
    "latex": as_latex,
    "bibtex": as_bibtex,
}
"""Formats that are text and go to standard output where no file is named."""


def _markdown_mode(mode: FailureMode) -> str:
    figures = [f"- {name}: {sentences.figure(value)}" for name, value in mode.figures.items()]
    missing = [f"- not measured: {name} (`{command}`)" for name, command in mode.missing.items()]
    return "\n".join([f"**{mode.name.capitalize()}.** {mode.sentence}", "", *figures, *missing])


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _latex_table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str) -> str:
    body = []
    for row in rows:
        cells = [_latex(cell) for cell in row]
        if row[-1] == "broken":
            cells[0] = f"\\textbf{{{cells[0]}}}"
        body.append("  " + " & ".join(cells) + " \\\\")
    head = " & ".join(_latex(column) for column in columns) + " \\\\"
    return "\n".join(
        [
            "\\begin{table}",
            f"  \\caption{{{_latex(caption)}}}",
            f"  \\label{{{label}}}",
            "  \\small",
            f"  \\begin{{tabular}}{{{'l' * len(columns)}}}",
            "  \\toprule",
            f"  {head}",
            "  \\midrule",
            *body,
            "  \\bottomrule",
            "  \\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": r"$<$", ">": r"$>$", "≥": r"$\geq$", "−": "$-$"}
LATEX |= {"—": "---", "φ": r"$\varphi$"}


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _key(name: str) -> str:
    """A name that LaTeX takes for a label."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
