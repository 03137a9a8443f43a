"""Plots for papers: what is drawn is what was found."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from immunobench.report.figures import draw_behaviour, draw_curves, draw_recovery, draw_search, save_figures
from immunobench.report.reading import StudyReport


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_every_plot_is_written_and_written_the_same_again(
    studies: list[StudyReport], tmp_path: Path, kind: str, magic: bytes
) -> None:
    files = save_figures(studies, tmp_path / "a", kind)
    assert [file.name for file in files] == [f"{name}.{kind}" for name in ("recovery", "curves", "behaviour")]
    again = save_figures(studies, tmp_path / "b", kind)
    for file, other in zip(files, again, strict=True):
        assert file.read_bytes().startswith(magic) and file.read_bytes() == other.read_bytes()


def test_the_curve_of_the_search_is_drawn_where_there_was_one(studies: list[StudyReport], tmp_path: Path) -> None:
    [plain] = studies[0].subjects
    searched = replace(plain, search={"expected_maximum": [0.1, 0.4, 0.5]})
    axes = Figure().subplots()
    draw_search(axes, searched)
    [line] = axes.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2, 3], [0.1, 0.4, 0.5])
    both = replace(studies[0], subjects=[plain, searched])
    assert [file.name for file in save_figures([both], tmp_path, "png")][-1] == "search.png"


def test_recovery_draws_each_adversary_on_its_line(studies: list[StudyReport]) -> None:
    [subject] = studies[0].subjects
    axes = Figure().subplots()
    draw_recovery(axes, subject)
    names = [text.get_text() for text in axes.get_yticklabels()]
    drawn = {names[int(c.lines[0].get_ydata()[0])]: c.lines[0].get_xdata()[0] for c in axes.containers}
    assert drawn == {s.adversary: s.recovery.value for s in subject.result.scores if s.recovery}


def test_curves_draw_training_attacks_alone(studies: list[StudyReport]) -> None:
    [subject] = studies[0].subjects
    axes = Figure().subplots()
    draw_curves(axes, subject)
    drawn = {c.get_label(): (list(c.lines[0].get_xdata()), list(c.lines[0].get_ydata())) for c in axes.containers}
    assert set(drawn) == {"unrelated-10", "t-facts"}
    assert drawn["t-facts"] == ([0, 1, 5, 20], [p.recovery.value for p in subject.curves["t-facts"]])


def test_behaviour_draws_references_and_subject(studies: list[StudyReport]) -> None:
    axes = Figure().subplots()
    draw_behaviour(axes, studies[0].subjects[0])
    labels = {c.get_label() for c in axes.containers}
    assert {"exposed reference", "never-exposed reference", "subject, no attack"} < labels
