"""Fine-tuning on a benign task, with the task's own loss: an attack nobody means, and a measure of trainability."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from immunobench import datasets
from immunobench.attacks.base import Access, Budget, Checkpoint, Cost, Leaves, Outline, checkpoint_steps
from immunobench.domains import Domain, Example
from immunobench.edits import restored
from immunobench.engines.base import Artifact
from immunobench.engines.hf import HFEngine
from immunobench.probes.base import Row
from immunobench.subjects import Subject
from immunobench.training import Recipe, train

PROBE = "task"
"""Probe under which the held-out loss of the task stands."""


@dataclass(frozen=True)
class BenignTask:
    """Fine-tunes on the downstream ``task`` and measures the loss on its held-out prompts at every checkpoint.

    Benign data alone may take a guardrail off; and a defense that is worth having leaves a model that learns such a
    task as fast as before: trainability, the fourth condition of Rosati et al. (arXiv 2402.16382). Leaves changed
    weights.
    """

    task: str = "qa"
    learning_rate: float = 3e-4
    batch_size: int = 16
    access: ClassVar[Access] = "training"
    leaves: ClassVar[Leaves] = ("weights",)

    def outline(self, budget: Budget) -> Outline:
        """See :class:`Attack`."""
        return Outline(len(checkpoint_steps(budget.steps)), 1, budget.steps, self.batch_size)

    def run(self, subject: Subject, domain: Domain, budget: Budget, seed: int) -> Iterator[Checkpoint]:
        """One cost curve."""
        rows = datasets.read_config("downstream", self.task)
        examples, held_out = (
            [Example(row["prompt"], row["response"]) for row in rows if row["part"] == part]
            for part in ("train", "test")
        )
        stops = checkpoint_steps(budget.steps)
        recipe = Recipe(self.learning_rate, budget.steps, self.batch_size)
        with restored(subject.model):
            for step in train(subject, examples, recipe, seed):
                if step.step in stops:
                    cost = Cost(step.step, step.examples, step.tokens, 6.0 * subject.parameters * step.tokens)
                    artifact = Artifact("weights" if step.step else "none")
                    last = step.step == budget.steps
                    yield Checkpoint(cost, artifact, last=last, extra=tuple(task_rows(subject, held_out)))


def task_rows(subject: Subject, examples: list[Example]) -> list[Row]:
    """One row an example: ``loss`` in nats a token of its answer."""
    rendered = [subject.renderer.example(example) for example in examples]
    losses = HFEngine(subject).logprobs([r.prompt for r in rendered], [r.response for r in rendered])
    return [
        Row(PROBE, f"task-{i:04d}", f"task-{i:04d}", "report" if i % 2 else "select", {"loss": -float(loss.mean())})
        for i, loss in enumerate(losses)
    ]
