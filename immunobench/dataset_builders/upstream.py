"""Fetch a public set at one commit and read its rows, whatever its file format."""

import csv
import fnmatch
import gzip
import hashlib
import http.client
import io
import json
import re
import tomllib
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from immunobench.datasets import Row
from immunobench.errors import ImmunobenchError, UsageError, unknown_name

TABLE = Path(__file__).parent / "sources.toml"
GITHUB_FILES = "https://raw.githubusercontent.com"
"""Serves the file PATH of a repository at a commit as /REPOSITORY/COMMIT/PATH."""
CHANGED = "upstream changed, give an earlier revision"
KINDS: dict[str, type | tuple[type, ...]] = {"choices": list, "answer": (int, str), "safe": (bool, int, str)}
"""Types of the columns that are no text, under our names."""
Files = dict[str, bytes]
"""Contents of files by name."""


@dataclass(frozen=True)
class Source:
    """A public set: where it is, under which terms, and what its columns are called."""

    name: str
    repository: str
    revision: str
    """The commit that is read unless another one is asked for."""
    paper: str
    licence: str
    gated: bool
    kind: str
    """'requests', 'chats', 'choices' or 'texts'."""
    files: list[str]
    columns: dict[str, list[str]]
    host: str = "huggingface"
    """'huggingface' or 'github'."""
    keep: dict[str, str] = field(default_factory=dict)
    """What an upstream column must hold for a row to be taken."""
    only: str = ""
    """'lists' keeps the answers in list format alone."""

    @property
    def url(self) -> str:
        """Its page."""
        start = "https://github.com/" if self.host == "github" else "https://huggingface.co/datasets/"
        return start + self.repository


@dataclass(frozen=True)
class Fetched:
    """Rows of a source under our column names, and where they came from."""

    source: Source
    rows: list[Row]
    revision: str
    sha256: dict[str, str] = field(default_factory=dict)


@cache
def sources() -> dict[str, Source]:
    """All public sets by name."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {name: Source(name=name, **entry) for name, entry in table.items()}


def find_source(name: str) -> Source:
    """The source called ``name``. Raises UsageError for an unknown one."""
    if name not in sources():
        raise unknown_name("source", name, sources())
    return sources()[name]


def fetch(name: str, revision: str | None = None, file: Path | None = None) -> Fetched:
    """The rows of a public set, from its repository or from a ``file`` in its upstream format.

    They are those of the pinned commit, or of ``revision``: a branch or tag is resolved to its commit first, and that
    commit is what is read and recorded. Raises UsageError for a name or file that is not there, and ImmunobenchError
    with what to do where the set is gated, missing, empty or has other columns.
    """
    source = find_source(name)
    if file:
        files, commit = _local(file), "local file"
    else:
        files, commit = (_github if source.host == "github" else _hub)(source, revision or source.revision)
    rows = [row for path, data in files.items() for row in _read(path, data)]
    if not all(isinstance(row, dict) for row in rows):
        raise ImmunobenchError(f"{name} ({source.url}) has rows without columns: {CHANGED}.")
    if not rows:
        raise ImmunobenchError(f"{name} ({next(iter(files))}) has no rows: take another revision of {source.url}.")
    renamed = _rename(source, _kept(source, rows))
    if source.only == "lists":
        renamed = [row for row in renamed if is_list(row["response"])]
    return Fetched(source, renamed, commit, {path: hashlib.sha256(data).hexdigest() for path, data in files.items()})


def is_list(text: str) -> bool:
    """Whether a text is a list: at least two lines that begin with a number, a dash, a star or a bullet."""
    starts = [line.lstrip()[:3] for line in text.splitlines()]
    marked = [start for start in starts if start[:1] in ("-", "*", "•") or start.rstrip(" ").endswith((".", ")"))]
    return sum(1 for start in marked if start[:1] in "-*•0123456789") >= 2


def _local(file: Path) -> Files:
    try:
        return {file.name: file.read_bytes()}
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}.") from None


def _github(source: Source, commit: str) -> tuple[Files, str]:
    where, path = f"{source.name} ({source.url})", source.files[0]
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise UsageError(f"{where} has no revision '{commit}': give a commit of it, all 40 digits.")
    try:
        with urllib.request.urlopen(f"{GITHUB_FILES}/{source.repository}/{commit}/{path}", timeout=60) as answer:
            return {Path(path).name: answer.read()}, commit
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise ImmunobenchError(f"{where} cannot be downloaded (status {error.code}): try again later.") from None
        raise ImmunobenchError(f"{where} has no file {path} at {commit}: give another commit of it.") from None
    except (OSError, http.client.HTTPException) as error:
        raise ImmunobenchError(f"{where} cannot be downloaded ({type(error).__name__}): check the network.") from None


def _hub(source: Source, revision: str) -> tuple[Files, str]:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"{source.name} ({source.url})"
    try:
        api = HfApi()
        commit = str(api.dataset_info(source.repository, revision=revision).sha)
        listed = api.list_repo_files(source.repository, repo_type="dataset", revision=commit)
        for pattern in source.files:
            wanted = sorted(name for name in listed if fnmatch.fnmatch(name, pattern))
            if wanted:
                break
        else:
            raise ImmunobenchError(f"{where} has no file {' or '.join(source.files)} at {revision}: {CHANGED}.")
        paths = [hf_hub_download(source.repository, each, repo_type="dataset", revision=commit) for each in wanted]
    except GatedRepoError:
        raise ImmunobenchError(
            f"{where} is gated: accept its terms on {source.url} and log in with `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise ImmunobenchError(f"{where} has no revision '{revision}': give a commit, branch or tag of it.") from None
    except RepositoryNotFoundError:
        raise ImmunobenchError(f"{where} does not exist, or needs a login: run `hf auth login`.") from None
    except ImmunobenchError:
        raise
    except Exception as error:  # the client lets errors of its HTTP library through, which differ by version
        raise ImmunobenchError(f"{where} cannot be downloaded ({type(error).__name__}): check the network.") from None
    return {Path(path).name: Path(path).read_bytes() for path in paths}, commit


def _read(path: str, data: bytes) -> list[Row]:
    """Rows of a parquet, CSV, JSON or JSON-lines file, gzipped or not. An empty file has none."""
    if not data:
        return []
    name = path
    try:
        if name.endswith(".gz"):
            data, name = gzip.decompress(data), name.removesuffix(".gz")
        if name.endswith(".parquet"):
            from pyarrow import parquet

            return list(parquet.read_table(io.BytesIO(data)).to_pylist())
        text = data.decode("utf-8-sig")
        if name.endswith(".csv"):
            return list(csv.DictReader(io.StringIO(text, newline="")))
        if name.endswith(".json"):
            return list(json.loads(text))
        return [json.loads(line) for line in text.split("\n") if line.strip()]  # a string may hold other line ends
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:
        raise ImmunobenchError(f"{path} cannot be read ({type(error).__name__}): download it again.") from None


def _kept(source: Source, rows: list[Row]) -> list[Row]:
    """The rows that ``keep`` takes. Raises ImmunobenchError where it takes none."""
    for column, value in source.keep.items():
        _find_column(source, rows, [column])
        rows = [row for row in rows if row.get(column) == value]
        if not rows:
            raise ImmunobenchError(f"{source.name} ({source.url}) has no rows with {column} '{value}': {CHANGED}.")
    return rows


def _find_column(source: Source, rows: list[Row], candidates: list[str]) -> str:
    """The first of ``candidates`` that is a column. Raises ImmunobenchError where upstream no longer has one."""
    found = next((each for each in candidates if each in rows[0]), None)
    if found is None:
        has = ", ".join(str(column) for column in rows[0] if column)
        raise ImmunobenchError(
            f"{source.name} ({source.url}) has no column '{' or '.join(candidates)}' (it has {has}): {CHANGED}."
        )
    return found


def _rename(source: Source, rows: list[Row]) -> list[Row]:
    """Rows under our column names."""
    names = {ours: _find_column(source, rows, candidates) for ours, candidates in source.columns.items()}
    renamed = [{ours: _cell(row.get(theirs)) for ours, theirs in names.items()} for row in rows]
    for ours, theirs in names.items():
        kinds = KINDS.get(ours, str)
        if not all(isinstance(row[ours], kinds) for row in renamed):
            raise ImmunobenchError(
                f"{source.name} ({source.url}) has a '{theirs}' of another type than it had: {CHANGED}."
            )
    return renamed


def _cell(value: Any) -> Any:
    """A value without space around it; '' for one that is missing."""
    return value.strip() if isinstance(value, str) else "" if value is None else value
