"""Edited weights against hooks, and directions planted in a model found again."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from immunobench.activations import changed
from immunobench.attacks.base import Budget
from immunobench.attacks.directional_ablation import (
    DifferenceAblation,
    RefusalAblation,
    mean_residuals,
    without_direction,
    without_own_directions,
)
from immunobench.attacks.refusal_direction import (
    FINALISTS,
    LARGEST_KL,
    Merit,
    Reader,
    ablated,
    find_refusal_direction,
    merit,
    refusal_tokens,
    select,
    tokens_after_request,
)
from immunobench.domains import Domain
from immunobench.errors import UsageError
from immunobench.subjects import Subject
from tests.fixtures_architectures import ARCHITECTURES, tiny

IDS = torch.tensor([[3, 9, 27, 81, 243, 5]])


def direction(seed: int = 0) -> torch.Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_orthogonalised_weights_equal_hooks(architecture: str, tokenizer: PreTrainedTokenizerFast) -> None:
    subject = tiny(architecture, tokenizer)
    untouched = subject.model(IDS).logits
    with ablated(subject, direction()):
        hooked = subject.model(IDS).logits
    with without_direction(subject, direction()):
        edited = subject.model(IDS).logits
    torch.testing.assert_close(edited, hooked, rtol=1e-4, atol=1e-4)
    assert (edited - untouched).abs().max() > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_block_writes_along_its_own_direction(architecture: str, tokenizer: PreTrainedTokenizerFast) -> None:
    subject = tiny(architecture, tokenizer)
    own = torch.stack([direction(1), direction(2)])
    seen = []

    def watch(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def note(hidden: torch.Tensor) -> torch.Tensor:
            seen.append((hidden.double() @ own[layer]).abs().max())
            return hidden

        return note

    blocks = subject.structure.blocks
    sites = [(m, watch(i)) for i, block in enumerate(blocks) for m in (block.attention_out, block.mlp_out)]
    with without_own_directions(subject, own), changed(sites):
        subject.model(IDS)
    assert len(seen) == 4 and max(seen) < 1e-4


def test_a_difference_planted_in_a_model_is_found_and_removed(
    make_subject: Callable[..., Subject], domain: Domain
) -> None:
    """A bias-like shift written by the last MLP: both copies agree again once its direction is ablated."""
    exposed, subject = make_subject(), make_subject()
    planted = direction()
    with torch.no_grad():
        out = subject.structure.blocks[1].mlp_out.weight
        out.add_(torch.outer(planted, torch.randn(out.shape[1], dtype=torch.float64)).to(out.dtype))
    examples = list(domain.unrelated[:4])
    found = mean_residuals(subject, subject, examples) - mean_residuals(exposed, subject, examples)
    assert found[0].norm() < 1e-6
    assert abs(torch.cosine_similarity(found[1], planted, dim=0)) > 0.999
    run = DifferenceAblation(calibration=8, depths=(1.0,)).run(subject, domain, Budget(), 0, exposed)
    assert next(run).variant == "layers=each"
    torch.testing.assert_close(
        planted.float() @ subject.structure.blocks[1].mlp_out.weight, torch.zeros(out.shape[1]), rtol=0, atol=1e-4
    )
    assert next(run).detail == "layer=1"
    with ablated(exposed, planted):
        expected = exposed.model(IDS).logits
    torch.testing.assert_close(subject.model(IDS).logits, expected, rtol=1e-3, atol=1e-3)
    run.close()  # type: ignore[attr-defined]


def test_the_exposed_model_itself_is_left_as_it_is(subject: Subject, domain: Domain) -> None:
    attack = DifferenceAblation()
    checkpoints = list(attack.run(subject, domain, Budget(), 0, subject))
    assert [c.artifact.kind for c in checkpoints] == ["none"] * attack.outline(Budget()).points
    assert len({c.variant for c in checkpoints}) == len(checkpoints)


def test_without_the_exposed_model_it_says_what_to_do(subject: Subject, domain: Domain) -> None:
    with pytest.raises(UsageError, match="--exposed"):
        next(DifferenceAblation().run(subject, domain, Budget(), 0))


def plant_refusal(subject: Subject, domain: Domain) -> torch.Tensor:
    """Make the model refuse exactly where the word that names the hazard's kind stands in a request.

    Block 0's MLP is silenced; its attention, made uniform, carries a mark from the embeddings of hazard words to
    the last position; the head turns the mark into the first token of a refusal.
    """
    model = subject.model
    width = subject.structure.hidden_size
    mark = torch.zeros(width)
    mark[5] = 1.0
    hazard = {i for r in domain.requests_t for i in subject.renderer.prompt(r.prompt)}
    benign = {i for r in domain.benign_requests_t for i in subject.renderer.prompt(r.prompt)}
    with torch.no_grad():
        for block in subject.structure.blocks:
            block.attention_out.weight.zero_()
            block.mlp_out.weight.zero_()
        embedding = model.get_input_embeddings().weight
        embedding[:, 5] = 0
        embedding[sorted(hazard - benign), 5] = 20.0
        embedding[sorted(benign - hazard), 5] = -20.0
        first = model.model.layers[0].self_attn
        first.q_proj.weight.zero_()
        first.v_proj.weight.zero_()
        first.v_proj.weight[0, 5] = 1.0
        first.o_proj.weight[5, 0] = 60.0
        head = model.get_output_embeddings().weight
        head.zero_()
        head[refusal_tokens(subject, domain.requests_t)[0], 5] = 20.0
    return mark


def test_a_refusal_planted_in_a_model_is_found_and_removed(subject: Subject, domain: Domain) -> None:
    mark = plant_refusal(subject, domain)
    found = find_refusal_direction(subject, domain, 6, 2, 5, seed=0)
    assert found.direction is not None, found.detail
    assert abs(torch.cosine_similarity(found.direction.float(), mark, dim=0)) > 0.9
    assert found.cost.tokens > 0 and found.cost.examples > 0
    token = refusal_tokens(subject, domain.requests_t)[0]
    prompt = torch.tensor([subject.renderer.prompt(domain.requests_v[0].prompt)])

    def refuses() -> float:
        return subject.model(prompt).logits[0, -1].softmax(-1)[token].item()

    assert refuses() > 0.9
    run = RefusalAblation(train=6, validation=2).run(subject, domain, Budget(), 0)
    assert next(run).artifact.kind == "weights"
    assert refuses() < 0.1
    run.close()  # type: ignore[attr-defined]
    assert refuses() > 0.9


def test_merits_are_ordered_by_both_filters_and_then_by_bypass() -> None:
    good, better = Merit(-1.0, 1.0, 0.01), Merit(-2.0, 1.0, 0.01)
    no_induce, no_harmless, neither = Merit(-9.0, -1.0, 0.01), Merit(-9.0, 1.0, 0.5), Merit(-9.5, -1.0, 0.5)
    found = sorted([neither, no_harmless, no_induce, good, better], key=lambda each: each.order)
    assert found == [better, good, no_induce, neither, no_harmless]
    assert [each.passes for each in found] == [True, True, False, False, False]


def test_all_three_criteria_choose_among_all_candidates(subject: Subject, domain: Domain) -> None:
    """Behind ten directions that turn refusal off and not on, and one that changes harmless answers, stands the right
    one; by bypass it is the last of all."""
    mark = plant_refusal(subject, domain).double()
    other = torch.zeros_like(mark)
    other[6] = 1.0
    with torch.no_grad():
        # Harmless answers rest on dimension 6, and dimension 7 keeps the final norm the same for all.
        embedding, head = subject.model.get_input_embeddings().weight, subject.model.get_output_embeddings().weight
        embedding[:, 6], embedding[:, 7] = 10.0, 100.0
        head[refusal_tokens(subject, domain.requests_t)[0], 5] = 100.0
        head[50, 6] = 13.0
    reader = Reader(subject, refusal_tokens(subject, domain.requests_t))
    harmful = [subject.renderer.prompt(r.prompt) for r in domain.requests_t[:4]]
    harmless = [subject.renderer.prompt(r.prompt) for r in domain.benign_requests_t[:4]]
    candidates = 60 * torch.stack([*[-mark] * (FINALISTS + 2), mark + 0.3 * other, mark])[None]
    before = reader.logprobs(harmless)
    wrong, harmful_one, right = (merit(reader, candidates[0, i], 1, harmful, harmless, before) for i in (0, -2, -1))
    assert harmful_one.bypass < right.bypass == wrong.bypass < 0
    assert wrong.induce < 0 < right.induce and max(right.kl, wrong.kl) < LARGEST_KL < harmful_one.kl
    found = select(reader, candidates, harmful, harmless)
    assert found.direction is not None and torch.equal(found.direction, candidates[0, -1])
    assert "passes both filters" in found.detail


def test_a_subject_that_never_refuses_is_left_as_it_is(subject: Subject, domain: Domain) -> None:
    with torch.no_grad():
        subject.model.get_output_embeddings().weight[refusal_tokens(subject, domain.requests_t)] = 0
    checkpoint = next(RefusalAblation().run(subject, domain, Budget(), 0))
    assert checkpoint.artifact.kind == "none" and "refusing" in checkpoint.detail


def test_tokens_after_a_request_are_the_templates(subject: Subject) -> None:
    count = tokens_after_request(subject)
    tails = {tuple(subject.renderer.prompt(text)[-count:]) for text in ("Hello.", "Who made this?", "a")}
    assert len(tails) == 1
