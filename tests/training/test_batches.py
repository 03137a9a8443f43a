"""Batches: what is predicted, what is counted, and in what order."""

from collections import Counter
from itertools import islice, pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from immunobench.rendering import Rendered
from immunobench.training.batches import IGNORED, endless, make_batch, of_like_length

CPU = torch.device("cpu")
PAD = 0
IDS = st.lists(st.integers(1, 99), max_size=6)
EXAMPLES = st.lists(
    st.builds(Rendered, IDS, IDS).filter(lambda e: len(e.prompt) + len(e.response) > 1), min_size=1, max_size=5
)


@given(examples=EXAMPLES, whole_text=st.booleans())
def test_every_label_follows_its_own_prefix(examples: list[Rendered], whole_text: bool) -> None:
    """The label at the last k-th place is the token at the last k-th place of the row, or ignored."""
    batch = make_batch(examples, PAD, CPU, whole_text)
    keep = batch.labels.shape[1]
    for i, example in enumerate(examples):
        row = example.prompt + example.response
        assert batch.ids[i].tolist() == [PAD] * (batch.ids.shape[1] - len(row)) + row
        assert batch.mask[i].tolist() == [0] * (batch.ids.shape[1] - len(row)) + [1] * len(row)
        assert batch.positions[i, batch.ids.shape[1] - len(row) :].tolist() == list(range(len(row)))
        scored = row[1:] if whole_text or not example.prompt else example.response
        assert batch.labels[i].tolist() == [IGNORED] * (keep - len(scored)) + scored
    assert batch.tokens == sum(len(e.prompt) + len(e.response) for e in examples)
    assert batch.examples == len(examples)
    assert keep == max((batch.labels != IGNORED).sum(1).tolist())


def test_the_pad_token_may_be_the_end_token() -> None:
    """Labels go by place and not by id, so an end token is learnt even where it also pads."""
    end = 7
    batch = make_batch([Rendered([1], [2, end]), Rendered([1, 2, 3], [4, 5, end])], end, CPU)
    assert batch.labels.tolist() == [[IGNORED, 2, end], [4, 5, end]]
    assert batch.mask.tolist() == [[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]]


@given(count=st.integers(1, 12), size=st.integers(1, 14), seed=st.integers(0, 5), epochs=st.integers(1, 3))
def test_every_epoch_holds_every_example_once(count: int, size: int, seed: int, epochs: int) -> None:
    per_epoch = -(-count // size)
    batches = list(islice(endless(count, size, seed), per_epoch * epochs))
    for epoch in range(epochs):
        seen = [i for batch in batches[epoch * per_epoch : (epoch + 1) * per_epoch] for i in batch]
        assert Counter(seen) == Counter(range(count))
    assert all(0 < len(batch) <= size for batch in batches)


def test_the_seed_sets_the_order_and_epochs_differ() -> None:
    def order(seed: int) -> list[list[int]]:
        return list(islice(endless(20, 5, seed), 8))

    assert order(0) == order(0) != order(1)
    assert order(0)[:4] != order(0)[4:]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=100), st.integers(1, 20))
def test_batches_of_like_length_hold_every_text_once_and_no_length_between_those_of_another(
    lengths: list[tuple[int, int]], size: int
) -> None:
    texts = [Rendered([i] * prompt, [i] * response) for i, (prompt, response) in enumerate(lengths)]
    batches = of_like_length(texts, size)
    assert Counter(text.prompt[0] for batch in batches for text in batch) == Counter(range(len(texts)))
    assert len(batches) == -(-len(texts) // size) and all(len(batch) <= size for batch in batches)
    tokens = [[len(text.prompt + text.response) for text in batch] for batch in batches]
    spans = sorted((min(batch), max(batch)) for batch in tokens)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
