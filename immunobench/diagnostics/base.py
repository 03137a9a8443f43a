"""The Diagnostic protocol, what a diagnostic returns, and the one way to run it."""

import importlib
import json
import math
import pkgutil
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from immunobench import diagnostics
from immunobench.domains import Domain
from immunobench.errors import ImmunobenchError, unknown_name
from immunobench.files import write_file
from immunobench.metrics.estimate import Estimate
from immunobench.subjects import Subject

Progress = Callable[[int, int], None]
"""Told how many parts are done, and of how many."""
Entry = str | int | float | bool | None | Estimate


@dataclass(frozen=True)
class References:
    """The models that give the domain its ground truth, as far as there are any."""

    exposed: Subject | None = None
    never_exposed: Subject | None = None


@dataclass(frozen=True)
class Table:
    """A table for a reader."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain fields for JSON."""
        return plain({"title": self.title, "columns": self.columns, "rows": self.rows})


@dataclass(frozen=True)
class Finding:
    """What a diagnostic found in one subject."""

    summary: str
    """What came out, in one sentence."""
    tables: tuple[Table, ...]
    figures: dict[str, Any]
    """Every number behind the tables and plots, under stable names."""


@dataclass(frozen=True)
class Diagnosis:
    """A finding, with all that is needed to read it and to get it again."""

    name: str
    subject: str
    domain: str
    seed: int
    settings: dict[str, Any]
    """As they were used: a large model may be given less to do."""
    finding: Finding
    meaning: str
    """What the figures say and what they do not, in one sentence."""
    seconds: float
    peak_memory_mib: float
    """Most memory the process has held up to the end, the loaded models counted."""

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; NaN and infinities become None."""
        fields = {k: v for k, v in vars(self).items() if k != "finding"}
        tables = [table.as_dict() for table in self.finding.tables]
        return plain(fields | {"summary": self.finding.summary, "tables": tables, "figures": self.finding.figures})


class Diagnostic(Protocol):
    """A diagnostic: settings in a frozen dataclass, one measurement of one subject."""

    name: ClassVar[str]
    """What the command line calls it."""
    meaning: ClassVar[str]
    """What its figures say and what they do not, in one sentence."""

    def measure(
        self, subject: Subject, references: References, domain: Domain, seed: int, progress: Progress
    ) -> Finding:
        """Examine ``subject`` and leave it exactly as it was."""
        ...


def all_diagnostics() -> dict[str, type[Any]]:
    """Every packaged diagnostic by name: the classes with ``measure`` and ``name`` in the files of this folder."""
    found: dict[str, type[Any]] = {}
    for module in pkgutil.iter_modules(diagnostics.__path__):
        contents = vars(importlib.import_module(f"{diagnostics.__name__}.{module.name}"))
        for kind in contents.values():
            if isinstance(kind, type) and hasattr(kind, "measure") and isinstance(getattr(kind, "name", None), str):
                found[kind.name] = kind  # type: ignore[attr-defined]
    return dict(sorted(found.items()))


def run(
    name: str,
    subject: Subject,
    references: References,
    domain: Domain,
    seed: int = 0,
    progress: Progress = lambda done, of: None,
    settings: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Run the diagnostic called ``name`` with its default settings but for those in ``settings``.

    Raises UsageError for an unknown name, and where a reference does not fit the subject.
    """
    found = all_diagnostics()
    if name not in found:
        raise unknown_name("diagnostic", name, found)
    return diagnose(found[name](**(settings or {})), subject, references, domain, seed, progress)


def diagnose(
    diagnostic: Diagnostic, subject: Subject, references: References, domain: Domain, seed: int, progress: Progress
) -> Diagnosis:
    """Run ``diagnostic`` as it is set. Raises as :func:`run` does."""
    started = time.perf_counter()
    finding = diagnostic.measure(subject, references, domain, seed, progress)
    return Diagnosis(
        name=diagnostic.name,
        subject=subject.label,
        domain=domain.name,
        seed=seed,
        settings=asdict(diagnostic) | finding.figures.get("used", {}),  # type: ignore[call-overload]
        finding=finding,
        meaning=diagnostic.meaning,
        seconds=round(time.perf_counter() - started, 1),
        peak_memory_mib=round(peak_memory(subject.device) / 2**20),
    )


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: by the process, or on the GPU where the subject is on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write(diagnosis: Diagnosis, folder: Path, formats: tuple[str, ...] = ("png", "pdf")) -> list[Path]:
    """Write ``NAME.json`` and its plot in each of ``formats`` to ``folder``; returns the files.

    Raises ImmunobenchError where matplotlib is wanted and not installed, or the disk refuses.
    """
    record = diagnosis.as_dict()
    file = folder / f"{diagnosis.name}.json"
    write_file(file, (json.dumps(record, indent=1) + "\n").encode())
    if not formats:
        return [file]
    from immunobench.diagnostics.plots import save

    return [file, *save(record, folder, formats)]


def read_record(file: Path) -> dict[str, Any] | None:
    """A diagnosis's JSON form as it was written to ``file``, None where there is none.

    Raises ImmunobenchError for a file that does not read.
    """
    if not file.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ImmunobenchError(f"{file} does not read: remove it and run the diagnostic again.") from error
    return record


def shown(entry: Any) -> str:
    """One entry of a table's JSON form as text: estimates with their interval, other numbers to three digits."""
    if isinstance(entry, dict):
        return str(Estimate.from_dict(entry))
    if isinstance(entry, float):
        return f"{entry:.3g}"
    return "" if entry is None else str(entry)


def plain(value: Any) -> Any:
    """``value`` in types that JSON has."""
    if isinstance(value, Estimate):
        return value.as_dict()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
