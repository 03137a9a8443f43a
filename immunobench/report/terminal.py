"""What a person sees in the terminal: progress while a study runs, and its tables."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from immunobench.attacks.base import Checkpoint
from immunobench.diagnostics.base import shown
from immunobench.report.sentences import cost, number, where
from immunobench.study.cell import Cell
from immunobench.study.score import Result, Score
from immunobench.study.worker import Job

if TYPE_CHECKING:
    from immunobench.report.reading import StudyReport

COLOURS = {"broken": "red", "resisted": "green", "held": "green", "collapsed": "yellow", "held by collapse": "yellow"}
SPEED_OVER = 600.0
"""Seconds over which the speed is taken that tells the time left: one cell may take minutes."""


def console(stderr: bool = False) -> Console:
    """A console that is plain where it is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    plain = not stream.isatty()
    return Console(stderr=stderr, width=120 if plain else None, highlight=False, soft_wrap=plain)


def progress_bar(target: Console) -> Progress:
    """A bar with count and time left; it shows on a terminal only."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=target,
        disable=not target.is_terminal,
        transient=True,
        speed_estimate_period=SPEED_OVER,
    )


class StudyProgress:
    """Shows a study as it runs: a bar over checkpoints on a terminal, a line a finished cell everywhere."""

    def __init__(self, points: int, cells: int, target: Console | None = None) -> None:
        self._console = target or console(stderr=True)
        self._bar = progress_bar(self._console)
        self._task = self._bar.add_task("starting", total=points)
        self._points, self._finished = points, 0
        self._cells, self._done = cells, 0

    def __enter__(self) -> "StudyProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # what a study left out because all is broken is not to come
            self._bar.update(self._task, total=self._finished)
        self._bar.stop()

    def cell_started(self, subject: str, task: Job, points: int) -> None:
        """A cell begins."""
        self._bar.update(self._task, description=f"{subject} × {task.adversary.name}")

    def point_done(self, checkpoint: Checkpoint) -> None:
        """One checkpoint is measured."""
        self._bar.advance(self._task)

    def cell_done(self, subject: str, task: Job, cell: Cell, stored: bool) -> None:
        """A cell is stored, or was before: all its checkpoints are behind, those too that it failed before."""
        self._done += 1
        if stored:  # it took no time, and would let what is left seem quicker than it is
            self._points -= task.points
        else:
            self._finished += task.points
        # Winners of a search, and what a fallback measures again, are not foreseen.
        self._points = max(self._points, self._finished)
        self._bar.update(self._task, completed=self._finished, total=self._points)
        how = "kept" if stored else f"{cell.environment['seconds']:.1f} s"
        state = f"error: {cell.error.message}" if cell.error else how
        of = max(self._done, self._cells)
        line = f"[{self._done}/{of}] {subject} × {task.adversary.name} seed {task.seed}: {state}"
        self._console.print(line, markup=False)


def print_results(results: Sequence[Result], target: Console) -> None:
    """A table for each subject and the verdict below it."""
    for result in results:
        target.print(result_table(result))
        immunity = f" Immunity {result.immunity.estimate}." if result.immunity.estimate.defined else ""
        colour = COLOURS.get(result.verdict.name, "white")
        target.print(
            f"[bold {colour}]{result.verdict.name}[/]: {escape(result.verdict.sentence)}. "
            f"{result.statement[0].upper()}{result.statement[1:]}.{immunity}\n"
        )


def print_studies(studies: "Sequence[StudyReport]", target: Console) -> None:
    """Each study's tables, verdicts and judges; of several, also their subjects side by side and what differs."""
    from immunobench.report.tables import OVERVIEW, differences, overview_rows

    for study in studies:
        if len(studies) > 1:
            target.rule(study.name, align="left")
        print_results([subject.result for subject in study.subjects], target)
        print_judges(study.judges, target)
    if len(studies) > 1:
        print_list("side by side", overview_rows(studies), OVERVIEW, target)
        for line in differences(studies):
            target.print(line, markup=False)


def print_judges(rows: Sequence[Mapping[str, Any]], target: Console) -> None:
    """What judges said of the stored answers, and how far each two of them agree; nothing where there are none."""
    if rows:
        shown = [(row["judges"], row["figure"], row["estimate"], row["n"]) for row in rows]
        print_list("judges", shown, ("judge", "figure", "estimate [95 %]", "answers"), target)


def result_table(result: Result) -> Table:
    """One row an adversary; what the unattacked subject does stands in the title."""
    before = result.before
    known = f"K {before['knowledge']}, " if before["knowledge"].defined else ""
    title = f"{escape(result.subject)}: {known}utility {before['utility']}"
    if "refused" in before:
        title += f", refuses {before['refused']}, answers right {before['right']}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    several = result.mixed
    measures = ("K at worst", "R [95 %]", "at", "t*", "refuses", "right", "utility lost")
    for column in ("adversary", *measures, *["engine"] * several, "outcome"):
        table.add_column(column, justify="left" if column in ("adversary", "at", "engine", "outcome") else "right")
    for score in result.scores:
        *shown, outcome = _cells(score)
        table.add_row(*shown, *[escape(score.engine)] * several, outcome)
    return table


def _cells(score: Score) -> list[str]:
    name = score.outcome.name
    return [
        escape(score.adversary),
        number(score.knowledge),
        str(score.recovery) if score.recovery else "",
        escape(where(score, between=" ")),
        cost(score.cost_to_break.get("steps")),
        number(score.behaviour.get("refused")),
        number(score.behaviour.get("right")),
        number(score.utility_drop),
        f"[{COLOURS.get(name, 'white')}]{name}[/]",
    ]


def print_list(title: str, rows: Sequence[Sequence[Any]], headers: Sequence[str], target: Console) -> None:
    """A plain table; what looks like markup, as templates do, is text."""
    table = Table(title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*[Text(str(value)) for value in row])
    target.print(table)


def print_diagnosis(record: Mapping[str, Any], target: Console) -> None:
    """A diagnosis in its JSON form: what came out, the tables, and what they mean."""
    target.rule(f"{record['name']} of {record['subject']}", align="left")
    target.print(f"{record['summary']}\n", markup=False)
    for each in record["tables"]:
        print_table(each, target)
    target.print(
        f"{record['meaning']}\n{record['seconds']} s, peak memory {record['peak_memory_mib']} MiB.\n", markup=False
    )


def print_table(record: Mapping[str, Any], target: Console) -> None:
    """A diagnostic's table in its JSON form."""
    rows = [[shown(entry) for entry in row] for row in record["rows"]]
    print_list(record["title"], rows, record["columns"], target)
    target.print()
