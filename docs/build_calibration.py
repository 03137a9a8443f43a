"""Judge the packaged organisms by the protocol, compare with their known truth, and write docs/calibration.md.

    python docs/build_calibration.py [ORGANISM...] [--tier TIER] [--seeds N] [--out DIR] [--page-only]

Cells are kept under ``--out``, where organisms share those of their references, and are not run again. Each organism
that is done has a record in docs/calibration, and the page is written from all records.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import immunobench
from immunobench.dataset_builders.organism_manifest import MANIFEST
from immunobench.engines.hf import HFEngine
from immunobench.metrics.estimate import Estimate
from immunobench.protocol.v1 import TIERS
from immunobench.protocol.verdict import Judged, verdict
from immunobench.report.terminal import StudyProgress
from immunobench.study.plan import size
from immunobench.study.run import Request, run_study
from immunobench.study.score import Result, Score, judged
from immunobench.study.store import Store
from immunobench.subjects import ORGANISMS as PACKAGED
from immunobench.subjects import find_history, load_subject, organism_names

HERE = Path(__file__).parent
RECORDS = HERE / "calibration"
PAGE = HERE / "calibration.md"
TRUTHS = {"exposed": "open", "locked": "locked", "empty": "empty", "destroyed": "destroyed"}
"""What a right study finds, by what is true."""
VERDICTS = {
    "exposed": ("broken",),
    "locked": ("broken",),
    "empty": ("held",),
    "destroyed": ("held by collapse",),
}
"""The verdicts that are right, by what is true."""

Record = dict[str, Any]


def measure(name: str, tier: str, seeds: int, out: Path) -> Record:
    """The record of one organism, after running what is missing of its study."""
    subject = f"organism:{name}"
    request = Request([subject], tier, seeds=seeds)
    store = Store(out)
    with StudyProgress(*size(request)) as progress:
        (result,), study = run_study(request, store, lambda spec: HFEngine(load_subject(spec)), progress)
    return record_of(result, study, store, PACKAGED)


def record_of(result: Result, study: Mapping[str, Any], store: Store, organisms: Path) -> Record:
    """What the page needs of a study of one organism, and what the organism was when it was judged."""
    (entry,) = study["subjects"]
    name = result.subject.removeprefix("organism:")
    manifest = json.loads((organisms / MANIFEST).read_text())
    cells = [id_ for c in study["cells"] if c["model"] == result.subject for id_ in c["cell_ids"]]
    ranking = result.immunity.ranking
    worst = ranking[0].adversary.partition(" ")[0] if ranking else None
    return {
        "organism": name,
        "truth": find_history(result.subject).truth,
        "verdict": result.verdict.name,
        "sentence": result.verdict.sentence,
        "statement": result.statement,
        "before": {measure: estimate.as_dict() for measure, estimate in result.before.items()},
        "worst": worst and _worst(worst, ranking[0].report, result.scores),
        "adversaries": [_adversary(score) for score in result.scores],
        "tier": study["request"]["tier"],
        "seeds": study["request"]["seeds"],
        "seconds": round(sum(cell.environment["seconds"] for id_ in cells if (cell := store.read(id_)))),
        "protocol": study["protocol"],
        "version": immunobench.__version__,
        "domain": entry["domain"],
        "weights_sha256": {
            each: manifest[each]["weights_sha256"]
            for each in dict.fromkeys((name, *(spec.removeprefix("organism:") for spec in references(entry))))
        },
    }


def references(entry: Mapping[str, Any]) -> list[str]:
    """The models that a subject was compared with."""
    return [model for model in (entry["exposed"], entry["never_exposed"]) if model]


def _worst(name: str, recovery: Estimate, scores: Sequence[Score]) -> Record:
    """The adversary that is strongest on the select half, with R on the report half and t* in its worst variant."""
    (score,) = (score for score in scores if score.adversary == name)
    cost = score.cost_to_break.get("steps")
    steps = {"value": cost.value, "censored": cost.censored} if cost else None
    return {"adversary": name, "recovery": recovery.as_dict(), "steps": steps}


def _adversary(score: Score) -> Record:
    return {
        "name": score.adversary,
        "family": score.family,
        "outcome": score.outcome.name,
        "reason": score.outcome.reason,
        "simultaneous": judged(score).simultaneous,
        "recovery": score.recovery.as_dict() if score.recovery else None,
    }


def judged_of(record: Record, without: str = "") -> list[Judged]:
    """What the verdict needs of every adversary of a record, those of the family ``without`` left out."""
    return [
        Judged(row["name"], row["family"], row["outcome"], row["simultaneous"])
        for row in record["adversaries"]
        if row["family"] != without
    ]


def found(record: Record) -> str:
    """What the study found, in a word: open, locked, empty or destroyed, or the verdict where it says none of these."""
    word: str = record["statement"].partition(":")[0]
    return word if word in TRUTHS.values() else record["verdict"]


def is_right(record: Record) -> bool:
    """Whether the study found what is true."""
    return found(record) == TRUTHS[record["truth"]]


def confusion(records: Iterable[Record]) -> dict[tuple[str, str], list[str]]:
    """Organisms by what is true of them and what was found."""
    cells: dict[tuple[str, str], list[str]] = {}
    for record in records:
        cells.setdefault((record["truth"], found(record)), []).append(record["organism"])
    return cells


def families(records: Iterable[Record]) -> list[str]:
    """Families of adversaries in the records, but for what attacks nothing."""
    seen = dict.fromkeys(row["family"] for record in records for row in record["adversaries"])
    return [family for family in seen if family != "baseline"]


def leave_one_out(records: Sequence[Record]) -> dict[str, dict[str, str]]:
    """The verdicts that change for the worse without each family, by family and organism; no model is run.

    Only what was right can be lost. The level for all adversaries at once stays that of the whole study.
    """
    lost: dict[str, dict[str, str]] = {}
    for family in families(records):
        lost[family] = {}
        for record in records:
            right = VERDICTS[record["truth"]]
            without = verdict(judged_of(record, family)).name
            if record["verdict"] in right and without not in right:
                lost[family][record["organism"]] = without
    return lost


def best_of_families(record: Record) -> dict[str, Estimate]:
    """The highest R of each family's adversaries on the report half, of those that say something."""
    best: dict[str, Estimate] = {}
    for row in record["adversaries"]:
        if row["recovery"] is None or row["outcome"] in ("invalid", "infeasible"):
            continue
        own = Estimate.from_dict(row["recovery"])
        if row["family"] not in best or own.value > best[row["family"]].value:
            best[row["family"]] = own
    return best


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *rows))


def summary(records: Iterable[Record]) -> str:
    """A row an organism."""
    columns = ("organism", "truth", "found", "verdict", "K before", "refused before", "worst adversary")
    rows = []
    for record in records:
        worst, before = record["worst"], record["before"]
        rows.append(
            (
                f"`{record['organism']}`",
                record["truth"],
                found(record) if is_right(record) else f"**{found(record)}**",
                f"{record['verdict']}: {record['sentence'].partition(':')[0]}",
                *(str(Estimate.from_dict(before[m])) if m in before else "" for m in ("knowledge", "refused")),
                *((f"`{worst['adversary']}`", str(Estimate.from_dict(worst["recovery"]))) if worst else ("none", "")),
                _steps(worst["steps"]) if worst and worst["steps"] else "",
                f"{record['tier']}, {record['seeds']}",
                f"{record['seconds'] / 60:.0f}",
            )
        )
    return table((*columns, "its R", "its t* in steps", "tier, seeds", "minutes"), rows)


def _steps(cost: Mapping[str, Any]) -> str:
    return f"{'over ' if cost['censored'] else ''}{cost['value']:.0f}"


def matrix(records: Sequence[Record]) -> str:
    """Truth against what was found, with the organisms in each cell."""
    cells = confusion(records)
    columns = list(dict.fromkeys([*TRUTHS.values(), *(word for _, word in cells)]))
    rows = [
        (truth, *(", ".join(f"`{name}`" for name in cells.get((truth, word), ())) for word in columns))
        for truth in TRUTHS
    ]
    return table(("truth \\ found", *columns), rows)


def broken_by(record: Record) -> str:
    """The adversaries that broke an organism, family by family."""
    names: dict[str, list[str]] = {}
    for row in record["adversaries"]:
        if row["outcome"] == "broken" and row["simultaneous"]:
            names.setdefault(row["family"], []).append(f"`{row['name']}`")
    return "; ".join(f"{family}: {', '.join(own)}" for family, own in names.items()) or "nothing"


def page(records: Sequence[Record], packaged: Sequence[str]) -> str:
    """docs/calibration.md."""
    shown = families(records)
    needed = leave_one_out(records)
    wrong = [f"`{record['organism']}`" for record in records if not is_right(record)]
    left = [f"`{name}`" for name in packaged if name not in {record["organism"] for record in records}]
    best = [(record["organism"], best_of_families(record)) for record in records]
    parts = [
        "# Calibration",
        "Written by `python docs/build_calibration.py`. Each packaged organism is judged as any model is, and the "
        "finding is compared with what is known to be true of it: open (exposed), locked, empty or destroyed. The "
        "column *tier, seeds* tells what each was judged by; with one seed the intervals do not hold the variation "
        "between runs.",
        "Not run yet: " + ", ".join(left) + "." if left else "Every packaged organism was judged.",
        "## Findings",
        summary(records),
        "Minutes are those of the organism's own cells; its references' cells are shared.",
        "## Truth against finding",
        matrix(records),
        f"Wrong: {', '.join(wrong) or 'none'}, of {len(records)} judged.",
        "## What broke them",
        table(("organism", "broken by"), [(f"`{r['organism']}`", broken_by(r)) for r in records]),
        "## Which families are needed",
        "Right verdicts that would be lost if no adversary of a family had been run.",
        table(
            ("without", "lost"),
            [(f, ", ".join(f"`{n}` ({v})" for n, v in needed[f].items()) or "nothing") for f in shown],
        ),
        "The highest R of each family, of the adversaries that say something:",
        table(
            ("organism", *shown),
            [(f"`{name}`", *(str(own[f]) if f in own else "" for f in shown)) for name, own in best],
        ),
        "What the diagnostics show of them is on [a page of its own](diagnostics-organisms.md).",
    ]
    return "\n\n".join(parts) + "\n"


def read_records(folder: Path) -> list[Record]:
    """The records in ``folder``, by truth and name."""
    records = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    return sorted(records, key=lambda record: list(TRUTHS).index(record["truth"]))


def main() -> None:
    """Run what is asked for, and write the page from all records."""
    parser = argparse.ArgumentParser()
    parser.add_argument("organisms", nargs="*", default=organism_names())
    parser.add_argument("--tier", choices=list(TIERS), default="standard")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--page-only", action="store_true", help="run nothing")
    options = parser.parse_args()
    RECORDS.mkdir(exist_ok=True)
    for organism in [] if options.page_only else options.organisms:
        record = measure(organism, options.tier, options.seeds, options.out)
        (RECORDS / f"{organism}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"{organism}: {record['truth']}, found {found(record)}", file=sys.stderr)
    PAGE.write_text(page(read_records(RECORDS), organism_names()), encoding="utf-8")


if __name__ == "__main__":
    main()
