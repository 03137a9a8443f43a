"""Commands about results that others see or check: submit, verify, reproduce, compare, leaderboard."""

from pathlib import Path
from typing import Annotated, Any

import typer

from immunobench.cli.app import app
from immunobench.cli.options import SUBJECT_HELP, AsJson, Exposed, print_json, say
from immunobench.errors import ImmunobenchError, UsageError

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a study.")]


@app.command()
def submit(
    run_folder: Run,
    to: Annotated[str, typer.Option(help="The model's repository: ORG/MODEL or ORG/MODEL@REVISION.")],
    with_transcripts: Annotated[
        bool, typer.Option("--with-transcripts", help="Publish requests and answers too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show, and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Offer results to a model's repository: card section, evaluation results and cells, as a pull request."""
    from immunobench.hub.submit import prepare, send
    from immunobench.report.terminal import console, print_list

    found = prepare(run_folder, to, with_transcripts)
    sizes = {path: len(content) for path, content in found.files.items()}
    if not as_json:
        rows = [("ok" if check.ok else "FAIL", check.name, check.finding) for check in found.checks]
        print_list("checks", rows, ("", "", ""), console())
    address = send(found) if found.ready and not dry_run else None
    if as_json:
        checks = [vars(check) for check in found.checks]
        print_json({"checks": checks, "files": sizes, "removed": found.stale, "pull_request": address})
    elif dry_run and found.ready:
        print_list("files", [(path, f"{size:,}") for path, size in sizes.items()], ("path", "bytes"), console())
        say(found.section)
    elif found.ready:
        say(address or f"{found.repository} holds these results already: nothing was sent.")
    if not found.ready:
        raise ImmunobenchError("not submitted: a check failed; mend it, or submit a study that passes.")


@app.command()
def verify(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="ORG/MODEL, ORG/MODEL@REVISION or a study's folder.")],
    sample: Annotated[int, typer.Option(help="Cells to run again; 0 runs none.")] = 2,
    seed: Annotated[int | None, typer.Option(help="Draws the sample; at random by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check published or stored results: hashes, identities, items, every score, and a sample run again."""
    from dataclasses import asdict

    from immunobench.hub.verify import verify as check
    from immunobench.report.terminal import console, print_list

    errors = console(stderr=True)
    found = check(target, sample, seed, progress=lambda line: errors.print(line, markup=False))
    if as_json:
        print_json({**asdict(found), "counts": found.counts, "differs": found.differs, "checked": found.checked})
    else:
        rows = [(c.cell_id, c.model, c.adversary, c.stored, c.again or "", c.finding) for c in found.cells]
        print_list("cells", rows, ("cell", "model", "adversary", "stored", "run again", ""), console())
        print_list("scores", [(c.state, c.what, c.finding) for c in found.checks], ("", "", ""), console())
        for what, counts in found.counts.items():
            say(f"{what}: {', '.join(f'{count} {state}' for state, count in counts.items()) or 'none'}")
        said = "Nothing differs" if found.checked else "No cell could be checked"
        say(f"{'It differs' if found.differs else said}. Sample drawn with --seed {found.seed}.")
    if found.differs or not found.checked:
        raise typer.Exit(1)


@app.command()
def reproduce(
    cell_folder: Annotated[Path, typer.Argument(metavar="CELL", help="Folder of one cell: RUN/CELL.")],
    subject: Annotated[str | None, typer.Option(help=f"As the study names it by default: {SUBJECT_HELP}")] = None,
    exposed: Exposed = None,
    as_json: AsJson = False,
) -> None:
    """Run one stored cell again and compare every measure with what is stored."""
    from dataclasses import asdict

    from immunobench.report.terminal import console, print_list
    from immunobench.study.reproduce import find_cell, open_as
    from immunobench.study.reproduce import reproduce as run_again

    store, cell, named, named_exposed = find_cell(cell_folder)
    if not (subject or named):
        raise UsageError("no study.json stands beside the cell: name its model with --subject.")
    engine = open_as(cell.identity, str(subject or named))
    try:
        found = run_again(cell, store.items(cell.cell_id), engine, exposed or named_exposed, {})
    finally:
        engine.close()
    if as_json:
        print_json(asdict(found))
    else:
        rows = [
            (m.probe, m.measure, m.items, f"{m.stored:.4f}", f"{m.again:.4f}", f"{m.difference:.2g}")
            for m in found.measures
        ]
        print_list("", rows, ("probe", "measure", "items", "stored", "again", "difference"), console())
        say(f"{found.state}: {found.finding}")
    if found.state in ("differs", "cannot be checked"):
        raise typer.Exit(1)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a study.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the study to compare with it.")],
    as_json: AsJson = False,
) -> None:
    """Compare two studies: paired changes with intervals, and what else differs, by severity."""
    from immunobench.report.terminal import console, print_list
    from immunobench.study.compare import compare as compare_studies
    from immunobench.study.conclusions import as_json as plain

    columns = ("adversary", "outcome", "", "first", "second", "change [95 %]", "items alike")
    found = compare_studies(first, second)
    if as_json:
        print_json(plain(found))
        return
    for subject in found.subjects:
        rows: list[tuple[Any, ...]] = [("none (before)", "", name, *_paired(p)) for name, p in subject.before.items()]
        for one in subject.adversaries:
            outcomes = one.first if one.first == one.second else f"{one.first} → {one.second}"
            rows += [(one.adversary, outcomes, name, *_paired(paired)) for name, paired in one.measures.items()]
        title = f"{subject.first} ({subject.verdicts[0]}) → {subject.second} ({subject.verdicts[1]})"
        print_list(title, rows, columns, console())
    settings = [(s.severity, s.what, s.first, s.second) for s in found.settings]
    if settings:
        print_list("settings that differ", settings, ("", "", "first", "second"), console())
    if not found.subjects:
        say("The figures mean different things and are not compared.")


def _paired(paired: Any) -> tuple[str, str, str, str]:
    values = [f"{each.value:.2f}" if each.defined else "" for each in (paired.first, paired.second)]
    alike = f"{paired.distance} apart" if paired.distance else str(paired.alike or "")
    return values[0], values[1], str(paired.change), alike


@app.command()
def leaderboard(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="ORG/MODEL, or ORG for all its models.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("leaderboard.html"),
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="Fetch each model, and leave out what was not measured.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Write a page of published results, computed again from their stored items."""
    from immunobench.files import write_file
    from immunobench.hub.leaderboard import collect, render
    from immunobench.study.conclusions import as_json as plain

    found = collect(models, weights=weights)
    if as_json:
        print_json(plain(found))
        return
    write_file(out, render(found).encode())
    say(f"{out}: {sum(len(group.rows) for group in found.groups)} models")
    for model, why in found.left_out:
        say(f"left out {model}: {why}")
