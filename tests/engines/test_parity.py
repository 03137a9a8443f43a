"""The canary with the transformers engine in the place of one that may serve something else."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from immunobench.activations import virtual_tokens
from immunobench.edits import restored
from immunobench.engines.base import Completion, NotServedError, Sampling
from immunobench.engines.hf import HFEngine
from immunobench.engines.parity import BOUNDS, Canary
from immunobench.rendering import PromptEdit
from immunobench.structure import weight_of
from immunobench.subjects import Subject

EXACT = BOUNDS["float32"]
Models = tuple[HFEngine, HFEngine]


@pytest.fixture
def models(make_subject: Callable[..., Subject]) -> Models:
    """The reference on the live model, and an engine that holds a copy of its own."""
    return HFEngine(make_subject()), HFEngine(make_subject())


@pytest.fixture
def nudge(models: Models) -> Iterator[Callable[[HFEngine, float], None]]:
    """Moves an engine's weights by so much, the same way each time; undone at the end."""

    def move(engine: HFEngine, size: float) -> None:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in engine.subject.model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * size)

    with restored(models[0].subject.model), restored(models[1].subject.model):
        yield move


def test_the_same_model_passes(models: Models) -> None:
    reference, engine = models
    found = Canary(reference, EXACT).check(engine, changed=False)
    assert found.passed and not found.reason
    assert found.agreement == 1 and found.regret == 0 and found.mean_difference == found.moved == 0
    assert found.tokens > 100


def test_another_model_fails(models: Models, make_subject: Callable[..., Subject]) -> None:
    found = Canary(models[0], EXACT).check(HFEngine(make_subject(seed=1)), changed=False)
    assert not found.passed and "mean difference" in found.reason
    assert found.agreement < 1 and found.regret > 0


def test_an_engine_that_followed_a_change_passes(models: Models, nudge: Callable[[HFEngine, float], None]) -> None:
    reference, engine = models
    canary = Canary(reference, EXACT)
    nudge(reference, 0.02)
    nudge(engine, 0.02)
    found = canary.check(engine, changed=True)
    assert found.passed and found.moved > EXACT.mean
    assert found.engine_moved == pytest.approx(found.moved) and found.followed == pytest.approx(1)


def test_an_engine_that_kept_the_old_weights_fails(models: Models, nudge: Callable[[HFEngine, float], None]) -> None:
    reference, engine = models
    canary = Canary(reference, EXACT)
    nudge(reference, 0.02)
    assert not canary.check(engine, changed=True).passed


def test_a_change_within_the_bounds_is_still_seen(models: Models, nudge: Callable[[HFEngine, float], None]) -> None:
    """What is too small to breach a bound is told by how far each of the two moved."""
    reference, engine = models
    canary = Canary(reference, EXACT)
    nudge(reference, 1e-4)
    found = canary.check(engine, changed=True)
    assert found.mean_difference < EXACT.mean and found.largest_difference < EXACT.largest
    assert not found.passed and "stale" in found.reason
    nudge(engine, 1e-4)
    assert canary.check(engine, changed=True).passed


def test_a_change_far_below_the_engines_own_noise_tells_nothing(
    models: Models, nudge: Callable[[HFEngine, float], None]
) -> None:
    reference, engine = models
    canary = Canary(reference, EXACT)
    nudge(engine, 1e-4)
    assert canary.check(engine, changed=False).passed
    nudge(reference, 1e-6)
    found = canary.check(engine, changed=True)
    assert 0 < found.moved < found.mean_difference / 10 and found.passed


NOISE = 0.046
"""Mean absolute noise of SmolLM2 in bfloat16, in nats a token."""


class Noisy:
    """An engine with the noise of bfloat16 kernels: the same each time, or drawn anew for other weights."""

    def __init__(self, engine: HFEngine) -> None:
        self.engine, self.generate, self.seed = engine, engine.generate, 1

    def logprobs(self, prompts: Sequence[list[int]], continuations: Sequence[list[int]]) -> list[torch.Tensor]:
        """What the engine says, with Gaussian noise."""
        generator = torch.Generator().manual_seed(self.seed)
        size = NOISE * (torch.pi / 2) ** 0.5
        return [
            o + size * torch.randn(o.shape, generator=generator) for o in self.engine.logprobs(prompts, continuations)
        ]


@pytest.mark.parametrize("size", [3e-4, 1e-3, 2e-3, 3e-3, 5e-3])
@pytest.mark.parametrize("drawn_anew", [False, True])
def test_a_stale_engine_is_caught_below_the_noise_of_bfloat16(
    models: Models, nudge: Callable[[HFEngine, float], None], size: float, drawn_anew: bool
) -> None:
    """Noise is far above these movements, and the bounds are wide: a stale engine passes all of them but the last."""
    reference, engine = models
    served = Noisy(engine)
    canary = Canary(reference, BOUNDS["bfloat16"])
    assert canary.check(served, changed=False).passed  # type: ignore[arg-type]
    nudge(reference, size)
    stale = canary.check(served, changed=True)  # type: ignore[arg-type]
    assert 0.005 < stale.moved < 0.15 and stale.mean_difference < BOUNDS["bfloat16"].mean
    assert not stale.passed and "stale" in stale.reason and stale.engine_moved == stale.followed == 0
    nudge(engine, size)
    served.seed += drawn_anew
    assert canary.check(served, changed=True).passed  # type: ignore[arg-type]


def test_an_engine_that_moved_elsewhere_fails_within_the_bounds(
    models: Models, nudge: Callable[[HFEngine, float], None]
) -> None:
    """Old weights and other noise: it moved as far as the model did, but not its way."""
    reference, engine = models
    served = Noisy(engine)
    canary = Canary(reference, BOUNDS["bfloat16"])
    assert canary.check(served, changed=False).passed  # type: ignore[arg-type]
    nudge(reference, 5e-3)
    served.seed += 1
    found = canary.check(served, changed=True)  # type: ignore[arg-type]
    assert found.moved > 2 * NOISE and not found.passed and "followed by" in found.reason, found


def test_what_came_in_another_way_is_not_held_against_later_scores(models: Models) -> None:
    reference, engine = models
    served = Noisy(engine)
    canary = Canary(reference, BOUNDS["bfloat16"])
    canary.check(served, changed=False)  # type: ignore[arg-type]
    served.seed = 2
    canary.check(served, changed=False, edit=PromptEdit())  # type: ignore[arg-type]
    served.seed = 1
    assert canary.check(served, changed=True).engine_moved == 0  # type: ignore[arg-type]


def test_a_soft_prompt_that_is_left_out_is_caught(models: Models) -> None:
    reference, engine = models
    canary = Canary(reference, BOUNDS["bfloat16"])
    embedding = reference.subject.structure.embedding
    first, width = weight_of(embedding).shape
    edit = PromptEdit(virtual=lambda _: range(first, first + 3))
    vectors = torch.randn(3, width, generator=torch.Generator().manual_seed(0))

    def without(ids: list[int]) -> list[int]:
        return [i for i in ids if i < first]

    with virtual_tokens(embedding, vectors):
        found = canary.check(reference, changed=False, edit=edit)
        assert found.passed and found.moved > 0.01 and found.followed == pytest.approx(1)
        stale = Other(engine, lambda prompts, sampling: engine.generate([without(p) for p in prompts], sampling))
        stale.logprobs = lambda prompts, rest: engine.logprobs([without(p) for p in prompts], rest)  # type: ignore
        found = canary.check(stale, changed=False, edit=edit)  # type: ignore[arg-type]
        assert not found.passed and found.engine_moved < 1e-5
    assert canary.check(engine, changed=False).passed


class Other:
    """An engine that answers in its own way and scores as the reference does."""

    def __init__(self, engine: HFEngine, answer: Callable[[Sequence[list[int]], Sampling], list[list[Completion]]]):
        self.logprobs, self.generate = engine.logprobs, answer


def test_wrong_greedy_answers_fail_though_the_scores_agree(models: Models) -> None:
    """A stale prefix cache shows in what is generated from it."""
    reference, engine = models

    def other(prompts: Sequence[list[int]], sampling: Sampling) -> list[list[Completion]]:
        return engine.generate([[*prompt[:-1], 9] for prompt in prompts], sampling)

    found = Canary(reference, EXACT).check(Other(engine, other), changed=False)  # type: ignore[arg-type]
    assert not found.passed and "regret" in found.reason and found.mean_difference == 0


def test_answers_that_end_too_early_fail(models: Models) -> None:
    reference, engine = models

    def shorter(prompts: Sequence[list[int]], sampling: Sampling) -> list[list[Completion]]:
        return [[Completion(c.ids[:3], "stop")] for [c] in engine.generate(prompts, sampling)]

    found = Canary(reference, EXACT).check(Other(engine, shorter), changed=False)  # type: ignore[arg-type]
    assert not found.passed and found.agreement == 0


def test_a_cache_that_was_not_emptied_fails(models: Models) -> None:
    reference, engine = models
    found = Canary(reference, EXACT).check(engine, changed=True, cache_reset=False)
    assert not found.passed and "prefix cache" in found.reason


def test_nan_of_the_engine_fails_and_of_the_model_cannot_be_compared(models: Models) -> None:
    reference, engine = models
    canary = Canary(reference, EXACT)
    with restored(engine.subject.model), torch.no_grad():
        next(engine.subject.model.parameters()).fill_(float("nan"))
        assert not canary.check(engine, changed=False).passed
    with (
        restored(reference.subject.model),
        torch.no_grad(),
        pytest.raises(NotServedError, match="not finite"),
    ):
        next(reference.subject.model.parameters()).fill_(float("nan"))
        canary.check(engine, changed=True)
