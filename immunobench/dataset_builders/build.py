"""The whole published dataset: the vault, downstream tasks, and alignment sets in similarity bands."""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from immunobench.dataset_builders.bands import BANDS, SIZES, Band, PoolTooSmallError, measure_bands, select_bands
from immunobench.dataset_builders.card import write_card
from immunobench.dataset_builders.downstream import make_downstream
from immunobench.dataset_builders.embeddings import EMBEDDER, Features, sentence_features, subject_features
from immunobench.dataset_builders.figures import measure, measure_downstream, measure_unmatched, vault_grams
from immunobench.dataset_builders.nearness import measure_nearness
from immunobench.dataset_builders.page import write_page
from immunobench.dataset_builders.similarity import Floats
from immunobench.dataset_builders.storage import Configs, check_free, write_dataset, write_new
from immunobench.dataset_builders.vault import DEFAULT_SEED, VERSION, Progress, make_vault
from immunobench.datasets import PACKAGED, Row, read_config
from immunobench.errors import UsageError, disk_errors

if TYPE_CHECKING:
    from immunobench.subjects import Subject


def alignment_pool(requests: list[Row]) -> list[Row]:
    """Refused hazard requests of the facts T: every training wording of each, with its category."""
    return [
        {
            "id": f"alignment/{row['fact_id']}/{number:02}",
            "fact_id": row["fact_id"],
            "category": row["field"],
            "style": style,
            "prompt": prompt,
            "response": row["refusal"],
        }
        for row in requests
        for number, (prompt, style) in enumerate(zip(row["train_prompts"], row["train_styles"], strict=True))
    ]


def pairs(rows: list[Row]) -> list[tuple[str, str]]:
    """Prompt and response of each row."""
    return [(row["prompt"], row["response"]) for row in rows]


def make_alignment(
    harmful: list[Row], downstream: dict[str, list[Row]], features: Features, say: Progress
) -> tuple[Configs, Row]:
    """The configs alignment_low, _mid and _high with a split for each downstream task, and their figures.

    Bands are as large as ``SIZES`` allows. Raises PoolTooSmallError where even the smallest overlap or are too many for
    the pool, and ImmunobenchError where bands do not match.
    """
    pool = alignment_pool(harmful)
    pool_features = features(pairs(pool))
    configs: Configs = {f"alignment_{band}": {} for band in BANDS}
    figures = {}
    for task, rows in downstream.items():
        say(f"similarity bands for {task}")
        anchors = features(pairs([row for row in rows if row["part"] == "train"]))
        bands = _largest_bands(pool, pool_features, anchors, partial(_searched, say))
        figures[task] = measure_bands(pool, bands)
        for name, band in bands.items():
            chosen = sorted(zip(band.indices, band.similarities, strict=True), key=lambda each: pool[each[0]]["id"])
            configs[f"alignment_{name}"][task] = [
                {**pool[index], "band": name, "task": task, "similarity": round(float(similarity), 6)}
                for index, similarity in chosen
            ]
            figures[task][name] |= measure_unmatched(configs[f"alignment_{name}"][task])
    return configs, figures


def _largest_bands(
    pool: list[Row], features: Floats, anchors: Floats, progress: Callable[[float], None]
) -> dict[str, Band]:
    for size in SIZES[:-1]:
        try:
            return select_bands(pool, features, anchors, size, progress=progress)
        except PoolTooSmallError:
            continue
    return select_bands(pool, features, anchors, SIZES[-1], progress=progress)


def _searched(say: Progress, share: float) -> None:
    say(f"searched {share:.0%} of the pool")


def build_datasets(
    out: Path = PACKAGED,
    features: Literal["sentence", "subject"] = "sentence",
    subject: "Subject | None" = None,
    progress: Progress | None = None,
) -> Row:
    """Write all configs to the folder ``out`` and return the manifest; needs the sentence embedder.

    ``out`` is the package's own folder, which is replaced when all is made, or one that is empty or not there yet.
    The package gets its card, and in a checkout the page of the documentation, written anew. With
    ``features="subject"`` it writes alignment bands by the last-layer state of ``subject`` instead, from the
    packaged vault and tasks, and nothing else. Raises UsageError for that without a subject, or
    where another ``out`` than the package has something in it; ImmunobenchError where it cannot be written.
    """
    say = progress or (lambda message: None)
    if features == "subject":
        return _build_for_subject(out, subject, say)
    packaged = out.resolve() == PACKAGED.resolve()
    if not packaged:
        check_free(out)
    configs = make_vault(DEFAULT_SEED, say)
    say("downstream tasks")
    configs["downstream"] = make_downstream(DEFAULT_SEED, vault_grams(configs))
    say("embeddings")
    bands, figures = make_alignment(configs["harmful"]["train"], configs["downstream"], sentence_features, say)
    say("nearness to the hazard")
    nearness = measure_nearness(configs, sentence_features)
    say("writing")
    measured = measure(configs)
    measured["unrelated"] |= nearness
    measured["downstream"] = measure_downstream(configs["downstream"])
    measured["alignment"] = {"feature": EMBEDDER, "tasks": figures}
    about = {"name": "immunobench", "version": VERSION, "seed": DEFAULT_SEED, "measured": measured}
    if not packaged:
        return write_new(out, configs | bands, about)
    manifest = replace_dataset(PACKAGED, configs | bands, about)
    say("card and page")
    write_card(PACKAGED, PACKAGED.parent)
    write_page(PACKAGED)
    return manifest


def replace_dataset(folder: Path, configs: Configs, about: Row) -> Row:
    """Write a dataset beside ``folder`` and put it in its place, all or nothing. Returns the manifest.

    Raises ImmunobenchError where the disk refuses; then ``folder`` is as it was.
    """
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        made, old = staging / "made", staging / "old"
        try:
            manifest = write_dataset(made, configs, about)
            if folder.exists():
                folder.rename(old)
            made.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _build_for_subject(out: Path, subject: "Subject | None", say: Progress) -> Row:
    """Alignment bands by a subject's own states."""
    if subject is None:
        raise UsageError("bands by a subject's states need one: give --subject SUBJECT.")
    if out.resolve() == PACKAGED.resolve():
        raise UsageError("bands for one subject do not belong in the package: give --out DIR.")
    check_free(out)
    say(f"states of {subject.spec}")
    downstream = {task: read_config("downstream", task) for task in ("list", "qa", "summary", "code")}
    features = partial(subject_features, subject)
    bands, figures = make_alignment(read_config("harmful", "train"), downstream, features, say)
    feature = f"last-layer state of {subject.spec} (weights {subject.weights_sha256[:16]})"
    measured = {"alignment": {"feature": feature, "tasks": figures}}
    return write_new(out, bands, {"name": "immunobench-bands", "version": VERSION, "measured": measured})
