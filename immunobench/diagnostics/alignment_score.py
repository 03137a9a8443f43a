"""A user's own alignment set: how similar it is to the downstream tasks, and what a durability finding foretells."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from immunobench.diagnostics.base import Table
from immunobench.diagnostics.durability import BANDS, OUTCOMES, similarity_to, task_examples
from immunobench.domains import Example
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.metrics.durability import forecast
from immunobench.subjects import Subject


def read_alignment(file: Path) -> list[Example]:
    """The examples of a JSON Lines file, each line with 'prompt' and 'response'.

    Raises UsageError where there is no such file, ImmunobenchError where a line is not such an example.
    """
    if not file.is_file():
        raise UsageError(f"no file '{file}' to read an alignment set from.")
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            found.append(Example(str(row["prompt"]), str(row["response"])))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ImmunobenchError(
                f"line {number} of {file} is not a JSON object with 'prompt' and 'response'."
            ) from error
    if not found:
        raise ImmunobenchError(f"{file} holds no examples.")
    return found


def score_alignment_set(base: Subject, alignment: Sequence[Example], figures: Mapping[str, Any]) -> dict[str, Any]:
    """By task the set's similarity, by the base's own states, and the forecast of each outcome with its interval.

    ``figures`` are those of a durability finding, live or read from its JSON. The forecast is the line through the
    bands' runs; ``extrapolated`` says that the similarity lies outside that of the bands. Raises UsageError where the
    finding is of another base.
    """
    if figures["base_sha256"] != base.weights_sha256:
        raise UsageError(f"that durability finding is of {figures['base']}, with other weights than {base.spec}.")
    scores = {}
    for task, found in figures["tasks"].items():
        own = similarity_to(base, alignment, task_examples(task))
        runs = [run for run in found["runs"] if run["set"] in BANDS]
        seen = [run["own_similarity"] for run in runs]
        scores[task] = {
            "similarity": own,
            "extrapolated": not min(seen) <= own <= max(seen),
            **{outcome: forecast(seen, [run[outcome] for run in runs], own) for outcome in OUTCOMES},
        }
    return scores


def table(scores: Mapping[str, Any]) -> Table:
    """The scores for a reader."""
    rows = tuple(
        (task, s["similarity"], "no" if s["extrapolated"] else "yes", *(s[outcome] for outcome in OUTCOMES))
        for task, s in scores.items()
    )
    return Table(
        "What the bands' line foretells of one run of your alignment set (95 % prediction interval)",
        ("task", "similarity", "within the bands'", *OUTCOMES.values()),
        rows,
    )
