"""Trees of choices, and what their tokens see, against what each continuation alone would see."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from immunobench.engines.choice_tree import attention, choice_tree, positions

CHOICES = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), min_size=1, max_size=5)


@given(CHOICES)
def test_every_beginning_is_one_token_of_the_tree(choices: list[list[int]]) -> None:
    tree = choice_tree(choices)
    assert len(tree.tokens) == len({tuple(c[:end]) for c in choices for end in range(1, len(c))})
    for choice, path in zip(choices, tree.predictors, strict=True):
        assert len(path) == len(choice) and path[0] == 0
        for end, place in enumerate(path[1:], 1):
            assert [tree.tokens[i] for i in tree.lines[place - 1]] == choice[:end]


def test_places_see_their_own_past_only() -> None:
    """Two rows: a prompt of two tokens with a branching tree, and one of one token whose tree is empty."""
    trees = [choice_tree([[7, 8, 9], [7, 5, 9]]), choice_tree([[6]])]
    own = torch.tensor([[1, 1], [0, 1]])
    seen = attention(trees, own, begun=1, width=3)[:, 0].int().tolist()
    assert trees[0].tokens == [7, 8, 5]
    assert seen[0] == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0, 1],
    ]
    assert seen[1][:2] == [[1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0]]
    assert positions(trees, [10, 4], 3).tolist() == [[10, 11, 11], [0, 0, 0]]
