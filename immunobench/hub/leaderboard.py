"""A page of published results, each computed again from its stored items; nothing that is claimed is copied."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from immunobench.errors import ImmunobenchError
from immunobench.hub.checks import dataset_check, protocol_check, subject_finding, tier_check
from immunobench.hub.client import connect, fetch, hub_errors, split_name
from immunobench.hub.publication import FOLDER, cells_of, load_publication, strangers_words
from immunobench.hub.stored import StoredChecks
from immunobench.study.conclusions import Study
from immunobench.study.request import Request, Trial
from immunobench.study.reread import rescore, trials_of
from immunobench.study.score import Result
from immunobench.study.store import Store
from immunobench.subjects import MODEL_FILES

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TEMPLATES = Path(__file__).parent.parent / "cards"


@dataclass(frozen=True)
class Row:
    """One model's published study."""

    model: str
    revision: str
    """Commit that the study was read at."""
    base_models: tuple[str, ...]
    """What the model's card declares it was made from."""
    result: Result
    seeds: int


@dataclass(frozen=True, order=True)
class Terms:
    """What two studies must have in common for their figures to be compared."""

    domain: str
    version: str
    fingerprint: str
    tier: str
    protocol: str
    exposed: str
    """Hash of the weights of the exposed reference, whatever it is called."""
    never_exposed: str
    """Of the never-exposed one; '' where the unattacked model stands in."""
    max_new_tokens: int
    """Longest answer."""
    implanted: bool
    """Whether the facts were put into an existing model."""


@dataclass(frozen=True)
class Group:
    """Studies on the same terms."""

    terms: Terms
    rows: Sequence[Row]
    """The most immune first, by the lower bound."""


@dataclass
class Leaderboard:
    """What was found."""

    groups: list[Group] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Models without a study that holds, with the reason."""
    weights: bool = True
    """Whether the weights that each repository holds were hashed."""


def collect(names: Iterable[str], api: "HfApi | None" = None, weights: bool = True) -> Leaderboard:
    """The published studies of ``names``: ORG/MODEL, ORG/MODEL@REVISION, or ORG for all of its models.

    Models that declare a base model stand beside those that do not. With ``weights``, every model is fetched and
    hashed, and left out where it is not the one that was measured. Raises UsageError for a name that is none,
    ImmunobenchError where the Hub cannot be read.
    """
    api = api or connect()
    board = Leaderboard(weights=weights)
    groups: dict[Terms, list[Row]] = {}
    for model, wanted in dict.fromkeys(_models(names, api)):
        try:
            terms, row = _read(model, wanted, api, weights)
        except ImmunobenchError as error:
            board.left_out.append((model, str(error)))
            continue
        groups.setdefault(terms, []).append(row)
    board.groups = [Group(terms, sorted(rows, key=rank)) for terms, rows in sorted(groups.items())]
    return board


def render(board: Leaderboard) -> str:
    """The page: one self-contained file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=True
    )
    return environment.get_template("leaderboard.html.jinja").render(board=board)


def _models(names: Iterable[str], api: "HfApi") -> Iterable[tuple[str, str | None]]:
    for name in names:
        if "/" in name:
            yield split_name(name)
            continue
        with hub_errors(f"list the models of {name}"):
            yield from [(model.id, None) for model in api.list_models(author=name)]


def _read(model: str, wanted: str | None, api: "HfApi", weights: bool) -> tuple[Terms, Row]:
    """A model's study, scored from its items. Raises ImmunobenchError where it does not hold."""
    doing = f"read {model}"
    with hub_errors(doing):
        info = api.model_info(model, revision=wanted)
    revision = str(info.sha)
    files = fetch(api, model, revision, [f"{FOLDER}/**", *(MODEL_FILES if weights else ())], doing)
    if not (files / FOLDER / "study.json").is_file():
        raise ImmunobenchError("it has no published study.")
    declared = getattr(info.card_data, "base_model", None) or []
    bases = (declared,) if isinstance(declared, str) else tuple(declared)
    with strangers_words():
        terms, result, seeds = _checked(model, files, weights)
    return terms, Row(model, revision, bases, result, seeds)


def _checked(model: str, files: Path, weights: bool) -> tuple[Terms, Result, int]:
    """Terms, result and seeds of the study in ``files``, which hold a whole tier of this very model."""
    study, request, record = load_publication(files / FOLDER)
    checker = StoredChecks(Store(files / FOLDER, read_only=True), record)
    for entry in record["cells"]:
        for cell_id in entry["cell_ids"]:
            state, finding = checker.check(cell_id, entry)
            if state != "same":
                raise ImmunobenchError(f"cell {cell_id}: {finding}.")
    [trial] = trials_of(record)
    for check in (protocol_check(study, trial), dataset_check(study, trial), tier_check(study, trial, record)):
        if not check.ok:
            raise ImmunobenchError(f"{check.finding}.")
    measured = cells_of(study, trial)[trial.subject, "none"][0].cell.identity
    state, finding = subject_finding(trial.subject, measured, model, files if weights else None)
    if state != "same":
        raise ImmunobenchError(f"{finding}.")
    [result] = rescore(study, record)
    return _terms(study, trial, request), result, request.seeds


def _terms(study: Study, trial: Trial, request: Request) -> Terms:
    cells = cells_of(study, trial)
    identity = cells[trial.subject, "none"][0].cell.identity
    domain = identity["domain"]

    def reference(name: str | None) -> str:
        return str(cells[name, "none"][0].cell.identity["subject"]["weights_sha256"]) if name else ""

    return Terms(
        domain=domain["name"],
        version=domain["version"],
        fingerprint=domain["fingerprint"],
        tier=request.tier,
        protocol=identity["protocol"],
        exposed=reference(trial.exposed),
        never_exposed=reference(trial.never_exposed),
        max_new_tokens=identity["sampling"]["max_new_tokens"],
        implanted=trial.implanted,
    )


def rank(row: Row) -> tuple[bool, float, str]:
    """Order of rows: the highest lower bound of immunity first, undefined ones last."""
    immunity = row.result.immunity.estimate
    return not immunity.defined, -immunity.low, row.model
