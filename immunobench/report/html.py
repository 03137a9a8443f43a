"""report.html: one file that a browser shows from disk, without a network."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from immunobench import __version__
from immunobench.errors import ImmunobenchError
from immunobench.files import write_file
from immunobench.protocol.verdict import EPSILON, PHI
from immunobench.report import sentences, tables
from immunobench.report.page_data import subject_data
from immunobench.report.reading import StudyReport, SubjectReport
from immunobench.study.diagnoses import label
from immunobench.study.environment import COMPARED

MARKS = {
    "broken": "✕",
    "collapsed": "↓",
    "held by collapse": "↓",
    "resisted": "✓",
    "held": "✓",
    "inconclusive": "?",
    "infeasible": "–",
    "invalid": "!",
}
"""A sign beside every colour, for readers who do not see it."""


def page(studies: Sequence[StudyReport], transcripts: bool = False) -> str:
    """The whole page, of one study or of several side by side.

    Without ``transcripts`` no request and no answer of the hazard side is in its bytes. Raises ImmunobenchError
    where the plotting library is not installed.
    """
    environment = Environment(
        loader=PackageLoader("immunobench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": sentences.number,
        "interval": sentences.interval,
        "cost": sentences.cost,
        "figure": sentences.figure,
        "worst_first": sentences.worst_first,
        "where": sentences.where,
        "label": label,
        "short": lambda text: str(text)[:12],
    }
    shown = [(study, subject) for study in studies for subject in study.subjects]
    data = {"subjects": [subject_data(study, subject, transcripts) for study, subject in shown], "phi": PHI}
    data["epsilon"] = EPSILON
    source = environment.loader.get_source  # type: ignore[union-attr]
    return environment.get_template("page.html.j2").render(
        studies=studies,
        shown=shown,
        first=_first(shown),
        transcripts=transcripts,
        sentences=sentences,
        tables=tables,
        marks=MARKS,
        compared=COMPARED,
        phi=PHI,
        epsilon=EPSILON,
        version=__version__,
        plots=[[_plot(record) for record in subject.diagnoses] for _, subject in shown],
        style=Markup(source(environment, "page.css")[0]),
        script=Markup(source(environment, "page.js")[0]),
        library=Markup(_library()),
        data=Markup(_embedded(data)),
    )


def write_page(studies: Sequence[StudyReport], file: Path, transcripts: bool = False) -> Path:
    """Write :func:`page` to ``file``. Raises as it does, and ImmunobenchError where the disk refuses."""
    write_file(file, page(studies, transcripts).encode())
    return file


def _first(shown: Sequence[tuple[StudyReport, SubjectReport]]) -> int:
    """The subject to open with: the first that is no reference of another."""
    references = {name for _, s in shown for name in (s.trial.exposed, s.trial.never_exposed)}
    return next((i for i, (_, s) in enumerate(shown) if s.trial.subject not in references), 0)


def _embedded(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _library() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ImmunobenchError("the page's charts need plotly: pip install 'immunobench[report]'.") from error
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def _plot(record: Any) -> str:
    """The diagnostic's plot as a data address; empty for one that has none."""
    from immunobench.diagnostics.plots import DRAWN, draw

    if record["name"] not in DRAWN:
        return ""
    sink = io.BytesIO()
    draw(record).savefig(sink, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(sink.getvalue()).decode()}"
