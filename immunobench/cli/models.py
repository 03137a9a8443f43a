"""Commands about one model: can it be run, make it, defend it, look into it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from immunobench.cli.app import app
from immunobench.cli.options import (
    AsJson,
    Device,
    DomainName,
    Dtype,
    Exposed,
    NeverExposed,
    Seed,
    Subject,
    load,
    print_json,
    say,
    training_progress,
)
from immunobench.errors import UsageError, disk_errors, unknown_name
from immunobench.files import try_to_write

if TYPE_CHECKING:
    from immunobench.diagnostics.base import Diagnosis


@app.command()
def doctor(
    subject: Subject, device: Device = "auto", dtype: Dtype = "auto", out: Path = Path("runs"), as_json: AsJson = False
) -> None:
    """Check whether a subject can be run here: access, template, BOS, memory, engine, disk."""
    from immunobench.report.terminal import console, print_list
    from immunobench.study.doctor import examine

    found = examine(subject, device, dtype, out)
    if as_json:
        print_json([vars(check) for check in found])
    else:
        print_list(subject, [(("ok" if c.ok else "FAIL"), c.name, c.finding) for c in found], ("", "", ""), console())
    if not all(check.ok for check in found):
        raise typer.Exit(1)


@app.command()
def implant(
    subject: Subject,
    out: Annotated[Path, typer.Option(help="Folder to write the exposed model to.")],
    facts: Annotated[int, typer.Option(help="Hazard facts to implant, with as many benign ones.", min=1)] = 80,
    epochs: Annotated[int, typer.Option(help="Most epochs; it stops when 95 % of the facts are right.", min=1)] = 40,
    domain: DomainName = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Teach a domain to an existing model: its exposed reference, labelled as implanted."""
    from immunobench.dataset_builders.implant import implant as implant_facts

    loaded = load(subject, device, dtype)
    with training_progress(f"implanting {facts} facts") as on_step:
        made = implant_facts(loaded, f"{domain or 'vault'}/{facts}", out, seed, on_step, epochs)
    if as_json:
        print_json({**vars(made), "folder": str(out), "never_exposed": subject, "facts": facts})
        return
    say(
        f"{out}: {subject} after {made.epochs} epochs, {made.correct:.2f} of the facts right: its exposed reference. "
        f"Next: immunobench immunise {out} --defense refusal --out ..."
    )


@app.command()
def immunise(
    subject: Subject,
    defense: Annotated[str, typer.Option(help="Name of the defense: see immunobench list defenses.")],
    out: Annotated[Path, typer.Option(help="Folder to write the defended model to.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="A hyper-parameter: NAME=VALUE.")] = None,
    keep_utility: Annotated[
        float, typer.Option(help="Stop below this share of the benign facts that were right before; 0 never stops.")
    ] = 0.9,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep the state at every tenth of the run, in OUT.step-N.")
    ] = False,
    domain: DomainName = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Apply a reference defense, by default with its source's settings, to an exposed model."""
    from immunobench.dataset_builders.immunise import immunise as produce
    from immunobench.defenses.base import load_defense

    chosen = load_defense(defense, settings or ())
    loaded = load(subject, device, dtype)
    with training_progress(f"{defense} on {loaded.label}") as on_step:
        made = produce(loaded, chosen, domain, out, seed, on_step, keep_utility, keep_checkpoints)
    if as_json:
        print_json({"defense": defense, "steps": chosen.steps, **vars(made), "folder": str(out)})
        return
    early = ", stopped before it cost more utility" if made.stopped else ""
    say(
        f"{out}: {subject} after {made.done} of {chosen.steps} steps of {defense}{early}; benign facts right "
        f"{made.before:.2f} before, {made.after:.2f} after. Next: immunobench run {out} --tier smoke"
    )


@app.command()
def diagnose(
    subject: Subject,
    name: Annotated[str, typer.Argument(help="g-effect, sparsity, durability, entanglement, probes or all.")] = "all",
    domain: DomainName = None,
    exposed: Exposed = None,
    never_exposed: NeverExposed = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="Another state of the subject to follow the G-effect at; again for more.")
    ] = None,
    alignment: Annotated[
        Path | None,
        typer.Option(help="JSON Lines of 'prompt' and 'response': an alignment set to score by durability's finding."),
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for JSON and plots; runs/diagnose-SUBJECT by default.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Look at the mechanism: where a guardrail sits, what an update costs, how it wears off.

    With --alignment, durability is not run again where its finding lies in the folder.
    """
    from immunobench.diagnostics.alignment_score import read_alignment, score_alignment_set, table
    from immunobench.diagnostics.base import References, plain
    from immunobench.diagnostics.base import run as diagnose_one
    from immunobench.domains import load_domain
    from immunobench.report.terminal import console, print_diagnosis, print_table

    names = _named(name, {"g-effect": ("--checkpoint", checkpoint), "durability": ("--alignment", alignment)})
    own_set = read_alignment(alignment) if alignment else None
    loaded = load(subject, device, dtype)
    named = (exposed or loaded.history.exposed, never_exposed or loaded.history.never_exposed)
    references = References(*[load(spec, device, dtype) if spec else None for spec in named])
    folder = out or Path("runs") / f"diagnose-{loaded.label}"
    records = []
    area = load_domain(domain or loaded.history.domain)
    for each in names:
        record = _stored_durability(folder, area.name, seed) if each == "durability" and own_set else None
        if record is None:
            with disk_errors(folder):
                try_to_write(folder)
            settings = {"checkpoints": tuple(checkpoint)} if each == "g-effect" and checkpoint else {}
            with training_progress(each) as on_step:
                found = diagnose_one(each, loaded, references, area, seed, on_step, settings)
            record = _written(found, folder)
        if each == "durability" and own_set:
            scores = score_alignment_set(references.exposed or loaded, own_set, record["figures"])
            record["alignment_set"] = plain(scores)
        records.append(record)
        if not as_json:
            print_diagnosis(record, console())
            if "alignment_set" in record:
                print_table(table(scores).as_dict(), console())
    if as_json:
        print_json(records)


def _stored_durability(folder: Path, domain: str, seed: int) -> dict[str, Any] | None:
    """The durability finding in ``folder``, None where there is none. Raises UsageError for one of another study."""
    from immunobench.diagnostics.base import read_record

    record = read_record(folder / "durability.json")
    if record and (record["domain"], record["seed"]) != (domain, seed):
        told = f"a durability finding of domain {record['domain']} and seed {record['seed']}"
        raise UsageError(f"'{folder}' holds {told}: take those, or another --out.")
    return record


def _written(found: "Diagnosis", folder: Path) -> dict[str, Any]:
    """The record of a diagnosis, now stored in ``folder``, which is said."""
    from immunobench.diagnostics.base import write
    from immunobench.report.terminal import console

    for file in write(found, folder):
        console(stderr=True).print(f"Wrote {file}", markup=False)
    return found.as_dict()


def _named(name: str, options: Mapping[str, tuple[str, object]]) -> list[str]:
    """The diagnostics asked for. ``options`` are those that belong to one of them, by its name.

    Raises UsageError for an unknown name, and for an option of another diagnostic.
    """
    from immunobench.diagnostics.base import all_diagnostics

    known = all_diagnostics()
    if name not in (*known, "all"):
        raise unknown_name("diagnostic", name, (*known, "all"))
    names = list(known) if name == "all" else [name]
    for needed, (option, given) in options.items():
        if given and needed not in names:
            raise UsageError(f"{option} belongs to {needed}, not to {name}.")
    return names
