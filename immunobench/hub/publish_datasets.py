"""Put a version of the datasets on the Hub: create the repository, upload, tag. Doing it again changes nothing."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from immunobench.dataset_builders.export import NAME, export
from immunobench.datasets import Row, read_manifest, sha256_file
from immunobench.errors import ImmunobenchError, UsageError, unknown_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

GATE_TERMS = "You agree to use this data only for defensive safety research, and not to pass it on."
Gate = Literal["auto", "manual"]


def check_gate(name: str | None) -> Gate | None:
    """``name`` if it is a kind of gate or None. Raises UsageError for another one."""
    if name is not None and name not in get_args(Gate):
        raise unknown_name("gate", name, get_args(Gate))
    return cast(Gate | None, name)


def repository_of(to: str, manifest: Row) -> str:
    """Where a dataset is published: ``to``/immunobench, and everything else beside it under its own name."""
    name = manifest["name"]
    return f"{to}/{name if name.startswith(NAME) else f'{NAME}-{name}'}"


def plan_publication(to: str, root: Path | None = None, gated: Gate | None = None) -> list[str]:
    """What ``publish_datasets`` would do for the organisation ``to``, one line a step; nothing is contacted.

    Raises UsageError where it would refuse.
    """
    manifest = read_manifest(root)
    if manifest.get("upstream") and not gated:
        raise UsageError(
            f"'{manifest['name']}' is made of public sets, which belong behind terms: add --gated auto or manual."
        )
    if not manifest.get("upstream"):
        _check_vault(manifest, gated)
    files = [split for entry in manifest["configs"].values() for split in entry["splits"].values()]
    size = sum(file["bytes"] for file in files)
    return [
        f"create dataset repository {repository_of(to, manifest)} if there is none",
        *([f"close it behind terms ({gated} approval)"] if gated else []),
        f"upload {len(files)} parquet files ({size:,} bytes), their manifest and card",
        f"tag v{manifest['version']}",
    ]


def _check_vault(manifest: Row, gated: Gate | None) -> None:
    """Raise UsageError for what is no vault, such as bands for one subject, and for a private vault without a gate."""
    if "facts" not in manifest["measured"]:
        raise UsageError(
            f"'{manifest['name']}' is no whole dataset and has no card: publish the dataset it belongs to."
        )
    if manifest["name"] != NAME and not gated:
        raise UsageError(
            f"'{manifest['name']}' is a private vault, which anybody could train on: add --gated auto or manual."
        )


def publish_datasets(
    to: str,
    root: Path | None = None,
    dry_run: bool = False,
    gated: Gate | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> str:
    """Publish the dataset in ``root`` (the packaged one by default) as ``to``/immunobench and return the commit.

    Other datasets go into a repository of their own name. The version's tag is set last. If it is there with the same
    files, nothing is done; if it is there with other files, ImmunobenchError is raised, because a version never
    changes. ``gated`` ('auto' or 'manual') closes the repository behind terms before anything is uploaded; without it
    UsageError is raised for what is made of public sets, real hazards among them, and for a private vault. With
    ``dry_run`` only the plan is told and '' returned. Raises ImmunobenchError where the Hub refuses.
    """
    say = progress or (lambda message: None)
    plan = plan_publication(to, root, gated)
    if dry_run:
        for line in plan:
            say(f"would {line}")
        return ""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    manifest = read_manifest(root)
    api, repository, version = HfApi(endpoint=endpoint, token=token), repository_of(to, manifest), manifest["version"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            exported = export(Path(folder) / NAME, root)
            if gated:
                _add_terms(exported / "README.md")
            api.create_repo(repository, repo_type="dataset", exist_ok=True)
            if gated:
                api.update_repo_settings(repository, repo_type="dataset", gated=gated)
            tagged = _tagged_commit(api, repository, f"v{version}")
            if tagged:
                _check_same(api, repository, f"v{version}", exported)
                say(f"{repository} has v{version} already, with the same files")
                return tagged
            say(f"upload to {repository}")
            done = api.upload_folder(
                repo_id=repository,
                repo_type="dataset",
                folder_path=exported,
                commit_message=f"Version {version}",
                delete_patterns=["data/**"],
            )
        api.create_tag(repository, repo_type="dataset", tag=f"v{version}", revision=done.oid)
    except HfHubHTTPError as error:
        raise ImmunobenchError(f"the Hub refuses to publish {repository}: {str(error).splitlines()[0]}") from None
    except ImmunobenchError:
        raise
    except Exception as error:  # the client lets errors of its HTTP library through, which differ by version
        raise ImmunobenchError(f"cannot publish {repository} ({error}): check the network and HF_ENDPOINT.") from None
    say(f"tagged v{version}")
    return str(done.oid)


def _add_terms(card: Path) -> None:
    """Put the terms of a gated repository into its card's YAML."""
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("---\n", f"---\nextra_gated_prompt: {GATE_TERMS}\n", 1), encoding="utf-8")


def _tagged_commit(api: "HfApi", repository: str, tag: str) -> str | None:
    """The commit of a tag, or None where there is no such tag."""
    for ref in api.list_repo_refs(repository, repo_type="dataset").tags:
        if ref.name == tag:
            return str(api.dataset_info(repository, revision=tag).sha)
    return None


def _check_same(api: "HfApi", repository: str, tag: str, exported: Path) -> None:
    """Raise ImmunobenchError unless all files of the folder are at the tag, by hash, and no others in its data/."""
    from huggingface_hub.hf_api import RepoFile

    remote = {
        each.path: each
        for each in api.list_repo_tree(repository, repo_type="dataset", revision=tag, recursive=True)
        if isinstance(each, RepoFile)
    }
    local = {path.relative_to(exported).as_posix(): path for path in exported.rglob("*") if path.is_file()}
    changed = sorted(
        name
        for name in local.keys() | {name for name in remote if name.startswith("data/")}
        if name not in remote or name not in local or not _is_same(remote[name], local[name])
    )
    if changed:
        raise ImmunobenchError(
            f"{repository} has {tag} already, with another {changed[0]}: a version never changes, raise it first."
        )


def _is_same(remote: "RepoFile", path: Path) -> bool:
    """Whether two files hold the same: large ones are kept on the Hub by SHA-256, the others as git's blobs."""
    from huggingface_hub.utils.sha import git_hash

    if remote.lfs:
        return bool(remote.lfs.sha256 == sha256_file(path))
    return bool(remote.blob_id == git_hash(path.read_bytes()))
