"""Per-token G-effects by one forward-mode pass against one backward pass a token, the same tokens and model.

    python benchmarks/g_effect.py [SUBJECT] [--tokens 256] [--backwards 256]

Two plain ways are timed: each backward through the graph of the whole batch, which must be kept, and, which is fairer,
each through a graph of the token's own example alone, built once an example. Prints a JSON record: CPU seconds of all
ways, both ratios, and the largest difference of the figures relative to the largest. ``--backwards`` below ``--tokens``
times and compares only that many evenly spaced tokens.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from immunobench.diagnostics.base import peak_memory
from immunobench.diagnostics.directional import TokenSet, derivatives, inner, parameter_groups, risk_gradient, token_set
from immunobench.domains import Domain, Example, load_domain
from immunobench.subjects import Subject, load_subject
from immunobench.training.batches import IGNORED, Batch
from immunobench.training.loop import token_logprobs

T = TypeVar("T")


def forget_tokens(subject: Subject, domain: Domain, count: int) -> TokenSet:
    """Answers to hazard requests, cut to exactly ``count`` scored tokens, in one batch."""
    requests = list(domain.requests_v)
    size = 1
    while len(token_set(subject, examples := [Example(r.prompt, r.answer) for r in requests[:size]])) < count:
        size += 1
    tokens = token_set(subject, examples, chunk=1 << 20)
    batch = tokens.batches[0]
    rows, columns = torch.where(batch.labels != IGNORED)
    labels = batch.labels.clone()
    labels[rows[count:], columns[count:]] = IGNORED
    return TokenSet([replace(batch, labels=labels)], tokens.sequences[:count], tokens.ids[:count])


def one_backward_a_token(
    subject: Subject, tokens: TokenSet, direction: dict[str, torch.Tensor], chosen: list[int]
) -> torch.Tensor:
    """⟨∇ log p_i, direction⟩ of the ``chosen`` tokens, each by a backward pass over the one graph of the batch."""
    batch = tokens.batches[0]
    logprobs = token_logprobs(subject, batch)[batch.labels != IGNORED]
    return torch.tensor([along(subject, logprobs[index], direction) for index in chosen])


def one_backward_an_own_token(
    subject: Subject, tokens: TokenSet, direction: dict[str, torch.Tensor], chosen: list[int]
) -> torch.Tensor:
    """The same, each backward over the graph of the token's own example, unpadded."""
    batch = tokens.batches[0]
    rows, columns = torch.where(batch.labels != IGNORED)
    found = []
    graphs: dict[int, torch.Tensor] = {}
    for row, column in zip(rows[chosen].tolist(), columns[chosen].tolist(), strict=True):
        if row not in graphs:
            graphs = {row: token_logprobs(subject, alone(batch, row))[0]}
        # Padding stands before: labels are counted from their end.
        found.append(along(subject, graphs[row][column - batch.labels.shape[1]], direction))
    return torch.tensor(found)


def alone(batch: Batch, row: int) -> Batch:
    """One example of a batch, without its padding."""
    start = int((batch.mask[row] == 0).sum())
    ids, mask = batch.ids[row : row + 1, start:], batch.mask[row : row + 1, start:]
    kept = min(batch.labels.shape[1], ids.shape[1] - 1)
    return Batch(ids, mask, batch.labels[row : row + 1, -kept:], int(mask.sum()))


def along(subject: Subject, logprob: torch.Tensor, direction: dict[str, torch.Tensor]) -> float:
    """⟨∇ of one log-probability, direction⟩ by a backward pass; the graph is kept."""
    parameters = dict(subject.model.named_parameters())
    gradients = torch.autograd.grad(logprob, list(parameters.values()), retain_graph=True)
    return inner(dict(zip(parameters, gradients, strict=True)), direction, list(parameters))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What ``work`` returns, and the CPU seconds of all threads: wall time on a shared machine says little."""
    started = time.process_time()
    return work(), time.process_time() - started


def main() -> None:
    """Time both ways and print the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", nargs="?", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--backwards", type=int, default=256)
    options = parser.parse_args()
    subject, domain = load_subject(options.subject), load_domain()
    tokens = forget_tokens(subject, domain, options.tokens)
    retain = token_set(subject, [Example(r.prompt, r.answer) for r in domain.benign_requests_v[:8]])

    direction, risk_seconds = timed(lambda: risk_gradient(subject, retain))
    forward, forward_seconds = timed(lambda: derivatives(subject, tokens, direction))

    chosen = torch.linspace(0, len(tokens) - 1, min(options.backwards, len(tokens))).long().tolist()
    scale = len(tokens) / len(chosen)
    backward, seconds = timed(lambda: one_backward_a_token(subject, tokens, direction, chosen))
    own, own_seconds = timed(lambda: one_backward_an_own_token(subject, tokens, direction, chosen))

    differences = [float((forward[chosen] - each).abs().max() / each.abs().max()) for each in (backward, own)]
    record = {
        "subject": subject.label,
        "tokens": len(tokens),
        "examples": tokens.batches[0].examples,
        "token_ids": tokens.batches[0].tokens,
        "groups": len(parameter_groups(subject)),
        "threads": torch.get_num_threads(),
        "forward_mode_seconds": round(forward_seconds, 2),
        "risk_gradient_seconds": round(risk_seconds, 2),
        "backwards_timed": len(chosen),
        "backward_over_the_batch_seconds": round(scale * seconds, 1),
        "backward_over_the_example_seconds": round(scale * own_seconds, 1),
        "speedup_over_the_batch": round(scale * seconds / forward_seconds, 1),
        "speedup_over_the_example": round(scale * own_seconds / forward_seconds, 1),
        "largest_relative_difference": max(differences),
        "peak_memory_mib": round(peak_memory(subject.device) / 2**20),
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
