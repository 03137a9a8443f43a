"""What diagnostics found in a study's subjects, where a study and its report look for it."""

import json
from pathlib import Path
from typing import Any

from immunobench.errors import ImmunobenchError

DIAGNOSTICS = "diagnostics"
"""Folder inside a study's that may hold what ``immunobench diagnose`` wrote."""


def read_diagnoses(folder: Path) -> list[dict[str, Any]]:
    """What ``immunobench diagnose --out`` wrote to ``folder`` or below, by path; other JSON is passed over.

    Raises ImmunobenchError for a file that does not read.
    """
    found = []
    for file in sorted(folder.rglob("*.json")):
        try:
            found.append(json.loads(file.read_text()))
        except ValueError as error:
            raise ImmunobenchError(f"'{file}' does not read: diagnose again, or remove it.") from error
    return [d for d in found if isinstance(d, dict) and {"name", "subject", "summary", "tables", "meaning"} <= set(d)]


def diagnoses_of(subject: str, study: Path) -> list[dict[str, Any]]:
    """Those of one subject in the folder of a study. Raises as :func:`read_diagnoses` does."""
    return [d for d in read_diagnoses(study / DIAGNOSTICS) if d["subject"] in (subject, label(subject))]


def label(subject: str) -> str:
    """A subject's short name, as diagnoses call it and folders can be called."""
    return Path(subject.split(":")[-1]).name
