"""Fine-tuning: relearning on T facts, ten unrelated examples, benign data; full or through LoRA."""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline, checkpoint_steps
from immunobench.attacks.data import Phase, sub_field, training_data
from immunobench.attacks.learning_rates import best_rates
from immunobench.domains import Domain
from immunobench.edits import low_rank_adapter, restored
from immunobench.engines.base import Artifact, ArtifactKind
from immunobench.errors import UsageError
from immunobench.structure import Block
from immunobench.subjects import Subject
from immunobench.training import Recipe, Step
from immunobench.training.batches import Batch
from immunobench.training.loop import DivergedError, cross_entropy, descend, endless_batches


@dataclass(frozen=True)
class Trainable:
    """What a run trains."""

    parameters: Sequence[nn.Parameter] | None
    """None for all."""
    after_step: Callable[[], None] = lambda: None
    """Called after every optimizer step, before anything is measured."""


@dataclass(frozen=True)
class FineTune:
    """Fine-tunes on ``data`` (see :func:`training_data`) at each of ``learning_rates``.

    ``rank`` None trains all weights; else a LoRA of that rank and ``alpha`` on every block linear. With
    ``trial_steps``, the rates are a grid: each is tried for so many steps without a schedule, and the ``keep`` best for
    this subject get the full curve (see :func:`best_rates`); the cost of the trials is in the outline, not in the
    curves.
    A run that diverges ends its curve there. Ten unrelated examples and LoRA r = 128, α = 16: Łucki et al.
    (arXiv 2409.18025); T facts: Deeb & Roger (arXiv 2410.08827); optimizers, schedules, retain-then-forget and
    LoRA r = 16, α = 32: TAR (arXiv 2408.00761). Leaves changed weights or an adapter.
    """

    data: str
    learning_rates: tuple[float, ...]
    rank: int | None = None
    alpha: int = 32
    optimizer: str = "adamw"
    schedule: str = "constant"
    warmup: int = 0
    period: int = 100
    floor: float = 0.0
    batch_size: int = 16
    weight_decay: float = 0.01
    whole_text: bool = False
    trial_steps: int = 0
    keep: int = 1
    layers: tuple[float, float] = (0.0, 1.0)
    """Where in the depth, from the first block at 0 to the last at 1, blocks are trained. Less than all of them
    leaves embeddings, head and final norm alone."""
    access: ClassVar[Access] = "training"
    leaves: ClassVar[Leaves] = ("weights", "adapter")

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        variants = min(self.keep, len(self.learning_rates)) if self.trial_steps else len(self.learning_rates)
        points = len(checkpoint_steps(budget.steps)) * variants
        trials = self.trial_steps * len(self.learning_rates)
        return Outline(points, variants, budget.steps * variants + trials, self.batch_size)

    def lacks(self, domain: Domain) -> str:
        """See :func:`immunobench.attacks.base.lacking`."""
        field = self.data.partition("/")[2]
        if field and field not in {sub_field(fact.id) for fact in domain.hazard_t}:
            return f"a sub-field '{field}'"
        return "facts to choose a learning rate by" if self.trial_steps and not domain.has_facts else ""

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """The cost curve of every learning rate, one after another from the same start."""
        stops = checkpoint_steps(budget.steps)
        for variant, rate in self._rates(subject, domain, seed):
            recipe = self._recipe(rate, budget.steps)
            try:
                with closing(self._train(subject, domain, recipe, seed)) as steps:
                    for step in steps:
                        if step.step in stops:
                            artifact = Artifact(self.artifact_kind if step.step else "none")
                            cost = Cost(step.step, step.examples, step.tokens, self._flops(subject, step.tokens))
                            last = step.step == budget.steps
                            yield Checkpoint(cost, artifact, variant, last, f"learning_rate={rate:g}")
            except DivergedError:
                continue

    def _rates(self, subject: Subject, domain: Domain, seed: int) -> list[tuple[str, float]]:
        """Variants by name with their learning rates."""
        if not self.trial_steps:
            return [(f"learning_rate={rate:g}", rate) for rate in self.learning_rates]

        def trial(rest: Domain, rate: float, score: Callable[[], None]) -> None:
            # A trial may end before the schedule has warmed up, and would then choose a rate that is never reached.
            recipe = replace(self._recipe(rate, self.trial_steps), schedule="constant", warmup=0)
            for step in self._train(subject, rest, recipe, seed):
                if step.step == self.trial_steps:
                    score()

        rates = best_rates(subject, domain, self.learning_rates, self.keep, seed, trial)
        return [(f"learning_rate=chosen-{place}", rate) for place, rate in enumerate(rates, start=1)]

    def _recipe(self, rate: float, steps: int) -> Recipe:
        return Recipe(
            rate,
            steps,
            self.batch_size,
            self.optimizer,
            self.schedule,
            self.warmup,
            self.weight_decay,
            whole_text=self.whole_text,
            period=self.period,
            floor=self.floor,
        )

    def _train(self, subject: Subject, domain: Domain, recipe: Recipe, seed: int) -> Generator[Step, None, None]:
        """One run from the untouched subject, undone at its end."""
        batches = batches_of(subject, self._phases(subject, domain, seed), recipe, seed)
        with self._trainable(subject, domain, seed) as trainable:
            for step in descend(subject, batches, recipe, cross_entropy, trainable.parameters):
                if step.step:
                    trainable.after_step()
                yield step

    def _phases(self, subject: Subject, domain: Domain, seed: int) -> list[Phase]:
        """What to train on."""
        return training_data(domain, self.data, seed)

    @property
    def artifact_kind(self) -> ArtifactKind:
        """Changed weights, or an adapter."""
        return "weights" if self.rank is None else "adapter"

    @contextmanager
    def _trainable(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Trainable]:
        """What to train, put in and taken out again."""
        blocks = self._blocks(subject)
        if self.rank is None:
            chosen = None if blocks is None else [p for block in blocks for p in block.module.parameters()]
            with restored(subject.model, chosen):
                yield Trainable(chosen)
        else:
            names = [name for block in blocks or subject.structure.blocks for name in block.linears]
            with low_rank_adapter(subject.model, names, self.rank, self.alpha, seed) as parameters:
                yield Trainable(parameters)

    def _blocks(self, subject: Subject) -> list[Block] | None:
        """The blocks to train, at least one; None for the whole model. Raises UsageError for an empty range."""
        first, last = self.layers
        if not 0.0 <= first < last <= 1.0:
            raise UsageError(f"layers {first:g} to {last:g}: give a range within 0 to 1.")
        blocks = subject.structure.blocks
        if self.layers == (0.0, 1.0):
            return None
        start = min(int(first * len(blocks)), len(blocks) - 1)
        return blocks[start : max(start + 1, round(last * len(blocks)))]

    def _flops(self, subject: Subject, tokens: int) -> float:
        """Forward 2, backward through activations 2, and 2 for the gradients of trained weights."""
        return (6.0 if self.rank is None else 4.0) * subject.parameters * tokens


def batches_of(subject: Subject, phases: Sequence[Phase], recipe: Recipe, seed: int) -> Iterator[Batch]:
    """Batches of one phase after another, the last without end; each phase has its share of the recipe's steps.

    A share is of optimizer steps, rounded to whole ones; a batch is never larger than a phase's data.
    """
    for phase in phases[:-1]:
        steps = round(phase.share * recipe.steps)
        yield from itertools.islice(endless_batches(subject, phase.examples, recipe, seed), steps)
    yield from endless_batches(subject, phases[-1].examples, recipe, seed)
