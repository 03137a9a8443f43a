"""SNIP scores of all linears in one pass a batch, against one backward pass an example.

    python benchmarks/snip.py [SUBJECT] [--examples 16] [--batch 8] [--layers 3]

Two references: one backward pass an example for all layers at once, and one an example for every layer, which is how
the released code of Wei et al. (arXiv 2402.05162) goes about it; here it may leave out all gradients but that
layer's. Only ``--layers`` evenly spaced layers of the second are timed, and scaled up. Times are pairs, by the clock
and of the processor on one thread: a busy machine changes the first. A model of 50 million parameters and more runs in
bfloat16 both ways. Prints a JSON record with seconds, ratios, the largest difference of scores relative to the largest
score of their matrix, the share of the top 3 % of weights that both ways agree on, and the share of the machine's
matrix-product peak that is reached.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import matrix_peak, multiply_adds

from immunobench.attribution import snip_scores
from immunobench.attribution.inputs import scored_batches
from immunobench.attribution.ranking import ranks, top_share
from immunobench.domains import Example, load_domain
from immunobench.structure import matrix_of, weight_of
from immunobench.subjects import Subject, load_subject
from immunobench.training.batches import IGNORED


def one_backward_an_example(subject: Subject, examples: list[Example], names: list[str]) -> dict[str, torch.Tensor]:
    """|W| times the mean |gradient| over examples, for the linears in ``names``, as one would write it down."""
    linears = subject.structure.linears
    subject.model.requires_grad_(False)
    for name in names:
        weight_of(linears[name]).requires_grad_()
    totals = {name: torch.zeros_like(weight_of(linears[name])) for name in names}
    for example in examples:
        rendered = subject.renderer.example(example)
        ids = torch.tensor([rendered.prompt + rendered.response])
        labels = torch.tensor([[IGNORED] * len(rendered.prompt) + rendered.response])
        with subject.autocast():
            loss = subject.model(input_ids=ids, labels=labels).loss
        loss.backward()
        for name, total in totals.items():
            total += weight_of(linears[name]).grad.abs()
        subject.model.zero_grad()
    scores = {name: weight_of(linears[name]).detach().abs() * t / len(examples) for name, t in totals.items()}
    return {name: s if s.shape == matrix_of(linears[name]).shape else s.T for name, s in scores.items()}


def top_agreement(scores: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Share of the top 3 % of weights of each matrix that are so in both."""
    tops = [[top_share(ranks(side[name]), 0.03) for side in (scores, expected)] for name in scores]
    return sum(int((a & b).sum()) for a, b in tops) / sum(int(b.sum()) for _, b in tops)


def timed(run: Callable[[], Any]) -> tuple[Any, list[float]]:
    """What ``run`` returns, with its seconds by the clock and of the processor."""
    started = time.perf_counter(), time.process_time()
    found = run()
    return found, [time.perf_counter() - started[0], time.process_time() - started[1]]


def main() -> None:
    """Time all three and print the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", nargs="?", default="smollm2-135m")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    subject = load_subject(options.subject)
    examples = list(load_domain().unrelated[: options.examples])
    batches = list(scored_batches(subject, examples, options.batch))
    tokens = sum(batch.tokens for batch in batches)
    in_blocks, in_head = multiply_adds(subject, tokens, sum(batch.labels.numel() for batch in batches))
    snip_scores(subject, examples[:2], 2)

    scores, ours = timed(lambda: snip_scores(subject, examples, options.batch))
    expected, all_layers = timed(lambda: one_backward_an_example(subject, examples, list(scores)))
    blocks = subject.structure.blocks
    chosen = [int(i) for i in torch.linspace(0, len(blocks) - 1, options.layers)]
    _, some = timed(lambda: [one_backward_an_example(subject, examples, list(blocks[i].linears)) for i in chosen])
    every_layer = [seconds * len(blocks) / len(chosen) for seconds in some]

    difference = max(float((scores[n] - expected[n]).abs().max() / expected[n].max()) for n in scores)
    dtype = torch.bfloat16 if subject.autocasts else torch.float32
    record = {
        "subject": subject.label,
        "examples": len(examples),
        "tokens": tokens,
        "threads": 1,
        "seconds": [round(value, 2) for value in ours],
        "ratio_to_one_backward_an_example": [round(b / a, 2) for a, b in zip(ours, all_layers, strict=True)],
        "ratio_to_one_backward_an_example_and_layer": [round(b / a, 1) for a, b in zip(ours, every_layer, strict=True)],
        "largest_relative_difference": difference,
        "top_agreement": round(top_agreement(scores, expected), 4),
        "share_of_peak": round((6 * in_blocks + 4 * in_head) / ours[1] / matrix_peak(dtype), 2),
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
