"""The ranks of a linear that matter on given inputs, from the Gram matrix of these alone."""

import torch

NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest are noise of the squared problem that is solved."""


def left_singular(matrix: torch.Tensor, gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Left singular vectors and values of W·X, highest first, from W (out, in) and C = X·Xᵀ (in, in), float64.

    Shapes (out, min(out, in)) and (min(out, in),). The smaller of two symmetric eigenproblems is solved: that of
    W·C·Wᵀ, or with M = W·C^½ that of Mᵀ·M, whose eigenvectors v give M·v / σ. Vectors of outputs that the inputs
    never produce, which are arbitrary, are 0.
    """
    w = matrix.double()
    if w.shape[0] <= w.shape[1]:
        squares, left = torch.linalg.eigh(w @ gram @ w.T)
        singular = squares.clamp(min=0).sqrt()
    else:
        values, vectors = torch.linalg.eigh(gram)
        root = w @ (vectors * values.clamp(min=0).sqrt())
        squares, right = torch.linalg.eigh(root.T @ root)
        singular = squares.clamp(min=0).sqrt()
        left = root @ right / singular.clamp(min=torch.finfo(torch.float64).tiny)
    used = singular > NEGLIGIBLE * singular.max()
    return torch.where(used, left, 0.0).flip(1), torch.where(used, singular, 0.0).flip(0)


def projected_out(matrix: torch.Tensor, safety: torch.Tensor, utility: torch.Tensor) -> torch.Tensor:
    """W - (I - U_u·U_uᵀ)·U_s·U_sᵀ·W, from orthonormal columns U_s and U_u, shape (out, ranks); type of W out."""
    w = matrix.double()
    update = safety @ (safety.T @ w)
    return (w - update + utility @ (utility.T @ update)).to(matrix.dtype)


def outside(safety: torch.Tensor, utility: torch.Tensor) -> int:
    """Dimensions of the span of U_s that do not lie in that of U_u, (out, ranks) each, their columns orthonormal or 0.

    A direction counts whose sine with utility's span is above 1e-4: less is rounding of bases kept in float32.
    """
    rest = safety - utility @ (utility.T @ safety)
    return int((torch.linalg.eigvalsh(rest.T @ rest) > 1e-8).sum())
