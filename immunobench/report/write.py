"""One report in whatever form is asked for."""

from collections.abc import Sequence
from pathlib import Path

from immunobench.errors import UsageError, unknown_name
from immunobench.files import write_file
from immunobench.report.formats import TEXT
from immunobench.report.reading import StudyReport

FORMATS = ("terminal", *TEXT, "html", "png", "pdf")


def check_format(form: str, transcripts: bool) -> None:
    """Raise UsageError for an unknown format or one that shows no transcripts, before any study is read."""
    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    if transcripts and form != "html":
        raise UsageError("--with-transcripts goes with --format html: no other format shows answers.")


def write_report(studies: Sequence[StudyReport], form: str, out: Path | None, transcripts: bool) -> list[str]:
    """Write the report and return what is to be printed: the text itself where no file is named, or the files.

    Raises UsageError where several studies leave the place open, ImmunobenchError where a file cannot be written or
    a library is missing.
    """
    if form in TEXT and out is None:
        return [TEXT[form](studies).rstrip("\n")]
    if out is None and len(studies) > 1:
        raise UsageError("several studies have no folder in common: say with --out where the report goes.")
    return [f"Wrote {file}" for file in _write(studies, form, out, transcripts)]


def _write(studies: Sequence[StudyReport], form: str, out: Path | None, transcripts: bool) -> list[Path]:
    if form in ("png", "pdf"):
        from immunobench.report.figures import save_figures

        return save_figures(studies, out or studies[0].folder / "figures", form)
    if form == "html":
        from immunobench.report.html import write_page

        return [write_page(studies, out or studies[0].folder / "report.html", transcripts)]
    assert out is not None
    write_file(out, TEXT[form](studies).encode())
    return [out]
