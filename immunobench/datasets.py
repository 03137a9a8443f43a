"""A config of the benchmark by name and version: packaged, from a folder, or from that tag of the Hub.

Every file is checked against the SHA-256 in its manifest before a row is returned. Nothing goes through the
cache of the ``datasets`` library, which keys a local folder by its name and not by its content.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunobench.errors import ImmunobenchError, unknown_name

if TYPE_CHECKING:
    import datasets
    import pyarrow

Row = dict[str, Any]
PACKAGED = Path(__file__).parent / "data"
MANIFEST = "manifest.json"
REPOSITORY = "immunobench/immunobench"


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_rows(splits: Mapping[str, Iterable[Any]]) -> str:
    """SHA-256 over the canonical JSON of every row of every split: of the content, not of its encoding."""
    digest = hashlib.sha256()
    for split in sorted(splits):
        digest.update(f"{split}\n".encode())
        for row in splits[split]:
            line = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def find_root(root: Path | str | None = None) -> Path:
    """The folder of the manifest: the package's own, ``root``, or ``root``/data.

    Raises ImmunobenchError where there is no manifest.
    """
    if root is None:
        return PACKAGED
    for folder in (Path(root), Path(root) / "data"):
        if (folder / MANIFEST).is_file():
            return folder
    raise ImmunobenchError(f"{root} holds no dataset: there is no {MANIFEST} in it; build or download it again.")


def read_manifest(root: Path | str | None = None) -> Row:
    """The manifest of a dataset: name, version, seed, figures, and each config's splits with their hashes."""
    path = find_root(root) / MANIFEST
    try:
        manifest: Row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImmunobenchError(f"{path} cannot be read ({error}); build or download the dataset again.") from None
    return manifest


def read_tables(config: str, split: str | None = None, root: Path | str | None = None) -> "dict[str, pyarrow.Table]":
    """The verified arrow table of each split of a config, or of the one ``split``, in the manifest's order.

    A file is verified by its SHA-256, and a config that is read whole by its fingerprint too. Raises UsageError for an
    unknown config or split and ImmunobenchError for a missing or changed file, or other rows than the manifest's.
    """
    import pyarrow.parquet

    folder = find_root(root)
    configs = read_manifest(folder)["configs"]
    if config not in configs:
        raise unknown_name("config", config, configs)
    splits = configs[config]["splits"]
    if split is not None and split not in splits:
        raise unknown_name(f"split of {config}", split, splits)
    tables = {}
    for name in [split] if split is not None else splits:
        path = folder / splits[name]["file"]
        if not path.is_file():
            raise ImmunobenchError(f"{path} is missing; build or download the dataset again.")
        if sha256_file(path) != splits[name]["sha256"]:
            raise ImmunobenchError(f"{path} is not the file of the manifest; build or download the dataset again.")
        tables[name] = pyarrow.parquet.read_table(path, partitioning=None)
    if split is None:
        rows = {name: table.to_pylist() for name, table in tables.items()}
        if fingerprint_rows(rows) != configs[config]["fingerprint"]:
            raise ImmunobenchError(
                f"the rows of '{config}' in {folder} are not the manifest's; build or download the dataset again."
            )
    return tables


def read_config(config: str, split: str | None = None, root: Path | str | None = None) -> list[Row]:
    """The verified rows of one split of a config, or of all its splits in the manifest's order."""
    return [row for table in read_tables(config, split, root).values() for row in table.to_pylist()]


def download(version: str, repository: str = REPOSITORY) -> Path:
    """The folder of the published dataset at the tag of ``version`` (1.0.0 or v1.0.0), downloaded once, then cached.

    Raises ImmunobenchError if the tag does not exist, or cannot be reached and is not in the cache, or if it holds
    another version.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    version = version.removeprefix("v")
    tag = f"v{version}"
    try:
        folder = Path(snapshot_download(repository, repo_type="dataset", revision=tag))
    except LocalEntryNotFoundError:
        reason = "the Hub cannot be reached and that version is not in the local cache"
    except RepositoryNotFoundError:
        reason = "there is no such dataset repository, or it needs a login"
    except HfHubHTTPError:
        reason = "the Hub has no such tag"
    else:
        held = read_manifest(folder)["version"]
        if held == version:
            return folder
        reason = f"what is tagged so is version {held}; ask its owner to move the tag"
    raise ImmunobenchError(f"cannot load {repository} at {tag}: {reason}.")


def load_dataset(
    config: str, split: str | None = None, version: str | None = None
) -> "datasets.Dataset | datasets.DatasetDict":
    """One config as a ``datasets.DatasetDict``, or one ``split`` of it as a ``datasets.Dataset``.

    Without ``version``, or with the packaged one, it comes from the package and needs no network; any other
    version is that exact tag of the Hub. A version may be given as its tag, with a v. Raises UsageError for an unknown
    config or split, and ImmunobenchError for a version that cannot be had.
    """
    import datasets

    packaged = version is None or version.removeprefix("v") == read_manifest()["version"]
    tables = read_tables(config, split, None if packaged else download(str(version)))
    loaded = {name: datasets.Dataset(table) for name, table in tables.items()}
    return loaded[split] if split is not None else datasets.DatasetDict(loaded)


def verify(
    config: str,
    loaded: "Mapping[str, datasets.Dataset | datasets.IterableDataset]",
    version: str | None = None,
    root: Path | str | None = None,
) -> None:
    """Check that all splits of a config, loaded in any way, are the rows of ``version`` (the packaged by default).

    Raises ImmunobenchError where they are not: ``datasets`` may return what it cached of another version.
    """
    packaged = read_manifest()["version"]
    where = root if root is not None or version in (None, packaged, f"v{packaged}") else download(str(version))
    manifest = read_manifest(where)
    if config not in manifest["configs"]:
        raise unknown_name("config", config, manifest["configs"])
    if fingerprint_rows(loaded) != manifest["configs"][config]["fingerprint"]:
        raise ImmunobenchError(
            f"these rows of '{config}' are not those of version {manifest['version']}: delete the cache of datasets, "
            f"or use immunobench.load_dataset."
        )
