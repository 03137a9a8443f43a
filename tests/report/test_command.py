"""immunobench report: every format from the command line, and what wrong requests get."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from immunobench.cli import main
from immunobench.report.write import FORMATS
from tests.report.stored import ANSWER, write_study
from tests.study.test_store import disk_of

Report = Callable[..., tuple[int, str, str]]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Report:
    """Runs ``immunobench report ARGUMENTS``: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["immunobench", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
            sys.exit(0)
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return call


def test_every_format_leaves_something_and_nothing_on_standard_error(
    report: Report, study_folder: Path, tmp_path: Path
) -> None:
    for form in FORMATS:
        out = tmp_path / form
        code, said, err = report(study_folder, "--format", form, *([] if form == "terminal" else ["--out", out]))
        assert (code, err) == (0, ""), form
        if form == "terminal":
            assert "t-facts" in said and "broken by" in said
        else:
            assert all(Path(line.removeprefix("Wrote ")).stat().st_size > 100 for line in said.splitlines()), said
    assert len(list((tmp_path / "pdf").iterdir())) == 3


def test_every_format_takes_a_domain_that_has_no_facts_to_know(report: Report, tmp_path: Path) -> None:
    root = write_study(tmp_path / "refusal", names=("none", "prefill"), facts=False)
    for form in FORMATS:
        code, _, err = report(root, "--format", form, *([] if form == "terminal" else ["--out", tmp_path / form]))
        assert (code, err) == (0, ""), form
    [none, _] = csv.DictReader(io.StringIO((tmp_path / "csv").read_text()))
    assert none["knowledge"] == "" and float(none["refused"]) == 1.0


def test_text_goes_to_standard_output(report: Report, study_folder: Path) -> None:
    _, said, _ = report(study_folder, "--format", "csv")
    assert len(list(csv.DictReader(io.StringIO(said)))) == 5
    assert json.loads(report(study_folder, "--json")[1]) == json.loads(report(study_folder, "--format", "json")[1])


def test_the_page_stands_in_the_study_s_folder_and_is_redacted(report: Report, tmp_path: Path) -> None:
    root = write_study(tmp_path / "own")
    assert report(root, "--format", "html")[1] == f"Wrote {root / 'report.html'}\n"
    assert ANSWER not in (root / "report.html").read_text()
    report(root, "--format", "html", "--with-transcripts")
    assert ANSWER in (root / "report.html").read_text()


def test_several_studies_stand_side_by_side_in_the_terminal(report: Report, study_folder: Path, tmp_path: Path) -> None:
    other = write_study(tmp_path / "shorter", tokens=32)
    _, said, _ = report(study_folder, other)
    assert "side by side" in said and "longest answer: 64 in locked, 32 in shorter" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "hmtl"), "did you mean 'html'?"),
        (("--with-transcripts",), "--with-transcripts goes with --format html"),
        (("SAME",), "a study is named twice"),
        (("OTHER", "--format", "html"), "say with --out where the report goes"),
    ],
)
def test_wrong_requests_get_one_sentence(
    report: Report, study_folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [{"SAME": study_folder, "OTHER": tmp_path / "other"}.get(a, a) for a in arguments]
    if "OTHER" in arguments:
        write_study(tmp_path / "other")
    code, said, err = report(study_folder, *given)
    assert (code, said) == (2, "") and message in err and len(err.splitlines()) == 1


def test_a_place_that_cannot_be_written_is_named(report: Report, study_folder: Path) -> None:
    code, _, err = report(study_folder, "--format", "md", "--out", study_folder / "study.json" / "x.md")
    assert code == 1 and "cannot write" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("form", ["md", "json", "csv", "html", "png", "pdf"])
def test_a_full_disk_leaves_what_was_there(report: Report, study_folder: Path, tmp_path: Path, form: str) -> None:
    figures = form in ("png", "pdf")
    out = tmp_path / "out"
    file = out / f"recovery.{form}" if figures else out
    file.parent.mkdir(exist_ok=True)
    file.write_text("old")
    with disk_of(100):
        code, said, err = report(study_folder, "--format", form, "--out", out)
    assert (code, said) == (1, "")
    assert err.splitlines() == [
        f"immunobench: cannot write {out}: File too large; free space or choose another folder with --out, "
        "then run the same command again."
    ]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file] and file.read_text() == "old"


@pytest.mark.parametrize(("form", "library"), [("html", "plotly"), ("png", "matplotlib")])
def test_a_library_that_is_missing_is_named(
    report: Report, study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, library: str
) -> None:
    for module in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    code, _, err = report(study_folder, "--format", form, "--out", tmp_path / "out")
    assert code == 1 and library in err and "pip install 'immunobench[report]'" in err
    assert not (tmp_path / "out").exists()
