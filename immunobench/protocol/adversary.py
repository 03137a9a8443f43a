"""A row of the protocol: an attack with its data, hyper-parameters and budget, and its identity."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from immunobench.attacks.base import Access, Attack, Budget, load_attack
from immunobench.errors import UsageError


@dataclass(frozen=True)
class Adversary:
    """One way in, completely specified."""

    name: str
    family: str
    """'baseline', 'prompt', 'decoding', 'activations', 'weights', 'training' or 'adaptive'."""
    attack: str
    """``package.module.Name`` or ``path/to/file.py:Name`` of the attack."""
    source: str
    """Paper or tool that the attack and its settings come from."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters that differ from the attack's defaults."""
    budget: Budget = Budget()
    search: Mapping[str, Any] | None = None
    """Of a winner of the adaptive search: how it was searched for, its budget included."""

    @cached_property
    def instance(self) -> Attack:
        """The attack, ready to run. Raises UsageError for an unknown attack or setting."""
        kind = load_attack(self.attack)
        try:
            attack: Attack = kind(**self.settings)
        except TypeError as error:
            raise UsageError(f"adversary '{self.name}': {error}.") from error
        return attack

    @property
    def access(self) -> Access:
        """What the attacker must be able to do."""
        access: Access = load_attack(self.attack).access
        return access

    def __getstate__(self) -> dict[str, Any]:
        """Without the attack: it is made anew where its code may first have to be loaded from a file."""
        return {name: value for name, value in vars(self).items() if name != "instance"}

    def identity(self) -> dict[str, Any]:
        """Everything that can change what the adversary does: every hyper-parameter, defaults included.

        The protocol's version stands for the code of packaged attacks; that of others is hashed.
        """
        identity = {
            "name": self.name,
            "attack": self.attack,
            "settings": asdict(self.instance),  # type: ignore[call-overload]
            "budget": asdict(self.budget),
        }
        if self.search is not None:
            identity["search"] = dict(self.search)
        module = type(self.instance).__module__
        if not module.startswith("immunobench."):
            file = Path(str(sys.modules[module].__file__))
            identity["code_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        return identity


def adversary_from(identity: Mapping[str, Any], family: str, source: str) -> Adversary:
    """The adversary whose :meth:`Adversary.identity` was stored as JSON, whatever the table of this version says."""
    return Adversary(
        name=identity["name"],
        family=family,
        attack=identity["attack"],
        source=source,
        settings={name: _frozen(value) for name, value in identity["settings"].items()},
        budget=Budget(**identity["budget"]),
        search=identity.get("search"),
    )


def _frozen(value: Any) -> Any:
    """JSON knows no tuples; attacks know no lists."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def fingerprint(identity: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON (sorted keys, no spaces, no NaN).

    Raises ValueError for NaN and TypeError for what JSON cannot hold.
    """
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
