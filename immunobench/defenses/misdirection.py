"""RMU: hazard states are steered to a random direction, benign ones are held where they were."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from immunobench.defenses.base import Sides, annealed, frozen_copy, side_batches
from immunobench.defenses.states import states
from immunobench.domains import Domain
from immunobench.errors import UsageError
from immunobench.structure import weight_of
from immunobench.subjects import Subject
from immunobench.training import Step
from immunobench.training.examples import benign_examples, hazard_examples
from immunobench.training.loop import descend
from immunobench.training.objectives import misdirection, steering_target


@dataclass(frozen=True)
class RepresentationMisdirection:
    """RMU (arXiv 2403.03218): mean (h − c·u)² on hazard + ``retain`` · mean (h − h_before)² on the benign side.

    h is the residual stream after block ``layer``, c is ``steering``, u a unit vector drawn by the seed. Trains the
    MLP outputs of that block and the two before it. The settings are those of the released Zephyr model.
    """

    name: ClassVar[str] = "rmu"
    learning_rate: float = 5e-5
    steps: int = 150
    batch_size: int = 4
    layer: int = 7
    steering: float = 6.5
    retain: float = 1200.0

    def immunise(self, subject: Subject, domain: Domain, seed: int) -> Iterator[Step]:
        """Train in place. Raises UsageError where the subject has no block ``layer``."""
        blocks = subject.structure.blocks
        if not 0 <= self.layer < len(blocks):
            raise UsageError(f"{subject.label} has blocks 0 to {len(blocks) - 1}: give --set layer=NUMBER.")
        reference = frozen_copy(subject)
        target = steering_target(subject.structure.hidden_size, self.steering, seed).to(subject.device)

        def loss(subject: Subject, sides: Sides) -> torch.Tensor:
            forget, retain = sides["forget"], sides["retain"]
            steered = states(subject, forget).residual[self.layer + 1][forget.mask.bool()]
            kept = states(subject, retain).residual[self.layer + 1][retain.mask.bool()]
            with torch.no_grad():
                before = states(reference, retain).residual[self.layer + 1][retain.mask.bool()].float()
            return misdirection(steered, target).mean() + self.retain * misdirection(kept, before).mean()

        data = {"forget": hazard_examples(domain), "retain": benign_examples(domain)}
        trained = [weight_of(block.mlp_out) for block in blocks[max(0, self.layer - 2) : self.layer + 1]]
        recipe = annealed(self.learning_rate, self.steps, self.batch_size)
        yield from descend(subject, side_batches(subject, data, self.batch_size, seed), recipe, loss, trained)
