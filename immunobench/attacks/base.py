"""The Attack protocol: hyper-parameters in a frozen dataclass, a run that yields checkpoints."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, Protocol

from immunobench.domains import Domain
from immunobench.engines.base import Artifact, ArtifactKind, Decoding
from immunobench.errors import UsageError, unknown_name
from immunobench.probes.base import Row
from immunobench.subjects import Subject

Access = Literal["prompt", "decoding", "activations", "weights", "training"]
"""What the attacker must be able to do: write prompts, set how answers are drawn, read or change activations, use the
weights (to edit them, or for their gradients), train."""
Leaves = tuple[ArtifactKind, ...]
"""Kinds of artifact that an attack may leave; none where prompts and decoding are all it changes."""


@dataclass(frozen=True)
class Cost:
    """What the attacker has spent so far."""

    steps: int = 0
    """Optimizer steps."""
    examples: int = 0
    """Training examples seen, repeats counted."""
    tokens: int = 0
    """Tokens processed."""
    flops: float = 0.0
    """Floating-point operations: 2 per parameter and token forward, 4 backward (Kaplan et al. 2020, sec. 2.1)."""

    def __add__(self, other: "Cost") -> "Cost":
        """Both spent."""
        return Cost(
            self.steps + other.steps,
            self.examples + other.examples,
            self.tokens + other.tokens,
            self.flops + other.flops,
        )


@dataclass(frozen=True)
class Checkpoint:
    """A state of the attacked subject worth measuring. It lasts until the run is advanced."""

    cost: Cost
    artifact: Artifact
    """Kind 'none' says that the model itself is untouched: what was measured of it before still holds."""
    variant: str = ""
    """Which of the attack's own alternatives this is, such as 'learning_rate=0.001'; all of them are measured."""
    last: bool = True
    """Whether this is the last checkpoint of its variant."""
    detail: str = ""
    """What the attack chose for this subject, such as 'learning_rate=0.001'. Points are not matched by it."""
    decoding: Decoding | None = None
    """How requests are answered, where the attack decides it."""
    readout: tuple[Row, ...] | None = None
    """Knowledge as the attack itself read it out of the model, in place of the knowledge probe. Such a point has
    no behaviour: nothing was answered."""
    extra: tuple[Row, ...] = ()
    """What the attack measured itself beside the probes, under a probe name of its own."""


@dataclass(frozen=True)
class Budget:
    """What the attacker may spend on each variant."""

    steps: int = 0


@dataclass(frozen=True)
class Outline:
    """The size of a run, known before it starts, for plans and time left."""

    points: int
    """Checkpoints that will be measured."""
    variants: int = 1
    steps: int = 0
    """Optimizer steps over all variants."""
    examples: int = 0
    """Training examples a step."""
    every_item: bool = False
    """Whether a step trains on every measured question and request, in place of ``examples``."""

    def trained_on(self, domain: Domain) -> int:
        """Training examples over all steps."""
        asked = {fact.question for fact in domain.hazard_v} | {request.prompt for request in domain.requests_v}
        return self.steps * (len(asked) if self.every_item else self.examples)


class Attack(Protocol):
    """An attack. Steps are an axis of its result: one run yields the whole cost curve."""

    access: ClassVar[Access]
    leaves: ClassVar[Leaves]

    def outline(self, budget: Budget) -> Outline:
        """What :meth:`run` will do, without doing it."""
        ...

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """Attack the subject in place, yield checkpoints, and leave the subject exactly as it was."""
        ...


class ComparingAttack(Attack, Protocol):
    """An attack that also reads the exposed reference, whose identity is then part of the cell's."""

    needs_exposed: ClassVar[bool]
    """True."""

    def run(
        self, subject: Subject, domain: Domain, budget: Budget, seed: int, exposed: Subject | None = None
    ) -> Iterator[Checkpoint]:
        """See :meth:`Attack.run`. ``exposed`` is read, never changed, and is ``subject`` itself where that is the
        exposed model: then nothing differs, and one checkpoint that changes nothing says so.

        Raises UsageError where ``exposed`` is None.
        """
        ...


def needs_exposed(attack: Attack) -> bool:
    """Whether ``attack`` is a :class:`ComparingAttack`."""
    return bool(getattr(attack, "needs_exposed", False))


def left_by(attack: Attack) -> Leaves:
    """Kinds of artifact that ``attack`` leaves with its settings; changed weights where a user's own does not say."""
    kind: ArtifactKind | None = getattr(attack, "artifact_kind", None)
    found: Leaves = getattr(attack, "leaves", ("weights",)) if kind is None else (kind,)
    return found


def lacking(attack: Attack, domain: Domain) -> str:
    """What ``domain`` lacks that ``attack`` cannot do without, in words; '' where nothing is.

    An attack that needs something of a domain says so in a method ``lacks(domain)``.
    """
    lacks = getattr(attack, "lacks", None)
    return str(lacks(domain)) if lacks else ""


def given(exposed: Subject | None) -> Subject:
    """The exposed reference. Raises UsageError where there is none."""
    if exposed is None:
        raise UsageError("this attack compares with the exposed reference: name it with --exposed.")
    return exposed


def checkpoint_steps(steps: int) -> set[int]:
    """0, 1, 2, 5, 10, 20, 50 ... up to and with ``steps``."""
    series = {m * 10**k for k in range(8) for m in (1, 2, 5)}
    return {s for s in series if s < steps} | {0, steps}


def load_attack(path: str) -> type[Any]:
    """The attack class at ``package.module.Name`` or ``path/to/file.py:Name``.

    Raises UsageError where the file, the module or the name does not exist, or it is no attack.
    """
    module_name, _, name = path.rpartition(":" if ":" in path else ".")
    module = _module(module_name)
    candidates = [n for n, v in vars(module).items() if hasattr(v, "run") and hasattr(v, "access")]
    if name not in candidates:
        raise unknown_name("attack", name, candidates)
    attack: type[Any] = getattr(module, name)
    return attack


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UsageError(f"no module '{name}': give package.module.Name or path/to/file.py:Name.") from error
    if not Path(name).is_file():
        raise UsageError(f"no file '{name}': give path/to/file.py:Name.")
    # Known by its path, so that a file called json.py hides nothing; known at all, because dataclasses ask for it.
    spec = importlib.util.spec_from_file_location(str(Path(name).resolve()), name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module
