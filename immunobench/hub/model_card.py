"""What a model's card says of a study: a section between markers, model-index entries, evaluation results.

Nothing else of the card is touched, and doing it again changes nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunobench.datasets import REPOSITORY
from immunobench.domains import PACKAGED
from immunobench.errors import ImmunobenchError
from immunobench.hub.publication import FOLDER
from immunobench.metrics.estimate import Estimate
from immunobench.study.score import Result

BEGIN, END = "<!-- immunobench:begin -->", "<!-- immunobench:end -->"
TEMPLATES = Path(__file__).parent.parent / "cards"
FRONT_MATTER = re.compile(r"\A(---[ \t]*\r?\n)(.*?)(^---[ \t]*(?:\r?\n|\Z))", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Published:
    """A scored study with what a card says beside its results."""

    repository: str
    revision: str
    """Commit of the weights that were measured."""
    result: Result
    record: Mapping[str, Any]
    """The study's record, cut to this subject."""
    weights_sha256: str
    date: str
    """Day of the last cell, ISO 8601."""
    dataset_revision: str | None
    """Commit of the published dataset, where it is known."""

    @property
    def entry(self) -> Mapping[str, Any]:
        """The subject's part of the record."""
        entry: Mapping[str, Any] = self.record["subjects"][0]
        return entry


def render_section(published: Published) -> str:
    """The section, without its markers."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False
    )
    entry = published.entry
    return environment.get_template("model_section.md.jinja").render(
        result=published.result,
        value=lambda estimate: f"{estimate.value:.2f}" if estimate and estimate.defined else "",
        zero="never-exposed reference" if entry["never_exposed"] else "unattacked model",
        tier=published.record["request"]["tier"],
        seeds=published.record["request"]["seeds"],
        protocol=published.record["protocol"],
        domain=entry["domain"],
        exposed=entry["exposed"],
        never_exposed=entry["never_exposed"],
        weights=published.weights_sha256,
        revision=published.revision,
        repository=published.repository,
        folder=FOLDER,
    )


def insert_section(card: str, section: str) -> str:
    """``card`` with ``section`` between the markers, which are put at its end where it has none.

    Raises ImmunobenchError for markers that are not one pair.
    """
    before, begin, rest = card.partition(BEGIN)
    inside, found, after = rest.partition(END)
    newline = "\r\n" if "\r\n" in (inside or card) else "\n"
    block = f"{BEGIN}\n{section.strip()}\n{END}".replace("\n", newline)
    if not begin and END not in card:
        gap = "" if not card else newline if card.endswith("\n") else 2 * newline
        return f"{card}{gap}{block}{newline}"
    if not found or BEGIN in inside or BEGIN in after or END in after or END in before:
        raise ImmunobenchError(f"the card's markers {BEGIN} and {END} are not one pair: remove them and submit again.")
    return f"{before}{block}{after}"


def set_model_index(card: str, name: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """``card`` with this benchmark's results in its model-index, those of others kept, all other lines as they are.

    ``entries`` are results in the form of the model-index. Raises ImmunobenchError for a header that is no YAML.
    """
    import yaml

    found = FRONT_MATTER.match(card)
    header = found[2] if found else ""
    try:
        data = yaml.safe_load(header) or {}
        index = [dict(one) for one in data.get("model-index") or [{"name": name}]]
        kept = [[r for r in one.get("results") or [] if r["dataset"]["type"] != REPOSITORY] for one in index]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ImmunobenchError(f"the card's header does not read ({type(error).__name__}): mend it first.") from error
    for one, results in zip(index, kept, strict=True):
        one["results"] = results
    index[0]["results"] = [*index[0]["results"], *entries]
    newline = "\r\n" if "\r\n" in card else "\n"
    text = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True, width=110)
    block = text.replace("\n", newline)
    before, after = _around_model_index(header)
    changed = f"{before}{block}{after}"
    if yaml.safe_load(changed) != {**data, "model-index": index}:
        raise ImmunobenchError("the card's model-index is written in a way that cannot be edited: write it as a block.")
    if found:
        return f"{found[1]}{changed}{found[3]}{card[found.end() :]}"
    return f"---{newline}{changed}---{newline}{newline if card else ''}{card}"


def _around_model_index(header: str) -> tuple[str, str]:
    """What stands before and after the model-index, or all and nothing where there is none.

    Its block goes on while lines are indented or items of a list; empty lines after it are not its own.
    """
    lines = header.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if re.match(r"model-index[ \t]*:", line)), len(lines))
    end = start + 1
    while end < len(lines) and lines[end][0] in " \t-\r\n":
        end += 1
    while end > start + 1 and end <= len(lines) and not lines[end - 1].strip():
        end -= 1
    return "".join(lines[:start]), "".join(lines[end:])


def in_dataset(domain: Mapping[str, Any]) -> bool:
    """Whether the domain of a study's record is the published dataset's own, which its tasks are about."""
    return domain["name"].partition("/")[0] in PACKAGED


def model_index_entries(published: Published) -> list[dict[str, Any]]:
    """The results in the form of a card's model-index."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    domain, before = published.entry["domain"], published.result.before
    figures = {
        "immunity": ("Immunity", published.result.immunity.estimate),
        "knowledge": ("K by log-probability of whole answers, 0 is chance, no attack", before.get("knowledge")),
        "utility": ("Utility on benign facts, no attack", before["utility"]),
        "refusal_rate": ("Hazard requests refused, no attack", before.get("refused")),
        "attack_success": ("Hazard requests answered right, no attack", before.get("right")),
    }
    results = [
        EvalResult(
            task_type="text-generation",
            task_name=f"immunobench {published.record['request']['tier']}: {published.result.verdict.name}",
            dataset_type=REPOSITORY,
            dataset_name=f"ImmunoBench {domain['name']} {domain['version']}",
            dataset_config="facts" if in_dataset(domain) else None,
            dataset_split="hazard_v" if in_dataset(domain) else None,
            dataset_revision=published.dataset_revision,
            metric_type=kind,
            metric_name=f"{name} ({_interval(estimate)})",
            metric_value=round(estimate.value, 4),
        )
        for kind, (name, estimate) in figures.items()
        if estimate is not None and estimate.defined
    ]
    entries: list[dict[str, Any]] = eval_results_to_model_index(published.repository, results)[0]["results"]
    return entries


def eval_results_yaml(published: Published) -> str:
    """The text of ``.eval_results/immunobench.yaml``: the task 'compliance' of the dataset's eval.yaml, unattacked.

    Its task 'knowledge' is answered by a letter, and K is read from the probability of whole answers: one number does
    not stand in for the other. K and what came of the attacks have no task there and stand in the notes.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    result, tier = published.result, published.record["request"]["tier"]
    knowledge, right = result.before.get("knowledge"), result.before.get("right")
    if right is None:
        return str(yaml.safe_dump([]))
    known = knowledge.value if knowledge is not None and knowledge.defined else None
    notes = [
        f"Share of requests answered right without an attack ({_interval(right)}).",
        *([f"By log-probability of whole answers K is {known:.2f}, 0 is chance."] if known is not None else []),
        f"Under attack (tier {tier}): {result.verdict.name}, immunity {result.immunity.estimate}.",
    ]
    entry = EvalResultEntry(
        dataset_id=REPOSITORY,
        task_id="compliance",
        value=round(right.value, 4),
        dataset_revision=published.dataset_revision,
        date=published.date,
        source_url=f"https://huggingface.co/{published.repository}/tree/main/{FOLDER}",
        source_name="immunobench cells",
        notes=" ".join(notes),
    )
    return str(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True, width=110))


def _interval(estimate: Estimate) -> str:
    return f"95 % interval {estimate.low:.2f} to {estimate.high:.2f}, n = {estimate.n}"
