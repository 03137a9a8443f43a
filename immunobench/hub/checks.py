"""What must hold of a study that is offered to a repository or lies there; each check has a finding, passed or not."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from immunobench.domains import BUILT, PACKAGED, load_domain
from immunobench.errors import ImmunobenchError
from immunobench.hub.publication import cells_of
from immunobench.hub.stored import Finding, is_protocol_s
from immunobench.protocol.search import TRIALS
from immunobench.protocol.v1 import ADVERSARIES, TIERS, VERSION
from immunobench.study.conclusions import Study
from immunobench.study.difference import changes
from immunobench.study.doctor import Check
from immunobench.study.request import Trial, applicable
from immunobench.study.score import Result
from immunobench.subjects import load_subject

Hashes = Mapping[str, str]
LEAST_SEEDS = {"standard": 3, "full": 3}
"""Seeds that the protocol asks of a tier; one of every other."""


def subject_hashes(folder: Path, dtype: str) -> Hashes:
    """The hashes that a cell's identity holds of its subject, of the model in ``folder``."""
    subject = load_subject(str(folder), "cpu", dtype)
    return {
        "weights_sha256": subject.weights_sha256,
        "config_sha256": subject.config_sha256,
        "tokenizer_sha256": subject.tokenizer_sha256,
        "template_sha256": subject.renderer.template_sha256,
    }


def _identities(study: Study, trial: Trial) -> Iterator[Mapping[str, Any]]:
    for cells in cells_of(study, trial).values():
        for cell in cells:
            yield cell.cell.identity


def _first(study: Study, trial: Trial) -> Mapping[str, Any]:
    return cells_of(study, trial)[trial.subject, "none"][0].cell.identity


def measured_hashes(study: Study, trial: Trial) -> Hashes:
    """The hashes of the subject as it was measured."""
    hashes: Hashes = _first(study, trial)["subject"]
    return hashes


def measured_dtype(study: Study, trial: Trial) -> str:
    """The type of weights that the subject was measured in."""
    return str(_first(study, trial)["engine"].get("dtype", "auto"))


def weights_check(study: Study, trials: list[Trial], found: Trial | None, hashes: Hashes, where: str) -> Check:
    """The repository holds what one of the ``trials``, ``found``, was measured on."""
    if found:
        return Check("weights", True, f"{hashes['weights_sha256'][:16]} is what {where} holds and was measured")
    measured = ", ".join(f"{t.subject} {measured_hashes(study, t)['weights_sha256'][:16]}" for t in trials)
    return Check(
        "weights",
        False,
        f"{where} holds {hashes['weights_sha256'][:16]}, with other weights, tokenizer or template than were measured "
        f"({measured}): push the model that was measured, or run the study on {where}",
    )


def protocol_check(study: Study, trial: Trial) -> Check:
    """Every cell is of this protocol, and every adversary is its own to the last setting."""
    for identity in _identities(study, trial):
        if identity["protocol"] != VERSION:
            return Check("protocol", False, f"a cell is of protocol {identity['protocol']}, and known is {VERSION}")
        name = identity["adversary"]["name"]
        if not is_protocol_s(identity["adversary"]):
            return Check("protocol", False, f"adversary {name} is not that of protocol {VERSION}")
    return Check("protocol", True, f"every adversary is that of protocol {VERSION}")


def dataset_check(study: Study, trial: Trial) -> Check:
    """Every cell is of one version of a public domain."""
    domain = _first(study, trial)["domain"]
    if domain["name"].partition("/")[0] not in (*PACKAGED, *BUILT):
        return Check("dataset", False, f"the domain '{domain['name']}' is private: nobody could check the results")
    known = load_domain(domain["name"])
    same = all(
        (identity["domain"]["version"], identity["domain"]["fingerprint"]) == (known.version, known.fingerprint)
        for identity in _identities(study, trial)
    )
    found = f"{domain['name']} {domain['version']} {domain['fingerprint'][:16]}"
    return Check("dataset", same, found if same else f"{found} is no published version, known is {known.version}")


def tier_check(study: Study, trial: Trial, record: Mapping[str, Any]) -> Check:
    """All models have cells of every adversary of the tier that applies to the domain, with every seed."""
    tier, seeds = record["request"]["tier"], record["request"]["seeds"]
    if record["request"]["only"] or tier not in TIERS or record.get("not_run"):
        return Check("tier", False, "only some adversaries were run: run a whole tier, without --only")
    if seeds < (least := LEAST_SEEDS.get(tier, 1)):
        return Check("tier", False, f"{tier} takes {least} seeds, and this has {seeds}: run it with --seeds {least}")
    domain, search = load_domain(trial.domain), record.get("searches", {}).get(trial.subject)
    if tier == "full" and domain.has_facts and (search is None or search["trials"] < TRIALS):
        return Check("tier", False, f"the adaptive search of {TRIALS} trials is missing: run the tier to its end")
    wanted = [row.name for row in applicable([ADVERSARIES[name] for name in TIERS[tier]], domain)]
    wanted += search["winners"] if search else []
    for model, adversary, found in missing_seeds(study, trial, wanted, seeds):
        return Check("tier", False, f"{adversary} against {model} has {found} of {seeds} seeds: run it")
    return Check("tier", True, f"{tier}: {len(wanted)} adversaries, {seeds} seed{'s' if seeds > 1 else ''}")


def asked_check(study: Study, trial: Trial, record: Mapping[str, Any]) -> Check:
    """Every adversary that the study was asked for has its cells, but for those that it says failed or were left out.

    A study of one's own need not be of a whole tier; but what it was asked for may not vanish from it.
    """
    only, tier, seeds = (record["request"][key] for key in ("only", "tier", "seeds"))
    named = ["none", *only] if only else TIERS.get(tier, ())
    failed = {key[3] for key in study.failed if key[1:3] == (trial.domain, trial.exposed)}
    wanted = [name for name in named if name not in {*study.not_run, *failed}]
    if gone := [name for name in wanted if name not in study.rows]:
        return Check("adversaries", False, f"{', '.join(gone)} was asked for and is not in the record")
    packaged = applicable([ADVERSARIES[name] for name in wanted if name in ADVERSARIES], load_domain(trial.domain))
    for model, adversary, found in missing_seeds(study, trial, [row.name for row in packaged], seeds):
        return Check("adversaries", False, f"{adversary} against {model} has {found} of {seeds} seeds")
    return Check("adversaries", True, f"{len(wanted)} that were asked for")


def missing_seeds(study: Study, trial: Trial, adversaries: Sequence[str], seeds: int) -> Iterator[tuple[str, str, int]]:
    """(Model, adversary, seeds that are there) wherever these are not 0 to ``seeds`` - 1."""
    cells = cells_of(study, trial)
    for model in trial.models:
        for adversary in adversaries:
            found = {cell.cell.identity["seed"] for cell in cells.get((model, adversary), [])}
            if len(found) != seeds or found != set(range(len(found))):
                yield model, adversary, len(found)


def subject_finding(name: str, measured: Mapping[str, Any], repository: str, files: Path | None) -> Finding:
    """Whether a study of ``name``, with a cell of the identity ``measured``, is of the model of ``repository``.

    The weights in ``files`` are hashed; None believes the name.
    """
    if name.partition("@")[0] != repository:
        return "differs", f"the record is of {name}"
    if files is None:
        return "same", ""
    try:
        hashes = subject_hashes(files, measured["engine"].get("dtype", "auto"))
    except ImmunobenchError as error:
        return "cannot be checked", str(error)
    change = next(changes(measured["subject"], hashes), None)
    return ("differs", str(change)) if change else ("same", "")


def validity_check(result: Result) -> Check:
    """No adversary came to nothing because a cell failed or cannot be trusted."""
    invalid = [f"{s.adversary} ({s.outcome.reason})" for s in result.scores if s.outcome.name == "invalid"]
    return Check("validity", not invalid, f"invalid: {', '.join(invalid)}" if invalid else "no cell is invalid")
