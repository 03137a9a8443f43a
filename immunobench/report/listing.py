"""What there is to choose from, as rows for a table or JSON."""

import inspect
import pkgutil
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

Rows = list[dict[str, object]]


def adversaries() -> Rows:
    """Every adversary of the protocol, with what it trains in all; what a checkpoint has cost is stored with it."""
    from immunobench.attacks.base import left_by
    from immunobench.protocol.v1 import ADVERSARIES, TIERS

    rows: Rows = []
    for a in ADVERSARIES.values():
        outline = a.instance.outline(a.budget)
        examples = "all items" if outline.every_item else outline.examples
        rows.append(
            {
                "adversary": a.name,
                "family": a.family,
                "access": a.access,
                "steps": outline.steps,
                "examples a step": examples if outline.steps else 0,
                **_served(left_by(a.instance)),
                "tiers": " ".join(tier for tier, names in TIERS.items() if a.name in names),
                "source": a.source,
            }
        )
    return rows


def attacks() -> Rows:
    """Every packaged attack."""
    from immunobench import attacks as package

    rows: Rows = []
    for info in pkgutil.iter_modules(package.__path__):
        module = import_module(f"{package.__name__}.{info.name}")
        for name, kind in vars(module).items():
            if inspect.isclass(kind) and kind.__module__ == module.__name__ and hasattr(kind, "run"):
                access = getattr(kind, "access", None)
                if access is not None:
                    declared: Any = kind
                    served = _served(declared.leaves)
                    rows.append(
                        {"attack": f"{module.__name__}.{name}", "access": access} | served | {"is": _first_line(kind)}
                    )
    return rows


def datasets() -> Rows:
    """Every config of the packaged dataset."""
    from immunobench.datasets import read_manifest

    manifest = read_manifest()
    return [
        {
            "config": config,
            "version": manifest["version"],
            "splits": " ".join(f"{name}:{split['rows']}" for name, split in entry["splits"].items()),
        }
        for config, entry in manifest["configs"].items()
    ]


def defenses() -> Rows:
    """Every packaged defense."""
    from immunobench.defenses.base import all_defenses

    return [{"defense": name, "is": _first_line(kind)} for name, kind in all_defenses().items()]


def diagnostics() -> Rows:
    """Every packaged diagnostic."""
    from immunobench.diagnostics.base import all_diagnostics

    return [{"diagnostic": name, "is": _first_line(kind)} for name, kind in all_diagnostics().items()]


def domains() -> Rows:
    """Every domain: the packaged ones, and those that are made on this machine, where they are."""
    from immunobench.domains import BUILT, PACKAGED, built_folder, load_domain

    rows: Rows = []
    for name in (*PACKAGED, *BUILT):
        if name in BUILT and not built_folder(name).is_dir():
            rows.append({"domain": name, "hazard": f"not built: immunobench build domain {name}"})
            continue
        found = load_domain(name)
        measured, what = (found.hazard_v, "facts") if found.has_facts else (found.requests_v, "requests")
        whole = len(found.hazard) if found.has_facts else len(found.requests_t) + len(found.requests_v)
        rows.append({"domain": name, "hazard": f"{whole} {what}, {len(measured)} measured"})
    return rows


def sources() -> Rows:
    """Every public set that can be built on this machine."""
    from immunobench.dataset_builders.upstream import sources as public

    return [
        {"source": s.name, "from": s.url, "commit": s.revision[:12], "licence": s.licence, "gated": s.gated}
        for s in public().values()
    ]


def organisms() -> Rows:
    """Every packaged organism with what is known of it."""
    from immunobench.subjects import ORGANISMS, organism_names, read_history

    histories = {name: read_history(ORGANISMS / name) for name in organism_names()}
    return [{"organism": name, "truth": h.truth, "defense": h.defense or ""} for name, h in histories.items()]


LISTS: dict[str, Callable[[], Rows]] = {
    "adversaries": adversaries,
    "attacks": attacks,
    "datasets": datasets,
    "defenses": defenses,
    "diagnostics": diagnostics,
    "domains": domains,
    "organisms": organisms,
    "sources": sources,
}


def _served(leaves: Sequence[str]) -> dict[str, object]:
    """Kinds of artifact, and the engines that serve all of them."""
    from immunobench.engines.vllm_settings import NEEDS_PYTHON

    engines = ["hf"] if set(leaves) & set(NEEDS_PYTHON) else ["hf", "vllm"]
    return {"leaves": " ".join(leaves) or "none", "engines": " ".join(engines)}


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]
