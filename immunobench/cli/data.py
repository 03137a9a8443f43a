"""Commands about what the benchmark is made of: list, build, vault, export, publish."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from immunobench.cli.app import app
from immunobench.cli.options import (
    AsJson,
    load,
    print_json,
    say,
    training_progress,
)
from immunobench.errors import UsageError, unknown_name

Tell = Callable[[str], None]


def aside(line: str) -> None:
    """Tell on standard error, where standard output is for JSON."""
    print(line, file=sys.stderr)


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="adversaries, attacks, datasets, defenses, diagnostics, domains, organisms, sources.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List what there is."""
    from immunobench.report.listing import LISTS
    from immunobench.report.terminal import console, print_list

    if what and what not in LISTS:
        raise unknown_name("list", what, LISTS)
    found = {name: LISTS[name]() for name in ([what] if what else LISTS)}
    if as_json:
        print_json(found if not what else found[what])
        return
    for name, rows in found.items():
        print_list(name, [list(row.values()) for row in rows], list(rows[0]) if rows else ["none"], console())


@app.command()
def build(
    what: Annotated[str, typer.Argument(help="datasets, organisms, public or domain.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Public sets, or domains made of them.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these organisms; may be given again.")] = None,
    features: Annotated[
        str, typer.Option(help="What similarity bands are made with: sentence or subject.")
    ] = "sentence",
    subject: Annotated[str | None, typer.Option(help="The subject whose states make the bands.")] = None,
    revision: Annotated[
        list[str] | None, typer.Option(help="SOURCE=COMMIT to read in place of the pinned one; may be given again.")
    ] = None,
    file: Annotated[
        list[str] | None, typer.Option(help="SOURCE=PATH of an upstream file in place of a download; again for more.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder. By default the package's own, ./public, or where run finds domains.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the packaged datasets or organisms again from their seeds; make public sets or domains of them.

    Examples: immunobench build public advbench dolly; immunobench build domain wmdp-bio.
    """
    tell = aside if as_json else say
    if what in ("public", "domain"):
        made = _build_public(what, names or [], _pairs("revision", revision), _pairs("file", file), out, tell)
    elif names:
        raise UsageError(f"build {what} takes no names: give --only, or build public or build domain.")
    elif what == "organisms":
        made = _build_organisms(only or [], out, tell)
    elif what == "datasets":
        made = [_build_datasets(features, subject, out, tell)]
    else:
        raise unknown_name("build target", what, ("datasets", "organisms", "public", "domain"))
    if as_json:
        print_json(made)


def _build_organisms(only: list[str], out: Path | None, tell: Tell) -> list[dict[str, Any]]:
    from immunobench.dataset_builders.organisms import build_organisms

    made = []
    with training_progress("organisms") as on_step:
        for one in build_organisms(only, out, on_step):
            tell(f"{one.folder}: {one.parameters:,} parameters, weights {one.weights_sha256[:12]}")
            made.append({**vars(one), "folder": str(one.folder)})
    return made


def _build_datasets(features: str, subject: str | None, out: Path | None, tell: Tell) -> dict[str, Any]:
    from immunobench.dataset_builders.build import build_datasets
    from immunobench.datasets import PACKAGED

    if features not in ("sentence", "subject") or (features == "subject") != (subject is not None):
        raise UsageError("--features is sentence, or subject together with --subject NAME.")
    loaded = load(subject, "auto", "auto") if subject else None
    folder = out or PACKAGED
    return _made(folder, build_datasets(folder, "subject" if loaded else "sentence", subject=loaded, progress=tell))


def _build_public(
    what: str, names: list[str], revisions: dict[str, str], files: dict[str, str], out: Path | None, tell: Tell
) -> list[dict[str, Any]]:
    from immunobench.dataset_builders.public import build_public
    from immunobench.dataset_builders.public_domains import build_domain
    from immunobench.dataset_builders.upstream import sources
    from immunobench.domains import BUILT, built_folder

    known = list(sources()) if what == "public" else list(BUILT)
    if not names:
        raise UsageError(f"build {what} needs a name: {', '.join(known)}.")
    for name in names:
        if name not in known:
            raise unknown_name("public set" if what == "public" else "domain", name, known)
    paths = {source: Path(path) for source, path in files.items()}
    for given in (*revisions, *files) if what == "public" else ():
        if given not in names:
            raise UsageError(f"{given} is not built: name it after build public too.")
    made = []
    for name in names:
        if what == "public":
            folder = (out or Path("public")) / name
            made.append(_made(folder, build_public(name, folder, revisions.get(name), paths.get(name), tell)))
            tell(f"{folder}: {name}. Keep it to yourself; its licence is in manifest.json.")
        else:
            folder = out / name if out else built_folder(name)
            made.append(_made(folder, build_domain(name, folder, revisions, paths, tell)))
            tell(f"{folder}: {name}. Next: immunobench run SUBJECT --domain {folder if out else name} --exposed MODEL")
    return made


def _made(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What is said in JSON of a dataset that was written: where it is, and the rows and fingerprint of each config."""
    configs = {
        name: {"rows": sum(split["rows"] for split in config["splits"].values()), "fingerprint": config["fingerprint"]}
        for name, config in manifest["configs"].items()
    }
    return {"folder": str(folder), "name": manifest["name"], "version": manifest["version"], "configs": configs}


def _pairs(option: str, values: list[str] | None) -> dict[str, str]:
    """NAME=VALUE options as a dictionary."""
    for value in values or []:
        if not all(value.partition("=")):
            raise UsageError(f"--{option} {value} is no SOURCE=VALUE.")
    return {name: rest for name, _, rest in (value.partition("=") for value in values or [])}


@app.command()
def vault(
    seed: Annotated[int, typer.Option(help="Any but the published vault's; the same one gives the same bytes.")],
    out: Annotated[Path, typer.Option(help="Folder to write the vault to; then run with --domain FOLDER.")],
    cosines: Annotated[
        bool, typer.Option(help="Measure cosines to the hazard too; needs the sentence embedder and some minutes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a private vault: the same statistics, other facts, no contamination."""
    from immunobench.dataset_builders.embeddings import sentence_features
    from immunobench.dataset_builders.vault import build_private_vault

    features = sentence_features if cosines else None
    manifest = build_private_vault(seed, out, aside if as_json else say, features)
    if as_json:
        print_json(_made(out, manifest))


@app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")], as_json: AsJson = False
) -> None:
    """Write the packaged dataset as a folder that datasets.load_dataset takes."""
    from immunobench.dataset_builders.export import export as write_folder
    from immunobench.datasets import read_manifest

    written = write_folder(out)
    if as_json:
        print_json(_made(written, read_manifest()))
    else:
        say(str(written))


@app.command()
def publish(
    what: Annotated[str, typer.Argument(help="datasets or scorers.")],
    to: Annotated[str, typer.Option(help="Organisation or user on the Hub.")],
    root: Annotated[Path | None, typer.Option(help="Folder of a dataset; the packaged one by default.")] = None,
    gated: Annotated[str | None, typer.Option(help="auto or manual: close the repository behind terms.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be done, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish datasets or scorers on the Hub, with the token of `hf auth login`."""
    done: Any
    if what == "datasets":
        done = _publish_datasets(to, root, dry_run, gated, as_json)
    elif root or gated:
        raise UsageError("--root and --gated are for datasets.")
    elif what == "scorers":
        done = _publish_scorers(to, dry_run, as_json)
    else:
        raise unknown_name("publication", what, ("datasets", "scorers"))
    if as_json:
        print_json(done)


def _publish_datasets(to: str, root: Path | None, dry_run: bool, gated: str | None, as_json: bool) -> dict[str, Any]:
    """The repository and its commit; in a dry run no commit, and what would be done."""
    from immunobench.datasets import read_manifest
    from immunobench.hub.publish_datasets import check_gate, plan_publication, publish_datasets, repository_of

    gate = check_gate(gated)
    commit = publish_datasets(to, root, dry_run=dry_run, gated=gate, progress=aside if as_json else say)
    repository = repository_of(to, read_manifest(root))
    if dry_run:
        return {"repository": repository, "would": plan_publication(to, root, gate)}
    if not as_json:
        say(commit)
    return {"repository": repository, "commit": commit}


def _publish_scorers(to: str, dry_run: bool, as_json: bool) -> list[dict[str, str]]:
    """The Space of each scorer; in a dry run its id alone."""
    from immunobench.hub.publish_scorers import publish_scorers
    from immunobench.scorers import list_scorers

    if dry_run:
        done = [{"space": f"{to}/{name}"} for name in list_scorers()]
        lines = [f"would publish {each['space']}" for each in done]
    else:
        published = publish_scorers(to)
        done, lines = [vars(each) for each in published], [str(each) for each in published]
    for line in () if as_json else lines:
        say(line)
    return done
