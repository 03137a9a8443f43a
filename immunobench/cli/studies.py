"""Commands about studies: plan, run, score again, report."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from immunobench.cli.app import app
from immunobench.cli.options import (
    SUBJECT_HELP,
    AsJson,
    Device,
    Dtype,
    StudyOptions,
    opener,
    print_json,
    say,
    takes_study_options,
    training_progress,
    warn,
)
from immunobench.errors import ImmunobenchError, unknown_name


@app.command()
@takes_study_options
def plan(options: StudyOptions, as_json: AsJson = False) -> None:
    """Show cells, time, memory and disk; run nothing but a short calibration."""
    from immunobench.report.terminal import console, print_list
    from immunobench.study.plan import estimate

    asked = options.request()
    found = estimate(asked, options.opener(asked))
    if as_json:
        print_json(found)
        return
    rows = [(c["subject"], c["adversary"], c["points"], f"{c['seconds']:.0f} s") for c in found["cells"]]
    print_list("", rows, ("subject", "adversary", "checkpoints", "time"), console())
    console().print(
        f"{len(rows)} cells, about {found['seconds'] / 60:.0f} min with one worker, "
        f"{found['memory_gib']:.1f} GiB of memory, {found['disk_bytes'] / 2**20:.0f} MiB of disk.",
        markup=False,
    )
    for line in found["engines"]:
        console().print(line, markup=False)


@app.command()
@takes_study_options
def run(
    options: StudyOptions,
    out: Annotated[Path | None, typer.Option(help="Folder of the study; runs/SUBJECT-TIER by default.")] = None,
    executor: Annotated[str, typer.Option(help="local or ray.")] = "local",
    workers: Annotated[
        int | None, typer.Option(help="Workers, each with its own GPU or cores; 1 by default, with ray what it has.")
    ] = None,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster; one on this machine without.")] = None,
    task_memory: Annotated[float | None, typer.Option(help="GiB that each task asks of Ray.")] = None,
    stop_when_broken: Annotated[
        bool, typer.Option("--stop-when-broken", help="Leave out what is left once every subject is broken.")
    ] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(help="Leave with code 3 when a subject is broken, inconclusive or held (by collapse too)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Attack, probe and score subjects. The same command goes on where it was stopped."""
    from immunobench.protocol.verdict import GROUPS
    from immunobench.report.terminal import StudyProgress, console, print_results
    from immunobench.study.executors.choose import choose_executor
    from immunobench.study.opening import engine_of_study
    from immunobench.study.plan import size
    from immunobench.study.record import check_folder
    from immunobench.study.run import run_study
    from immunobench.study.store import Store

    asked = options.request(stop_when_broken)
    if fail_on is not None and fail_on not in GROUPS:
        raise unknown_name("verdict", fail_on, GROUPS)
    open_engine = options.opener(asked)
    points, cells = size(asked)
    names = "+".join(Path(s).name.replace(":", "-") for s in options.subjects)
    root = out or Path("runs") / f"{names}-{options.tier}"
    if replaced := check_folder(root, asked):
        warn(replaced)
    if options.engine == "auto":
        open_engine.chosen = replace(open_engine.chosen, engine=engine_of_study(root))
    place = choose_executor(executor, root, open_engine, options.device, workers, ray_address, task_memory)
    store = Store(root)
    with StudyProgress(points, cells) as progress:
        try:
            results, record = run_study(asked, store, open_engine, progress, place)
        except KeyboardInterrupt:
            raise ImmunobenchError("stopped: what was done is kept; the same command goes on.") from None
    if as_json:
        print_json(record)
    else:
        print_results(results, console())
        console(stderr=True).print(f"Stored in {store.root}", markup=False)
    if fail_on and any(result.verdict.name in GROUPS[fail_on] for result in results):
        raise typer.Exit(3)
    if record["failed"]:
        first = record["failed"][0]
        raise ImmunobenchError(
            f"{len(record['failed'])} adversaries failed on a model, first {first['adversary']} "
            f"({first['why'].rstrip('.')}): the others are kept; once that is mended, run the same command again."
        )


@app.command()
def report(
    run_folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of studies; several are put side by side.")
    ],
    form: Annotated[
        str, typer.Option("--format", help="terminal, md, json, csv, latex, bibtex, html, png or pdf.")
    ] = "terminal",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; for png and pdf a folder. By default RUN/report.html, RUN/figures, or print."
        ),
    ] = None,
    with_transcripts: Annotated[
        bool, typer.Option("--with-transcripts", help="Show requests and answers in the page; redacted by default.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show studies again, scored afresh from their stored measurements; no model is run."""
    from immunobench.report.terminal import console, print_studies
    from immunobench.report.write import check_format, write_report

    form = "json" if as_json else form
    check_format(form, with_transcripts)
    from immunobench.report.reading import read_studies

    studies = read_studies(run_folders)
    if form == "terminal":
        print_studies(studies, console())
        return
    for line in write_report(studies, form, out, with_transcripts):
        say(line)


@app.command()
def score(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a study.")],
    judge: Annotated[str | None, typer.Option(help=f"A model that judges the stored answers: {SUBJECT_HELP}")] = None,
    form: Annotated[
        str, typer.Option(help="harm, refusal, rating, guard, or a TOML file with the judge's own.")
    ] = "harm",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a study's stored measurements again, and with --judge its stored answers. No subject is run."""
    from immunobench.report.terminal import console, print_judges, print_results
    from immunobench.study.judging import judge_study, summarise
    from immunobench.study.reread import reread
    from immunobench.study.run import as_json as plain
    from immunobench.study.store import write_json

    results, record = reread(run_folder)
    if judge is not None:
        from immunobench.judges import Judge, check_pinned, load_form

        check_pinned(judge)
        seat = Judge(opener("auto", device, dtype)(judge), load_form(form))
        with training_progress(f"{form} by {judge}") as on_cell:
            judge_study(run_folder, seat, on_cell)
    judged = summarise(run_folder)
    write_json(run_folder / "study.json", record)
    if as_json:
        print_json({**record, "judges": plain(judged)})
    else:
        print_results(results, console())
        print_judges(judged, console())
