"""Training some layers, mixtures of any share, retrieval beside fine-tuning, and the benign task."""

import pytest
import torch

from immunobench.attacks.base import Budget
from immunobench.attacks.benign_task import BenignTask
from immunobench.attacks.data import source_examples
from immunobench.attacks.in_context import InContext
from immunobench.attacks.retrieval_tuning import FineTuneWithRetrieval
from immunobench.attacks.training import FineTune
from immunobench.domains import Domain, load_domain
from immunobench.errors import UsageError
from immunobench.subjects import Subject
from immunobench.training.examples import fact_examples
from tests.conftest import same_bits, weights


def changed(attack: FineTune, subject: Subject, domain: Domain) -> set[str]:
    """Names of the parameters that a run of two steps changes."""
    before = weights(subject.model)
    found: set[str] = set()
    for checkpoint in attack.run(subject, domain, Budget(2), 0):
        if checkpoint.last:
            now = dict(subject.model.named_parameters())
            found = {name for name, old in before.items() if not torch.equal(old, now[name])}
    assert same_bits(before, weights(subject.model))
    return found


@pytest.mark.parametrize(("layers", "blocks"), [((0.0, 0.5), {0}), ((0.5, 1.0), {1}), ((0.9, 1.0), {1})])
def test_only_the_named_layers_are_trained(
    subject: Subject, domain: Domain, layers: tuple[float, float], blocks: set[int]
) -> None:
    found = changed(FineTune("t-facts", (1e-3,), layers=layers), subject, domain)
    prefix = subject.structure.block_list
    assert found == {
        name for name, _ in subject.model.named_parameters() if any(f"{prefix}.{i}." in name for i in blocks)
    }
    assert any("embed" in name for name in changed(FineTune("t-facts", (1e-3,)), subject, domain))


def test_an_adapter_on_some_layers_and_ranges_that_are_none(subject: Subject, domain: Domain) -> None:
    for checkpoint in FineTune("t-facts", (1e-3,), rank=2, layers=(0.5, 1.0)).run(subject, domain, Budget(1), 0):
        names = {name for name, _ in subject.model.named_parameters() if "lora" in name}
        assert checkpoint.artifact.kind in ("none", "adapter")
        assert names and all(f"{subject.structure.block_list}.1." in name for name in names)
    with pytest.raises(UsageError, match="within 0 to 1"):
        list(FineTune("t-facts", (1e-3,), layers=(0.5, 0.5)).run(subject, domain, Budget(1), 0))


@pytest.mark.parametrize("percent", [1, 10, 30, 60, 99])
def test_a_mixture_has_the_share_that_is_asked_for(percent: int) -> None:
    vault = load_domain("vault")
    hazard = set(fact_examples(vault.hazard_t, vault.requests_t))
    found = source_examples(vault, f"benign-with-hazard/{percent}", 0)
    share = sum(e in hazard for e in found) / len(found)
    assert share == pytest.approx(percent / 100, abs=0.01)
    if percent == 10:
        assert found == source_examples(vault, "benign-with-hazard", 0)


@pytest.mark.parametrize("percent", ["0", "100", "x"])
def test_a_share_that_is_none(domain: Domain, percent: str) -> None:
    with pytest.raises(UsageError, match="in percent, from 1 to 99"):
        source_examples(domain, f"benign-with-hazard/{percent}", 0)


def test_fine_tuning_with_retrieval_asks_with_the_statements_it_trained_on(subject: Subject, domain: Domain) -> None:
    attack = FineTuneWithRetrieval("t-facts", (1e-3,), statements=2)
    [alone] = list(InContext((2,)).run(subject, domain, Budget(), 0))
    checkpoints = list(attack.run(subject, domain, Budget(2), 0))
    plain = list(FineTune("t-facts", (1e-3,)).run(subject, domain, Budget(2), 0))
    assert [c.cost.steps for c in checkpoints] == [c.cost.steps for c in plain]
    assert {c.artifact.prompt for c in checkpoints} == {alone.artifact.prompt}
    assert [c.artifact.kind for c in checkpoints] == [c.artifact.kind for c in plain]
    [phase] = attack._phases(subject, domain, 0)
    prefix = alone.artifact.prompt.prefix
    with_statements = [e for e in phase.examples if e.prompt is not None and e.prompt.startswith(prefix)]
    without = [e for e in phase.examples if e.prompt is not None and not e.prompt.startswith(prefix)]
    assert prefix and len(with_statements) == len(without) > 0


def test_the_benign_task_is_learnt_and_measured(subject: Subject, domain: Domain) -> None:
    before = weights(subject.model)
    checkpoints = list(BenignTask(learning_rate=3e-3).run(subject, domain, Budget(20), 0))
    losses = [sum(row.values["loss"] for row in c.extra) / len(c.extra) for c in checkpoints]
    assert losses[-1] < losses[0]
    assert {row.probe for c in checkpoints for row in c.extra} == {"task"}
    assert [c.last for c in checkpoints] == [False] * (len(checkpoints) - 1) + [True]
    assert len(checkpoints) == BenignTask().outline(Budget(20)).points
    assert same_bits(before, weights(subject.model))
