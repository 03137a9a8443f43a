"""Checks of one stored cell that need no model: is it what it says, and are its items those of its domain?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from immunobench.domains import Domain, load_domain
from immunobench.errors import ImmunobenchError
from immunobench.probes.behaviour import outcome
from immunobench.probes.collapse import CONTINUED
from immunobench.protocol.v1 import ADVERSARIES, VERSION
from immunobench.study.cell import Cell
from immunobench.study.difference import changes
from immunobench.study.execute import PROBES_VERSION
from immunobench.study.reproduce import State
from immunobench.study.store import Store

Finding = tuple[State, str]
Places = dict[str, tuple[str, str]]
"""Cluster and half by item."""


def is_protocol_s(identity: Mapping[str, Any]) -> bool:
    """Whether an adversary is a row of this protocol to the last setting, or was found by its adaptive search."""
    if identity.get("search") is not None:
        return bool(identity["attack"].startswith("immunobench.attacks."))
    row = ADVERSARIES.get(identity["name"])
    return row is not None and not list(changes(row.identity(), identity))


@dataclass
class StoredChecks:
    """Checks the cells of one study; remembers domains, and which weights a model's first cell was measured on."""

    store: Store
    record: Mapping[str, Any]
    """The study's record."""
    _domains: dict[str, Domain | str] = field(default_factory=dict)
    _weights: dict[str, Any] = field(default_factory=dict)

    def check(self, cell_id: str, entry: Mapping[str, Any]) -> Finding:
        """What is wrong with a cell that the record lists under ``entry``; the state 'same' where nothing is."""
        cell, damage = self.store.inspect(cell_id)
        if damage:
            return "differs", damage
        if cell is None:
            return "differs", "it is missing"
        if cell.status != "done":
            return "cannot be checked", "it failed when it was run"
        try:
            return (
                self._recorded(cell, entry)
                or self._versions(cell)
                or self._domain(cell)
                or self._items(cell)
                or ("same", "")
            )
        except (KeyError, TypeError, pa.ArrowInvalid) as error:
            return "differs", f"it does not read: {type(error).__name__} {error}"

    def _recorded(self, cell: Cell, entry: Mapping[str, Any]) -> Finding | None:
        identity = cell.identity
        for what, listed in (("adversary", entry["adversary"]), ("domain", entry["domain"])):
            if identity[what]["name"] != listed:
                return "differs", f"it is recorded under {what} {listed} and is of {identity[what]['name']}"
        if found := list(changes(self._weights.setdefault(entry["model"], identity["subject"]), identity["subject"])):
            return "differs", f"it is of another model than other cells of {entry['model']}: {found[0]}"
        return None

    def _versions(self, cell: Cell) -> Finding | None:
        identity = cell.identity
        for what, known in (("protocol", VERSION), ("probes", PROBES_VERSION)):
            if identity[what] != known:
                return "cannot be checked", f"{what} {identity[what]}, and known here is {known}"
        name = identity["adversary"]["name"]
        listed = dict(self.record["adversaries"][name])
        family, _ = listed.pop("family"), listed.pop("source")
        row = ADVERSARIES.get(name)
        if row and (found := next(changes(row.identity(), identity["adversary"]), None)):
            return "differs", f"adversary {name} is not the protocol's: {found}"
        if found := next(changes(listed, identity["adversary"]), None):
            return "differs", f"adversary {name} is not the one of the record: {found}"
        if row and family != row.family:
            return "differs", f"adversary {name} is recorded in family {family}, and is of {row.family}"
        return None

    def _domain(self, cell: Cell) -> Finding | None:
        named = cell.identity["domain"]
        domain = self._load(named["name"])
        if isinstance(domain, str):
            return "cannot be checked", domain
        if named["version"] != domain.version:
            return "cannot be checked", f"version {named['version']} of the domain, and here is {domain.version}"
        if named["fingerprint"] != domain.fingerprint:
            return "differs", f"no version {domain.version} of the domain has the fingerprint that it names"
        return None

    def _items(self, cell: Cell) -> Finding | None:
        domain = self._load(cell.identity["domain"]["name"])
        assert isinstance(domain, Domain)
        amiss = misplaced(self.store.items(cell.cell_id), cell, domain)
        if not amiss and (self.store.root / cell.cell_id / "transcripts.parquet").is_file():
            amiss = unlike_transcripts(self.store.items(cell.cell_id), self.store.transcripts(cell.cell_id), domain)
        return ("differs", amiss) if amiss else None

    def _load(self, name: str) -> Domain | str:
        if name not in self._domains:
            try:
                self._domains[name] = load_domain(name)
            except ImmunobenchError as error:
                self._domains[name] = f"its domain is not here: {error}"
        return self._domains[name]


def misplaced(items: pa.Table, cell: Cell, domain: Domain) -> str:
    """The first measure whose items are not exactly those of ``domain``, with their clusters and halves; '' if none."""
    groups: dict[tuple[int, str, str], Places] = {}
    columns = [items[name].to_pylist() for name in ("point", "probe", "measure", "item", "cluster", "half")]
    for point, probe, measure, item, cluster, half in zip(*columns, strict=True):
        groups.setdefault((point, probe, measure), {})[item] = (cluster, half)
    if sum(map(len, groups.values())) != items.num_rows:
        return "an item comes twice"
    places = _places(domain)
    for (point, probe, measure), found in groups.items():
        if found != places.get((probe, measure), places.get((probe, ""))):
            return f"{probe} {measure} at checkpoint {point} is not of the domain's items"
    measured = {(point, probe) for point, probe, _ in groups}
    always = [probe for probe in ("knowledge", "utility", "collapse") if places[probe, ""]]
    for record in cell.points:
        for probe in always:
            if (record.index, probe) not in measured:
                return f"{probe} at checkpoint {record.index} is missing"
    return ""


def _places(domain: Domain) -> dict[tuple[str, str], Places]:
    """Where items belong, by probe and measure; the measure '' stands for all others of the probe."""

    def place(rows: Sequence[Any]) -> Places:
        return {row.id: (row.entity, row.half) for row in rows}

    texts = [f"neutral-{i:04d}" for i in range(len(domain.neutral))]
    neutral = {text: (text, "report" if i % 2 else "select") for i, text in enumerate(texts)}
    return {
        ("knowledge", ""): place(domain.hazard_v),
        ("utility", ""): place(domain.benign_v),
        ("utility", "answer_loss"): place(domain.benign_requests_v),
        ("behaviour", ""): place(domain.requests_v),
        ("collapse", ""): neutral,
        ("collapse", "repetition"): dict(list(neutral.items())[:CONTINUED]),
    }


def unlike_transcripts(items: pa.Table, transcripts: pa.Table, domain: Domain) -> str:
    """The first request for a value whose stored answer is not what its measures say; '' where all agree."""
    requests = {request.id: request for request in domain.requests_v if request.value}
    columns = [items[name].to_pylist() for name in ("point", "probe", "measure", "item", "value")]
    shares = {
        (point, item, measure): value
        for point, probe, measure, item, value in zip(*columns, strict=True)
        if probe == "behaviour"
    }
    for row in transcripts.to_pylist():
        if row["item"] not in requests:
            continue
        found = outcome(requests[row["item"]], row["answer"])
        if not shares.get((row["point"], row["item"], found), 0) > 0:
            return f"the answer to {row['item']} at checkpoint {row['point']} is {found}, which its measures deny"
    return ""
