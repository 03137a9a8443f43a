"""Knowledge read from hidden states: scores of every choice at every layer, as rows like those of the probe."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from immunobench.activations import hidden_of
from immunobench.domains import Fact
from immunobench.errors import ImmunobenchError
from immunobench.metrics.knowledge import choices_correct
from immunobench.probes.base import Row
from immunobench.structure import Block
from immunobench.subjects import Subject

SUM_TOLERANCE = 0.02
"""Relative error up to which a block's output is the sum of its input and what its parts add: bfloat16's rounding."""


def chosen_layer(facts: Sequence[Fact], answers: Tensor) -> int:
    """The layer that answers best on the *select* half of ``facts``, the first of equals.

    ``answers`` is 1 where a layer is right, shape (facts, layers). Whatever is concluded rests on the *report* half.
    """
    select = torch.tensor([fact.half == "select" for fact in facts])
    return int(answers[select].mean(0).argmax())


def right(facts: Sequence[Fact], scores: Tensor) -> Tensor:
    """1 where the right choice beats every other, from scores of shape (facts, layers, choices)."""
    layers = scores.shape[1]
    of_facts = [choices_correct(own, [fact.answer] * layers) for fact, own in zip(facts, scores.tolist(), strict=True)]
    return torch.tensor(np.array(of_facts), dtype=torch.float32)


def rows(facts: Sequence[Fact], answers: Tensor, layer: int, **others: Tensor) -> tuple[Row, ...]:
    """A row for each fact: ``correct`` at ``layer``, ``correct_layer_L`` at every layer L, and ``others`` of shape
    (facts,) by name."""
    layers = [f"correct_layer_{i}" for i in range(answers.shape[1])]
    extra = {name: values.tolist() for name, values in others.items()}
    return tuple(
        Row(
            "knowledge",
            fact.id,
            fact.entity,
            fact.half,
            {"correct": own[layer], **dict(zip(layers, own, strict=True)), **{n: v[i] for n, v in extra.items()}},
        )
        for i, (fact, own) in enumerate(zip(facts, answers.tolist(), strict=True))
    )


def batches(subject: Subject, prompts: Sequence[list[int]], tokens: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Indices, left-padded ids and mask of batches of like length with at most ``tokens`` tokens."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    start = 0
    while start < len(order):
        longest = len(prompts[order[start]])
        batch = order[start : start + max(1, tokens // longest)]
        ids = torch.full((len(batch), longest), subject.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(batch):
            ids[row, longest - len(prompts[index]) :] = torch.tensor(prompts[index])
            mask[row, longest - len(prompts[index]) :] = 1
        yield batch, ids.to(subject.device), mask.to(subject.device)
        start += len(batch)


def backbone(subject: Subject, ids: Tensor, mask: Tensor) -> None:
    """A forward pass through all blocks, for what hooks record; one position is unembedded."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    subject.model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, use_cache=False)


@torch.no_grad()
def adders(subject: Subject) -> list[tuple[nn.Module, nn.Module]]:
    """For each block the modules whose outputs its attention and its MLP add to the residual stream.

    These are the parts themselves, or what their output passes through first: Gemma 2 and OLMo 2 norm it. Found by
    following the tensors of one short pass. Raises ImmunobenchError where a block's output is not its input and both
    outputs added up, as where they are scaled.
    """
    ids = torch.arange(4, device=subject.device)[None]
    blocks = subject.structure.blocks
    traces = [_Trace(block) for block in blocks]
    try:
        backbone(subject, ids, torch.ones_like(ids))
    finally:
        for trace in traces:
            trace.close()
    for trace in traces:
        if not trace.adds_up:
            raise ImmunobenchError(
                f"{type(trace.block.module).__name__} does not add the outputs of its parts to the residual stream as "
                "they are: its sites cannot be read."
            )
    return [(trace.modules[0], trace.modules[1]) for trace in traces]


class _Trace:
    """Follows what the two parts of a block return through the block's other modules."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.modules: list[nn.Module] = [block.attention, block.mlp]
        self._outputs: list[Tensor | None] = [None, None]
        self._stream: list[Tensor] = []
        self._handles = [child.register_forward_hook(self._passed) for child in block.module.children()]
        self._handles.append(block.module.register_forward_hook(self._ended))

    def _passed(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        hidden = hidden_of(output)
        for i, part in enumerate((self.block.attention, self.block.mlp)):
            output_so_far = self._outputs[i]
            if module is part:
                self._outputs[i] = hidden
            elif inputs and output_so_far is not None and inputs[0] is output_so_far:
                # Dropout changes nothing here, and some models send both parts through the same one.
                if not torch.equal(hidden, output_so_far):
                    self.modules[i] = module
                self._outputs[i] = hidden

    def _ended(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._stream = [inputs[0], hidden_of(output)]

    @property
    def adds_up(self) -> bool:
        """Whether the block's output is its input with both outputs added."""
        start, end = (tensor.float() for tensor in self._stream)
        total = start + sum(tensor.float() for tensor in self._outputs if tensor is not None)
        return bool((end - total).norm() <= SUM_TOLERANCE * end.norm())

    def close(self) -> None:
        """Take the hooks out."""
        for handle in self._handles:
            handle.remove()
