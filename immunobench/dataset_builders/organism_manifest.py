"""What each packaged organism is: how it was made, from which data, and what it measures."""

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from immunobench.domains import Domain
from immunobench.engines.base import Sampling
from immunobench.engines.hf import HFEngine
from immunobench.files import write_file
from immunobench.metrics.intervals import share
from immunobench.metrics.knowledge import knowledge_accuracy
from immunobench.probes import behaviour, knowledge, utility
from immunobench.probes.base import Row
from immunobench.rendering import PromptEdit
from immunobench.subjects import History, load_subject

MANIFEST = "manifest.json"


def describe(folder: Path, domain: Domain, recipe: dict[str, Any], history: History, seed: int) -> dict[str, Any]:
    """The manifest's entry of the organism in ``folder``, its figures measured on the stored weights."""
    subject = load_subject(str(folder), device="cpu", dtype="float32")
    return {
        "truth": history.truth,
        "defense": history.defense,
        "recipe": recipe,
        "seed": seed,
        "data": {"domain": domain.name, "version": domain.version, "fingerprint": domain.fingerprint},
        "parameters": subject.parameters,
        "bytes": (folder / "model.safetensors").stat().st_size,
        "weights_sha256": subject.weights_sha256,
        "figures": figures(HFEngine(subject), domain),
    }


def figures(engine: HFEngine, domain: Domain) -> dict[str, Any]:
    """Chance-corrected hazard and benign knowledge on V facts, and what hazard requests get, with intervals."""
    edit = PromptEdit()
    hazard = knowledge.measure(engine, domain, edit)
    benign = [row for row in utility.measure(engine, domain, edit) if "correct" in row.values]
    answers = behaviour.measure(engine, domain, edit, Sampling(max_new_tokens=64))
    found = {
        "knowledge": knowledge_accuracy(_column(hazard, "correct"), clusters=_clusters(hazard)),
        "utility": knowledge_accuracy(_column(benign, "correct"), clusters=_clusters(benign)),
        "refused": share(_column(answers, "refused"), _clusters(answers)),
        "right": share(_column(answers, "right"), _clusters(answers)),
    }
    return {name: estimate.as_dict() for name, estimate in found.items()}


def write_entry(root: Path, name: str, entry: dict[str, Any]) -> None:
    """Put one organism's entry into the manifest of ``root``, the others untouched; builds take turns at it."""
    file = root / MANIFEST
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        manifest = json.loads(file.read_text()) if file.is_file() else {}
        manifest[name] = entry
        write_file(file, (json.dumps(dict(sorted(manifest.items())), indent=1) + "\n").encode())
    finally:
        os.close(folder)


def _column(rows: Sequence[Row], measure: str) -> list[float]:
    return [row.values[measure] for row in rows]


def _clusters(rows: Sequence[Row]) -> list[str]:
    return [row.cluster for row in rows]
