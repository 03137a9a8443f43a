"""The dataset as a folder that ``datasets`` and the Hub read, and the plain name ``immunobench`` for ``datasets``."""

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from immunobench.dataset_builders.card import TEMPLATES, render_card
from immunobench.datasets import MANIFEST, REPOSITORY, download, find_root, read_manifest, read_tables
from immunobench.errors import UsageError, disk_errors

NAME = "immunobench"
PACKAGE = Path(__file__).parent.parent


def export(out: Path, root: Path | None = None) -> Path:
    """Write the dataset in ``root`` (the packaged one by default) as the folder ``out``: card, data/, eval.yaml.

    In the folder that holds it, ``load_dataset("immunobench", CONFIG)`` finds an ``out`` of that name. The static
    tasks of eval.yaml are the vault's: what is made of public sets has none. Every file is checked first. An earlier
    export there is replaced whole; any other folder that is not empty raises UsageError. Raises ImmunobenchError where
    the disk refuses.
    """
    source = find_root(root)
    manifest = read_manifest(source)
    for config in manifest["configs"]:
        read_tables(config, root=source)
    if out.exists() and not (out / "data" / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there and is no export of immunobench: choose another folder.")
    with disk_errors(out, "another DIR"):
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            for entry in manifest["configs"].values():
                for split in entry["splits"].values():
                    target = staging / "data" / split["file"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / split["file"], target)
            shutil.copyfile(source / MANIFEST, staging / "data" / MANIFEST)
            if not manifest.get("upstream"):
                shutil.copyfile(TEMPLATES / "eval.yaml", staging / "eval.yaml")
            (staging / "README.md").write_text(render_card(source), encoding="utf-8")
            staging.chmod(0o755)
            if out.exists():
                shutil.rmtree(out)
            staging.rename(out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return out


def register_with_datasets() -> None:
    """Make ``datasets.load_dataset("immunobench", CONFIG)`` find the package in this process, from any folder.

    ``revision="vX"`` is the packaged version, or else that exact tag of the Hub. It wraps a function that
    ``datasets`` does not document (there is no way to register a name), so it is never done on import.
    """
    import datasets.inspect
    import datasets.load

    for module in (datasets.load, datasets.inspect):
        factory = module.dataset_module_factory
        if not getattr(factory, "knows_immunobench", False):
            module.dataset_module_factory = _knowing_immunobench(factory)


def _knowing_immunobench(factory: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(factory)
    def wrapper(path: str, revision: str | None = None, **options: Any) -> Any:
        if path == NAME:
            return factory(str(_folder_of(revision)), **options)
        return factory(path, revision=revision, **options)

    wrapper.knows_immunobench = True  # type: ignore[attr-defined]
    return wrapper


def _folder_of(revision: str | None) -> Path:
    """The package for its own version or none, otherwise the folder of that tag, downloaded."""
    if revision is None or revision == f"v{read_manifest()['version']}":
        return PACKAGE
    if not revision.startswith("v"):
        raise UsageError(f"revision '{revision}' is no version of {REPOSITORY}: give v1.0.0 or another tag.")
    return download(revision[1:])
