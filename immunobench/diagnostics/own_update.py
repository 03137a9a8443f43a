"""The G-effect of the update that made a subject: its parameters less those of the exposed model.

Read as one step −η∇L, an update Δ has ∇L = −Δ/η, so its G-effect on D is e = −⟨∇R(D), Δ⟩: the fall of the risk, to
first order. Taken along the straight line from the exposed model to the subject and averaged, it is the fall itself,
R(exposed) − R(subject), and so splits that exactly over parameter groups and tokens (integrated gradients, arXiv
1703.01365, over parameters). Below 0 the update forgot.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from immunobench.diagnostics.directional import (
    TokenSet,
    depth_groups,
    derivatives,
    float_parameters,
    inner,
    risk_gradient,
    values,
)
from immunobench.errors import UsageError
from immunobench.subjects import Subject

POINTS = 6
"""Points of the line that the mean is taken over (Gauss and Legendre's rule)."""


def own_update(
    subject: Subject, exposed: Subject, sets: Mapping[str, TokenSet], groups: Mapping[str, list[str]]
) -> dict[str, Any]:
    """For each of ``sets`` the effect of the update: total, by group, depth and token, and at each point of the line.

    ``by_token`` is the change of a token's log-probability divided by the number of tokens, so that it adds up to
    the total. ``actual`` is R(exposed) − R(subject) measured, which the total meets up to the quadrature's error.
    Raises UsageError where the two have different parameters.
    """
    start, end = float_parameters(exposed), float_parameters(subject)
    if {n: p.shape for n, p in start.items()} != {n: p.shape for n, p in end.items()}:
        raise UsageError(f"{exposed.spec} and {subject.spec} have different parameters: there is no update to read.")
    update = {name: end[name] - start[name].to(subject.device) for name in end}
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    found: dict[str, Any] = {}
    depths = depth_groups({group: [group] for group in groups})
    for key, tokens in sets.items():
        by_group = dict.fromkeys(groups, 0.0)
        by_token = torch.zeros(len(tokens), device=subject.device)
        path = []
        for share, weight in zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
            point = {name: end[name] - (1 - share) * update[name] for name in end}
            risk = risk_gradient(subject, tokens, at=point)
            parts = {group: -inner(risk, update, names) for group, names in groups.items()}
            path.append({"share": share, "effect": sum(parts.values())})
            for group, value in parts.items():
                by_group[group] += weight * value
            by_token += weight * derivatives(subject, tokens, update, at=point) / len(tokens)
        fall = values(subject, tokens).mean() - values(exposed, tokens).mean()
        found[key] = {
            "total": sum(by_group.values()),
            "actual": float(fall),
            "by_group": by_group,
            "by_depth": {name: sum(by_group[g] for g in joined) for name, joined in depths.items()},
            "by_token": by_token.tolist(),
            "path": path,
        }
    return found
