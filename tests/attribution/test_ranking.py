"""Ranks, top shares, set differences and singular vectors against plain definitions."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from immunobench.attribution.ranking import ranks, set_difference, top_share
from immunobench.attribution.singular import left_singular, outside, projected_out

SHARES = st.floats(0, 1)


@given(st.lists(st.integers(0, 5), min_size=12, max_size=12), SHARES)
def test_top_share_is_the_head_of_a_stable_sort(values: list[int], share: float) -> None:
    scores = torch.tensor(values, dtype=torch.float32).view(3, 4)
    order = sorted(range(12), key=lambda i: -values[i])
    expected = set(order[: round(share * 12)])
    found = top_share(ranks(scores), share)
    assert set(torch.where(found.flatten())[0].tolist()) == expected


@given(st.permutations(range(12)), st.permutations(range(12)), SHARES, SHARES)
def test_set_difference_is_one_of_sets(safety: list[int], utility: list[int], q: float, p: float) -> None:
    scores = [torch.tensor(v, dtype=torch.float32).view(4, 3) for v in (safety, utility)]
    tops = [{i for i in range(12) if 11 - values[i] < round(s * 12)} for values, s in ((safety, q), (utility, p))]
    found = set_difference(*map(ranks, scores), q, p)
    assert set(torch.where(found.flatten())[0].tolist()) == tops[0] - tops[1]


@given(st.sampled_from([(5, 9), (9, 5), (6, 6)]), st.integers(3, 40), st.integers(0, 99))
def test_singular_vectors_from_the_gram_matrix_are_those_of_the_product(
    shape: tuple[int, int], tokens: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = torch.randn(shape[1], tokens, generator=generator, dtype=torch.float64)
    left, singular, _ = torch.linalg.svd(w @ x, full_matrices=False)
    found, values = left_singular(w, x @ x.T)
    count = min(*shape, tokens)
    torch.testing.assert_close(values[:count], singular[:count], rtol=1e-6, atol=1e-6)
    for rank in range(1, count + 1):
        basis, expected = found[:, :rank], left[:, :rank]
        torch.testing.assert_close(basis @ basis.T, expected @ expected.T, rtol=1e-4, atol=1e-5)


def test_actsvd_is_the_best_approximation_taken_away() -> None:
    """Eckart & Young: Π·W·X is the truncated SVD of W·X, so what stays is its residual."""
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn(7, 10, generator=generator).double(), torch.randn(10, 50, generator=generator).double()
    left, singular, right = torch.linalg.svd(w @ x, full_matrices=False)
    basis = left_singular(w, x @ x.T)[0][:, :3]
    removed = projected_out(w, basis, basis[:, :0])
    expected = left[:, 3:] @ torch.diag(singular[3:]) @ right[3:]
    torch.testing.assert_close(removed @ x, expected, rtol=1e-8, atol=1e-8)


def test_orthogonal_projection_spares_utility_and_bounds_the_rank() -> None:
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(8, 12, generator=generator).double()
    xs, xu = (torch.randn(12, 60, generator=generator).double() for _ in range(2))
    safety, utility = left_singular(w, xs @ xs.T)[0][:, :3], left_singular(w, xu @ xu.T)[0][:, :5]
    edited = projected_out(w, safety, utility)
    torch.testing.assert_close(utility.T @ edited, utility.T @ w, rtol=1e-9, atol=1e-9)
    projector = torch.eye(8).double() - utility @ utility.T
    torch.testing.assert_close(edited, w - projector @ safety @ safety.T @ w, rtol=1e-9, atol=1e-9)
    assert torch.linalg.matrix_rank(w - edited) == outside(safety, utility) == 3


def test_what_both_use_is_not_counted_as_removed() -> None:
    """The rank of what is taken out of W, by its own singular values, whatever the bases share or leave empty."""
    generator = torch.Generator().manual_seed(2)
    w = torch.randn(9, 12, generator=generator).double()
    basis = torch.linalg.qr(torch.randn(9, 9, generator=generator).double()).Q
    for safety, utility, rank in (
        (basis[:, :4], basis[:, 2:6], 2),
        (basis[:, :4], basis[:, :0], 4),
        (basis[:, :3], basis, 0),
        (basis[:, :3] * torch.tensor([1.0, 1.0, 0.0]), basis[:, 5:], 2),
    ):
        taken = w - projected_out(w, safety, utility)
        assert outside(safety, utility) == torch.linalg.matrix_rank(taken, atol=1e-9) == rank
