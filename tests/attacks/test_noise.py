"""Noise has the size that it says, on every block linear and nowhere else."""

import pytest
import torch

from immunobench.attacks.base import Budget
from immunobench.attacks.noise import WeightNoise
from immunobench.domains import Domain
from immunobench.structure import matrix_of
from immunobench.subjects import Subject
from tests.conftest import weights


def test_its_deviation_is_scale_times_that_of_the_weight(subject: Subject, domain: Domain) -> None:
    linears = subject.structure.linears
    with torch.no_grad():
        for i, linear in enumerate(linears.values()):
            matrix_of(linear).mul_(1 + i)
    before, all_before = {name: matrix_of(m).detach().clone() for name, m in linears.items()}, weights(subject.model)
    draws = []
    for point in WeightNoise((0.1, 0.5)).run(subject, domain, Budget(), 0):
        scale = float(point.variant.removeprefix("scale="))
        noise = {name: matrix_of(m).detach() - before[name] for name, m in linears.items()}
        for name, drawn in noise.items():
            # Of n draws the standard deviation is known to a share of 1/sqrt(2n): n is 512 and more here.
            assert float(drawn.std()) == pytest.approx(scale * float(before[name].std()), rel=0.15)
            assert abs(float(drawn.mean())) < 5 * float(drawn.std()) / drawn.numel() ** 0.5
        others = {n: w for n, w in weights(subject.model).items() if n.removesuffix(".weight") not in linears}
        assert all(torch.equal(w, all_before[name]) for name, w in others.items())
        draws.append({name: drawn / scale for name, drawn in noise.items()})
    first, second = draws
    assert all(torch.allclose(first[name], second[name], atol=1e-4, rtol=1e-3) for name in first)


def test_the_seed_draws_it(subject: Subject, domain: Domain) -> None:
    name = next(iter(subject.structure.linears))
    linear, found = subject.structure.linears[name], []
    for seed in (0, 0, 1):
        for _ in WeightNoise((0.1,)).run(subject, domain, Budget(), seed):
            found.append(matrix_of(linear).detach().clone())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
