"""The Defense protocol, and batches that go together in a step: what is forgotten with what is kept."""

import copy
import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol

import torch

from immunobench import defenses
from immunobench.domains import Domain, Example
from immunobench.errors import UsageError, unknown_name
from immunobench.subjects import Subject
from immunobench.training.batches import Batch, endless, make_batch
from immunobench.training.examples import benign_examples, hazard_examples
from immunobench.training.loop import Recipe, Step, cross_entropy, descend, render
from immunobench.training.objectives import Likelihoods, likelihoods


class Defense(Protocol):
    """A reference immunisation method: hyper-parameters in a frozen dataclass, one file a family."""

    name: ClassVar[str]
    """What the command line calls it."""

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Change the subject in place, yielding after every optimizer step."""
        ...

    @property
    def steps(self) -> int:
        """Optimizer steps that :meth:`immunise` takes."""
        ...


def all_defenses() -> dict[str, type[Any]]:
    """Every packaged defense by name: the classes with ``immunise`` in the files of this folder."""
    found: dict[str, type[Any]] = {}
    for module in pkgutil.iter_modules(defenses.__path__):
        contents = vars(importlib.import_module(f"{defenses.__name__}.{module.name}"))
        found |= {kind.name: kind for kind in contents.values() if hasattr(kind, "immunise") and hasattr(kind, "name")}
    return found


def load_defense(name: str, settings: Sequence[str] = ()) -> Defense:
    """The defense called ``name``, its hyper-parameters changed by ``settings`` such as 'steps=60'.

    Raises UsageError for an unknown name or hyper-parameter, and for a value that is not of its type or range.
    """
    found = all_defenses()
    if name not in found:
        # An organism may bear the whole name of what defends it, as gradient-ascent does.
        whole = {kind.__name__.lower(): short for short, kind in found.items()}
        if short := whole.get(name.replace("-", "").lower()):
            raise UsageError(f"unknown defense '{name}': did you mean '{short}'?")
        raise unknown_name("defense", name, found)
    known = {field.name: field for field in fields(found[name])}
    changed: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in known:
            raise unknown_name(f"hyper-parameter of {name}", key, known)
        try:
            changed[key] = _parse(text, known[key].default)
        except ValueError:
            raise UsageError(f"'{setting}': {key} takes no such value: its default is {known[key].default}.") from None
    defense: Defense = found[name](**changed)
    return defense


def _parse(text: str, default: Any) -> Any:
    """``text`` as a value of the type of ``default``; a tuple is written with commas.

    Raises ValueError, also for a number that is not finite, is below 0 where the default is not, or is a count of none.
    """
    if isinstance(default, tuple):
        return tuple(_parse(part, default[0]) for part in text.split(","))
    value = type(default)(text)
    least = 1 if isinstance(default, int) else 0
    if isinstance(value, int | float) and not (math.isfinite(value) and (default < least or value >= least)):
        raise ValueError
    return value


@dataclass(frozen=True)
class Sides:
    """One batch of each kind of data that a step needs, by name."""

    batches: Mapping[str, Batch]

    def __getitem__(self, name: str) -> Batch:
        return self.batches[name]

    @property
    def examples(self) -> int:
        """Examples of all of them."""
        return sum(batch.examples for batch in self.batches.values())

    @property
    def tokens(self) -> int:
        """Tokens of all of them."""
        return sum(batch.tokens for batch in self.batches.values())


def side_batches(
    subject: Subject, data: Mapping[str, Sequence[Example]], batch_size: int, seed: int, aligned: Sequence[str] = ()
) -> Iterator[Sides]:
    """Endless batches of ``batch_size`` examples of every kind in ``data``, each in its own order drawn from ``seed``.

    The kinds in ``aligned`` are equally long lists that belong together example by example, and share one order.
    """
    pad, device = subject.tokenizer.pad_token_id, subject.device
    rendered = {name: render(subject, examples) for name, examples in data.items()}
    places = {name: aligned[0] if name in aligned else name for name in data}
    orders = {
        name: endless(len(rendered[name]), batch_size, seed + list(data).index(place)) for name, place in places.items()
    }
    while True:
        yield Sides(
            {name: make_batch([rendered[name][i] for i in next(order)], pad, device) for name, order in orders.items()}
        )


def unlearn(
    subject: Subject,
    domain: Domain,
    recipe: Recipe,
    seed: int,
    forget: Callable[[Likelihoods], torch.Tensor],
    retain: float,
    reference: Subject | None = None,
    parameters: Sequence[torch.nn.Parameter] | None = None,
) -> Iterator[Step]:
    """Minimise ``forget`` (a scalar) on all hazard facts plus ``retain`` · NLL on the benign side, in place.

    Trains ``parameters``, all by default.
    """

    def loss(subject: Subject, sides: Sides) -> torch.Tensor:
        away = forget(likelihoods(subject, sides["forget"], reference))
        return away + retain * cross_entropy(subject, sides["retain"])

    data = {"forget": hazard_examples(domain), "retain": benign_examples(domain)}
    yield from descend(subject, side_batches(subject, data, recipe.batch_size, seed), recipe, loss, parameters)


@dataclass(frozen=True)
class Unlearning(ABC):
    """The defenses that :func:`unlearn`: each has a ``name`` and what it minimises on the hazard."""

    compares: ClassVar[bool] = False
    """Whether that is relative to the subject as it was."""
    learning_rate: float = 1e-5
    steps: int = 60
    batch_size: int = 16
    retain: float = 1.0

    @abstractmethod
    def forget(self, tokens: Likelihoods) -> torch.Tensor:
        """What is minimised of the hazard's tokens, shape ()."""

    @property
    def recipe(self) -> Recipe:
        """How it is minimised."""
        return annealed(self.learning_rate, self.steps, self.batch_size)

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Train in place on all hazard facts while keeping the benign side."""
        reference = frozen_copy(subject) if self.compares else None
        yield from unlearn(subject, domain, self.recipe, seed, self.forget, self.retain, reference)


def annealed(learning_rate: float, steps: int, batch_size: int, warmup: int | None = None) -> Recipe:
    """AdamW with ``warmup`` steps of linear warm-up (a twentieth by default), then half a cosine down to 0.

    What most defenses here train with, so that they differ in what they minimise.
    """
    return Recipe(learning_rate, steps, batch_size, schedule="cosine", warmup=steps // 20 if warmup is None else warmup)


def frozen_copy(subject: Subject) -> Subject:
    """The subject as it is now, for a method to compare with; it takes no gradients."""
    return replace(subject, model=copy.deepcopy(subject.model).requires_grad_(False))
