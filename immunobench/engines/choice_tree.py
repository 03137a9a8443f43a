"""The choices of a question as one sequence: every token that two of them begin with is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class ChoiceTree:
    """Continuations of one prompt as a tree of tokens. The last token of a continuation predicts nothing, so it is no
    part of the tree."""

    tokens: list[int]
    lines: list[list[int]]
    """For each token the places in ``tokens`` of it and of all before it in its continuation: what it attends to."""
    predictors: list[list[int]]
    """For each continuation where its tokens are predicted: 0 at the prompt's last token, i + 1 at token i."""


def choice_tree(continuations: Sequence[list[int]]) -> ChoiceTree:
    """The tree of ``continuations``, none of which is empty."""
    tokens: list[int] = []
    lines: list[list[int]] = []
    predictors = []
    places: dict[tuple[int, ...], int] = {(): 0}
    for continuation in continuations:
        path = [0]
        for end in range(1, len(continuation)):
            beginning = tuple(continuation[:end])
            if beginning not in places:
                lines.append([*(lines[path[-1] - 1] if path[-1] else []), len(tokens)])
                tokens.append(beginning[-1])
                places[beginning] = len(tokens)
            path.append(places[beginning])
        predictors.append(path)
    return ChoiceTree(tokens, lines, predictors)


def pad_trees(trees: Sequence[ChoiceTree], pad: int) -> torch.Tensor:
    """Tokens of each tree, filled up on the right, shape (trees, most tokens)."""
    return pad_sequence([torch.tensor(t.tokens, dtype=torch.long) for t in trees], batch_first=True, padding_value=pad)


def attention(trees: Sequence[ChoiceTree], own: torch.Tensor, begun: int, width: int) -> torch.Tensor:
    """Which places each place attends to, shape (trees, 1, places, ``begun`` + places), True where it does.

    A row's places are its left-padded prompt, whose real tokens ``own`` tells, shape (trees, longest prompt), and
    its tree, padded to ``width``. Before them lie ``begun`` places of a cache. A place of padding attends to itself,
    because a softmax over nothing is no number.
    """
    rows, longest = own.shape
    seen = torch.zeros(rows, longest + width, longest + width, dtype=torch.bool)
    seen[:, :, :longest] = own[:, None].bool().cpu()
    seen[:, :longest].logical_and_(torch.ones(longest, longest + width).tril().bool())
    at = [(r, longest + i, longest + j) for r, t in enumerate(trees) for i, line in enumerate(t.lines) for j in line]
    if at:
        seen[tuple(torch.tensor(at).T)] = True
    seen |= torch.eye(longest + width, dtype=torch.bool)
    return torch.cat([seen.new_ones(rows, longest + width, begun), seen], -1)[:, None].to(own.device)


def positions(trees: Sequence[ChoiceTree], lengths: Sequence[int], width: int) -> torch.Tensor:
    """Positions of the trees' tokens after prompts of ``lengths`` tokens, shape (trees, ``width``)."""
    found = torch.zeros(len(trees), width, dtype=torch.long)
    for row, (tree, length) in enumerate(zip(trees, lengths, strict=True)):
        found[row, : len(tree.tokens)] = torch.tensor([length + len(line) - 1 for line in tree.lines], dtype=torch.long)
    return found
