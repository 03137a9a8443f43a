"""What was set for a study beside its subject, and where two studies differ in it, by severity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from immunobench.study.cell import Cell
from immunobench.study.difference import changes
from immunobench.study.environment import COMPARED

Severity = Literal["breaking", "serious", "minor"]
"""'breaking': figures mean different things; 'serious': it can change a figure; 'minor': it should change none."""
SEVERITIES: tuple[Severity, ...] = ("breaking", "serious", "minor")
Facets = Mapping[tuple[Severity, str], str]


@dataclass(frozen=True)
class Discrepancy:
    """Something beside the subject in which two studies differ."""

    severity: Severity
    what: str
    first: str
    second: str


def facets(cells: Sequence[Cell], tier: str) -> Facets:
    """All values of each setting over ``cells``."""
    found: dict[tuple[Severity, str], set[str]] = {("serious", "tier"): {tier}}

    def add(severity: Severity, what: str, value: Any) -> None:
        found.setdefault((severity, what), set()).add(str(value))

    for cell in cells:
        identity = cell.identity
        for what in ("protocol", "probes", "identity_version"):
            add("breaking", what, identity[what])
        for what in ("version", "fingerprint"):
            add("breaking", f"domain {what}", identity["domain"][what])
        for what, value in identity["engine"].items():
            add("serious", f"engine {what}", value)
        add("serious", "longest answer", identity["sampling"]["max_new_tokens"])
        add("serious", "seeds", identity["seed"])
        for what in COMPARED:
            add("minor", what, cell.environment.get(what, "unknown"))
    return {key: ", ".join(sorted(values)) for key, values in found.items()}


def differences(first: Facets, second: Facets) -> list[Discrepancy]:
    """Settings that are not alike, in the order of the first."""
    return [
        Discrepancy(*key, first.get(key, "none"), second.get(key, "none"))
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]


def adversary_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Discrepancy]:
    """Adversaries, identities by name, that one study lacks or that are set otherwise."""
    found = []
    for name in dict.fromkeys([*first, *second]):
        if name not in first or name not in second:
            run = [("run" if name in side else "not run") for side in (first, second)]
            found.append(Discrepancy("serious", f"adversary {name}", *run))
            continue
        found += [
            Discrepancy("serious", f"adversary {name} {change.path}", str(change.first), str(change.second))
            for change in changes(first[name], second[name])
        ]
    return found
