"""The LoRA training attack against transformers.Trainer with peft, on the same batches, adapters and losses.

    python benchmarks/lora_training.py [SUBJECT] [--steps 6] [--batch 8]

Once with the loss on whole texts and once on answers only; each side's fastest step after the first counts. Time is
that of the processor on one thread, so that neither start-up nor a busy machine decides. Also times the attack's cost
curve against the bare loop. Prints a JSON record with seconds a step, ratios, the largest difference of losses, and
the share of the machine's matrix-product peak that is reached.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from machine import matrix_peak, multiply_adds
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from immunobench.attacks.base import Budget
from immunobench.attacks.training import FineTune
from immunobench.domains import Example, load_domain
from immunobench.edits import low_rank_adapter
from immunobench.subjects import Subject, load_subject
from immunobench.training import Recipe
from immunobench.training.batches import IGNORED, Batch
from immunobench.training.loop import cross_entropy, descend, endless_batches

RANK, ALPHA, RATE = 16, 32, 1e-4
TEMPORARY = "/tmp/immunobench-trainer"


class Clock(TrainerCallback):
    """Notes when every step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        self.times.append(time.process_time())


def our_loop(subject: Subject, batches: list[Batch], recipe: Recipe) -> tuple[list[float], list[float]]:
    """Losses and the time each step ended."""
    with low_rank_adapter(subject.model, subject.structure.linears, RANK, ALPHA, seed=0) as parameters:
        steps = descend(subject, iter(batches), recipe, cross_entropy, parameters)
        found = [(step.loss, time.process_time()) for step in steps]
    return [loss for loss, _ in found[1:]], [at for _, at in found[1:]]


def trainer_loop(subject: Subject, batches: list[Batch], recipe: Recipe) -> tuple[list[float], list[float]]:
    """The same through transformers.Trainer, which takes each prepared batch as one item."""
    items = [
        {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            "position_ids": batch.positions,
            "labels": torch.nn.functional.pad(
                batch.labels, (batch.ids.shape[1] - batch.labels.shape[1], 0), value=IGNORED
            ),
        }
        for batch in batches
    ]
    clock = Clock()
    arguments = TrainingArguments(
        TEMPORARY,
        per_device_train_batch_size=1,
        max_steps=len(batches),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_gradient_norm,
        bf16=subject.autocasts,
        use_cpu=subject.device.type == "cpu",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
    )
    with low_rank_adapter(subject.model, subject.structure.linears, RANK, ALPHA, seed=0):
        trainer = Trainer(
            subject.model, arguments, train_dataset=items, data_collator=lambda rows: rows[0], callbacks=[clock]
        )
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], clock.times


def compare(subject: Subject, examples: list[Example], recipe: Recipe) -> dict[str, float]:
    """Both loops on the same batches."""
    endless: Iterator[Batch] = endless_batches(subject, examples, recipe, seed=0)
    batches = [next(endless) for _ in range(recipe.steps)]
    ours, theirs = our_loop(subject, batches, recipe), trainer_loop(subject, batches, recipe)
    fastest = [min(b - a for a, b in pairwise(times)) for _, times in (ours, theirs)]
    # Forward and backward through activations, 2 each a multiply-add; only positions with a label are unembedded.
    flops = 4.0 * sum(multiply_adds(subject, batches[0].tokens, batches[0].labels.numel()))
    return {
        "seconds_a_step": round(fastest[0], 3),
        "trainer_seconds_a_step": round(fastest[1], 3),
        "ratio": round(fastest[1] / fastest[0], 2),
        "largest_difference_of_losses": max(abs(a - b) for a, b in zip(ours[0], theirs[0], strict=True)),
        "share_of_peak": round(flops / fastest[0] / matrix_peak(_dtype(subject)), 2),
    }


def curve_overhead(subject: Subject, recipe: Recipe) -> float:
    """Time of the attack with all its checkpoints over that of the bare loop, the fastest of two each."""
    domain = load_domain()
    attack = FineTune("unrelated-8", (RATE,), rank=RANK, alpha=ALPHA, batch_size=recipe.batch_size)
    examples = list(domain.unrelated[:8])
    seconds: dict[str, list[float]] = {"curve": [], "bare": []}
    for _ in range(2):
        started = time.process_time()
        list(attack.run(subject, domain, Budget(recipe.steps), 0))
        seconds["curve"].append(time.process_time() - started)
        started = time.process_time()
        endless = endless_batches(subject, examples, recipe, seed=0)
        our_loop(subject, [next(endless) for _ in range(recipe.steps)], recipe)
        seconds["bare"].append(time.process_time() - started)
    return round(min(seconds["curve"]) / min(seconds["bare"]), 2)


def _dtype(subject: Subject) -> torch.dtype:
    return torch.bfloat16 if subject.autocasts else torch.float32


def main() -> None:
    """Time both ways and print the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", nargs="?", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    subject = load_subject(options.subject)
    # Examples of one length, so that every step does the same work and the fastest stands for all.
    rows = sorted(load_domain().unrelated, key=lambda e: len(subject.renderer.ids(f"{e.prompt}{e.response}")))
    examples = rows[len(rows) // 2 :][: options.batch]
    record: dict[str, Any] = {"subject": subject.label, "threads": 1}
    for name, whole in (("whole_text", True), ("answers_only", False)):
        record[name] = compare(subject, examples, Recipe(RATE, options.steps, options.batch, whole_text=whole))
    record["curve_over_bare_loop"] = curve_overhead(subject, Recipe(RATE, options.steps, options.batch))
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
