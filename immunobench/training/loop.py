"""The training loop: examples and a recipe in, one optimizer step at a time out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional

from immunobench.domains import Example
from immunobench.errors import ImmunobenchError
from immunobench.rendering import Rendered
from immunobench.subjects import Subject
from immunobench.training.batches import IGNORED, Batch, endless, make_batch
from immunobench.training.optimizers import ScheduleFreeAdamW, optimizer
from immunobench.training.schedules import Course, schedule


@dataclass(frozen=True)
class Recipe:
    """How to train. Everything that changes the result is here or in the seed."""

    learning_rate: float
    steps: int
    batch_size: int = 16
    optimizer: str = "adamw"
    schedule: str = "constant"
    warmup: int = 0
    """Optimizer steps of warm-up."""
    weight_decay: float = 0.01
    max_gradient_norm: float | None = 1.0
    whole_text: bool = False
    """Loss on the whole text; on responses only by default."""
    period: int = 100
    """Optimizer steps between warm restarts, of the schedule 'sgdr'."""
    floor: float = 0.0
    """Where a cosine ends, as a share of the learning rate."""

    @property
    def course(self) -> Course:
        """What the schedule needs to know."""
        return Course(self.steps, self.warmup, self.period, self.floor)


class DivergedError(ImmunobenchError):
    """The loss or its gradient stopped being finite."""


@dataclass(frozen=True)
class Step:
    """The state after an optimizer step; step 0 is before any."""

    step: int
    examples: int
    """Examples seen so far, repeats counted."""
    tokens: int
    """Tokens seen so far."""
    loss: float
    """Loss of the last batch, NaN at step 0."""


class Counted(Protocol):
    """What the loop must know of a batch of any kind."""

    @property
    def examples(self) -> int: ...
    @property
    def tokens(self) -> int: ...


Loss = Callable[[Subject, Any], torch.Tensor]


def label_logits(subject: Subject, batch: Batch) -> torch.Tensor:
    """Logits that predict each label, float32; shape (examples, keep, vocabulary)."""
    keep = batch.labels.shape[1] + 1
    output = subject.model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        logits_to_keep=keep,
        use_cache=False,
    )
    logits: torch.Tensor = output.logits[:, :-1].float()
    return logits


def label_logprobs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-probability of each label by its logits, 0 where ignored; the shape of ``labels``."""
    loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return -loss.view_as(labels)


def token_logprobs(subject: Subject, batch: Batch) -> torch.Tensor:
    """Log-probability of each label under the subject, 0 where ignored; shape (examples, keep)."""
    return label_logprobs(label_logits(subject, batch), batch.labels)


def cross_entropy(subject: Subject, batch: Batch) -> torch.Tensor:
    """Mean negative log-probability over all labels of the batch."""
    return -token_logprobs(subject, batch).sum() / (batch.labels != IGNORED).sum()


def render(subject: Subject, examples: Sequence[Example]) -> list[Rendered]:
    """Examples as token ids. Raises ImmunobenchError where there are none."""
    if not examples:
        raise ImmunobenchError("there are no examples to train on: check the domain.")
    return [subject.renderer.example(example) for example in examples]


def train(
    subject: Subject,
    examples: Sequence[Example],
    recipe: Recipe,
    seed: int,
    parameters: Sequence[torch.nn.Parameter] | None = None,
    loss: Loss = cross_entropy,
) -> Iterator[Step]:
    """Train ``parameters`` (all by default) in place; yields before the first step and after each one.

    Between yields the model is in evaluation mode and may be probed. Dropout is never on, so that the
    curve of one run is the curve of the same weights that are probed. The seed sets the order of data.
    Raises DivergedError when the loss stops being finite.
    """
    batches = endless_batches(subject, examples, recipe, seed)
    yield from descend(subject, batches, recipe, loss, parameters)


def endless_batches(subject: Subject, examples: Sequence[Example], recipe: Recipe, seed: int) -> Iterator[Batch]:
    """Batches of ``examples`` without end, every epoch in a new order drawn from ``seed``.

    Raises ImmunobenchError where there are no examples.
    """
    rendered = render(subject, examples)
    for indices in endless(len(rendered), recipe.batch_size, seed):
        rows = [rendered[i] for i in indices]
        yield make_batch(rows, subject.tokenizer.pad_token_id, subject.device, recipe.whole_text)


def descend(
    subject: Subject,
    batches: Iterator[Counted],
    recipe: Recipe,
    loss: Loss,
    parameters: Sequence[torch.nn.Parameter] | None = None,
) -> Iterator[Step]:
    """The loop under :func:`train`, over batches from anywhere."""
    trained = list(subject.model.parameters() if parameters is None else parameters)
    for parameter in subject.model.parameters():
        parameter.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    stepper = optimizer(recipe.optimizer, trained, recipe.learning_rate, recipe.weight_decay)
    share = schedule(recipe.schedule)
    examples = tokens = 0
    yield Step(0, 0, 0, float("nan"))
    for step in range(recipe.steps):
        for group in stepper.param_groups:
            group["lr"] = recipe.learning_rate * share(step, recipe.course)
        if isinstance(stepper, ScheduleFreeAdamW):
            stepper.go_to_gradient_point()
        batch = next(batches)
        with torch.enable_grad(), subject.autocast():
            value = loss(subject, batch)
        if not torch.isfinite(value):
            raise DivergedError(f"the loss is {value.item()} after {step} steps: lower the learning rate.")
        value.backward()
        if recipe.max_gradient_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(trained, recipe.max_gradient_norm)
            if not torch.isfinite(norm):
                raise DivergedError(f"the gradient is {norm.item()} after {step} steps: lower the learning rate.")
        stepper.step()
        stepper.zero_grad(set_to_none=True)
        examples, tokens = examples + batch.examples, tokens + batch.tokens
        yield Step(step + 1, examples, tokens, value.item())
