"""The shape of study.json, checked before anything is made of it: it may have been edited, or come from a stranger."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from immunobench.errors import ImmunobenchError, UsageError
from immunobench.study.request import Request


class _Part(BaseModel):
    """What is there must be of its kind; what may be missing has the value that a reader takes for it."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Domain(_Part):
    name: str
    version: str = ""
    fingerprint: str = ""


class _Score(_Part):
    adversary: str


class _Result(_Part):
    scores: list[_Score] = []


class _Subject(_Part):
    subject: str
    exposed: str
    never_exposed: str | None
    domain: _Domain
    implanted: bool = False
    result: _Result = _Result()


class _Place(_Part):
    model: str
    domain: str
    exposed: str
    adversary: str


class _Cells(_Place):
    cell_ids: list[str] = Field(min_length=1)


class _Failed(_Place):
    why: str


class _Request(_Part):
    subjects: list[str]
    tier: str = "quick"
    only: list[str] = []
    seeds: int = Field(default=1, ge=1)
    max_new_tokens: int | None = None
    search_trials: int | None = None


class _Adversary(_Part):
    name: str
    attack: str
    family: str
    source: str
    settings: dict[str, Any]
    budget: dict[str, Any]


class _Search(_Part):
    trials: int
    winners: list[str]


class _Record(_Part):
    protocol: str = ""
    request: _Request
    adversaries: dict[str, _Adversary]
    not_run: list[str] = []
    searches: dict[str, _Search] = {}
    subjects: list[_Subject] = Field(min_length=1)
    cells: list[_Cells]
    failed: list[_Failed] = []


def check_folder(root: Path, request: Request) -> str:
    """What a study of ``request`` does to the record of another one in ``root``; '' where it does nothing to one.

    Raises UsageError where ``root`` holds a model.
    """
    if any((root / name).exists() for name in ("config.json", "adapter_config.json")):
        raise UsageError(f"'{root}' holds a model: choose another folder with --out.")
    file = root / "study.json"
    if not file.is_file():
        return ""
    asked = json.loads(json.dumps(asdict(request)))
    try:
        stored = read_record(file)["request"]
    except ImmunobenchError:
        stored = {}
    if stored and all(asked.get(name) == value for name, value in stored.items()):
        return ""
    return f"'{root}' has the record of another study: this one will replace it, and the cells of both are kept."


def read_record(file: Path) -> dict[str, Any]:
    """The record in ``file``. Raises ImmunobenchError, naming the first wrong place, for one of another shape."""
    try:
        record: dict[str, Any] = json.loads(file.read_text())
        _Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise ImmunobenchError(f"'{file}' does not read as the record of a study: {where}: {first['msg']}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ImmunobenchError(f"'{file}' does not read: run the study's command again.") from error
    return record
