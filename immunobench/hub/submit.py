"""Offer a study to a model's repository on the Hub: checks, a preview, then a pull request."""

import json
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunobench.datasets import REPOSITORY
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.hub.checks import (
    Hashes,
    dataset_check,
    measured_dtype,
    measured_hashes,
    protocol_check,
    subject_hashes,
    tier_check,
    validity_check,
    weights_check,
)
from immunobench.hub.client import connect, fetch, hub_errors, split_name
from immunobench.hub.model_card import (
    Published,
    eval_results_yaml,
    in_dataset,
    insert_section,
    model_index_entries,
    render_section,
    set_model_index,
)
from immunobench.hub.publication import FOLDER, cells_of, write_publication
from immunobench.study.cell import Cell
from immunobench.study.difference import changes
from immunobench.study.doctor import Check
from immunobench.study.reread import load_study, trials_of
from immunobench.subjects import MODEL_FILES

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TITLE = "Add immunobench results"
CARD, RESULTS = "README.md", ".eval_results/immunobench.yaml"


@dataclass(frozen=True)
class Submission:
    """What a pull request would hold, and whether it may be opened."""

    repository: str
    revision: str
    """Commit of the weights."""
    subject: str
    """What the study calls the model."""
    checks: list[Check]
    files: dict[str, bytes]
    """By path in the repository; empty where a check failed."""
    section: str
    """The section of the card."""
    branch: str
    """'main', or the reference of the pull request that is open already."""
    stale: list[str]
    """Files of an earlier submission that go."""

    @property
    def ready(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)


def prepare(run: Path, to: str, with_transcripts: bool = False, api: "HfApi | None" = None) -> Submission:
    """Check the study in ``run`` against the repository ``to``, ORG/MODEL or ORG/MODEL@REVISION; nothing is sent.

    The subject is the one whose weights the repository holds. Raises UsageError where there is no study or the name
    is none, ImmunobenchError where the Hub cannot be read.
    """
    api = api or connect()
    repository, revision = split_name(to)
    study, _, record = load_study(run)
    doing = f"read {to}"
    with hub_errors(doing):
        sha = str(api.model_info(repository, revision=revision).sha)
    trials = trials_of(record)
    hashes = subject_hashes(fetch(api, repository, sha, MODEL_FILES, doing), measured_dtype(study, trials[0]))
    trial = next((t for t in trials if not list(changes(measured_hashes(study, t), hashes))), None)
    checks = [weights_check(study, trials, trial, hashes, f"{repository}@{sha}")]
    if trial is None:
        return Submission(repository, sha, "", checks, {}, "", "main", [])
    checks += [protocol_check(study, trial), dataset := dataset_check(study, trial)]
    if dataset.ok:
        checks.append(tier_check(study, trial, record))
    branch = _open_pull_request(api, repository) or "main"
    sha = _earlier_revision(api, repository, branch, hashes) or sha
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / FOLDER
        result, cut = write_publication(run, trial.subject, f"{repository}@{sha}", out, with_transcripts)
        checks.append(validity_check(result))
        measured = [cell.cell for cells in cells_of(study, trial).values() for cell in cells]
        published = Published(
            repository, sha, result, cut, hashes["weights_sha256"], last_day(measured), _dataset_commit(api, cut)
        )
        section = render_section(published)
        files = {
            f"{FOLDER}/{path.relative_to(out)}": path.read_bytes()
            for path in sorted(out.rglob("*.*"))
            if path.is_file()
        }
    files[CARD] = _card(api, branch, published, section)
    if in_dataset(published.entry["domain"]) and "right" in published.result.before:
        files[RESULTS] = eval_results_yaml(published).encode()
    with hub_errors(doing):
        there = api.list_repo_files(repository, revision=branch)
    stale = [path for path in there if path.startswith(f"{FOLDER}/") and path not in files]
    ready = all(check.ok for check in checks)
    return Submission(
        repository, sha, trial.subject, checks, files if ready else {}, section, branch, stale if ready else []
    )


def send(submission: Submission, api: "HfApi | None" = None) -> str | None:
    """Open the pull request, or bring the open one up to date; its address, or None where nothing changes.

    Raises UsageError for a submission that is not ready, ImmunobenchError where the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if not submission.ready:
        failed = next(check for check in submission.checks if not check.ok)
        raise UsageError(f"not submitted: {failed.finding}.")
    api = api or connect()
    repository, branch = submission.repository, submission.branch
    with hub_errors(f"submit to {repository}"), warnings.catch_warnings():
        # Cells are data and belong to the model that they measure.
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
        before = api.model_info(repository, revision=branch).sha
        made = api.create_commit(
            repository,
            operations=[
                *(CommitOperationAdd(path, content) for path, content in submission.files.items()),
                *(CommitOperationDelete(path) for path in submission.stale),
            ],
            commit_message=TITLE,
            commit_description="Made by `immunobench submit`. The folder holds what every figure is computed from.",
            revision=branch,
            create_pr=branch == "main",
        )
    if made.pr_url:
        return str(made.pr_url)
    if made.oid == before:
        return None
    return f"{api.endpoint}/{repository}/discussions/{branch.rpartition('/')[2]}"


def last_day(cells: Iterable[Cell]) -> str:
    """The day on which the last of ``cells`` was started, ISO 8601."""
    return max(str(cell.environment.get("started", ""))[:10] for cell in cells)


def _dataset_commit(api: "HfApi", record: Mapping[str, Any]) -> str | None:
    """The commit of the published dataset's version; None where it is not published or cannot be seen."""
    version = record["subjects"][0]["domain"]["version"]
    try:
        with hub_errors("look for the dataset"):
            return str(api.dataset_info(REPOSITORY, revision=f"v{version}").sha)
    except ImmunobenchError:
        return None


def _earlier_revision(api: "HfApi", repository: str, branch: str, hashes: Hashes) -> str | None:
    """The commit that a submission of the same weights on ``branch`` names, so that another one changes nothing."""
    doing = f"read the results of {repository}"
    with hub_errors(doing):
        if not api.file_exists(repository, f"{FOLDER}/study.json", revision=branch):
            return None
        commit = str(api.model_info(repository, revision=branch).sha)
    folder = fetch(api, repository, commit, [f"{FOLDER}/study.json", f"{FOLDER}/*/cell.json"], doing) / FOLDER
    try:
        record = json.loads((folder / "study.json").read_text())
        name = record["subjects"][0]["subject"]
        cell_id = next(entry["cell_ids"][0] for entry in record["cells"] if entry["model"] == name)
        measured = json.loads((folder / cell_id / "cell.json").read_text())["identity"]["subject"]
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
    there, _, revision = name.partition("@")
    return revision if (there, measured) == (repository, hashes) else None


def _card(api: "HfApi", branch: str, published: Published, section: str) -> bytes:
    """The repository's card with this study in it; a card of its own where there was none."""
    repository = published.repository
    with hub_errors(f"read the card of {repository}"):
        there = api.file_exists(repository, CARD, revision=branch)
        text = Path(api.hf_hub_download(repository, CARD, revision=branch)).read_bytes().decode() if there else ""
    text = insert_section(text or f"# {repository.partition('/')[2]}\n", section)
    return set_model_index(text, repository.partition("/")[2], model_index_entries(published)).encode()


def _open_pull_request(api: "HfApi", repository: str) -> str | None:
    """The reference of this user's open pull request with results; None where there is none, or nobody signed in."""
    try:
        with hub_errors("see who is signed in"):
            user = api.whoami()["name"]
    except ImmunobenchError:
        return None
    with hub_errors(f"list the pull requests of {repository}"):
        for discussion in api.get_repo_discussions(repository, author=user, discussion_status="open"):
            if discussion.is_pull_request and discussion.title == TITLE:
                return f"refs/pr/{discussion.num}"
    return None
