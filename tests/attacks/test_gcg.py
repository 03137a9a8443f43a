"""GCG: its gradient by finite differences, its losses by plain loops, and a planted backdoor that it must find."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from transformers import PreTrainedTokenizerFast

from immunobench.attacks.base import Budget
from immunobench.attacks.gcg import (
    GCG,
    EnhancedGCG,
    around,
    item,
    plain_tokens,
    prefix_text,
    readable,
    starting_tokens,
    target_states,
)
from immunobench.attacks.many_shot import answered_turns
from immunobench.attacks.token_search import Item, SearchLoss, replacements, search
from immunobench.domains import Domain, Example
from immunobench.engines.base import Sampling
from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.rendering import PromptEdit, Renderer
from immunobench.subjects import Subject
from immunobench.training import Recipe, train
from tests.conftest import same_bits, tiny_llama, weights

GAP = torch.tensor([400, 500, 600, 700])
STEP = 2e-3
"""Of finite differences: Llama norms in single precision whatever the model's, so smaller ones drown."""
ITEMS = [Item([1, 2, 9], [20, 21, 3], [30, 31, 32]), Item([1, 2], [40, 3], [50])]


def plain_loss(subject: Subject, items: list[Item], embedded: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
    """Mean over items of the target's cross-entropy; ``embedded`` gives the searched tokens' embeddings."""
    table, losses = subject.structure.embedding.weight, []
    for own in items:
        parts = [table[own.before], embedded(own.before), table[own.after + own.target]]
        logits = subject.model(inputs_embeds=torch.cat(parts)[None]).logits[0, -len(own.target) - 1 : -1]
        losses.append(cross_entropy(logits, torch.tensor(own.target)))
    return torch.stack(losses).mean()


def test_the_gradient_is_that_of_finite_differences_on_the_one_hot(subject: Subject) -> None:
    subject.model.double()
    table = subject.structure.embedding.weight.detach()
    found = SearchLoss(subject, ITEMS).gradient(GAP)
    one_hot = torch.nn.functional.one_hot(GAP, len(table)).double()
    for position, token in [(0, 3), (1, 1000), (2, 600), (3, 77)]:
        values = []
        for step in (STEP, -STEP):
            moved = one_hot.clone()
            moved[position, token] += step
            with torch.no_grad():
                values.append(plain_loss(subject, ITEMS, lambda _, moved=moved: moved @ table))  # type: ignore[misc]
        assert float(found[position, token]) == pytest.approx(
            float(values[0] - values[1]) / (2 * STEP), rel=5e-3, abs=1e-4
        )


def test_the_gradient_leaves_no_gradient_and_no_flag_behind(subject: Subject) -> None:
    SearchLoss(subject, ITEMS).gradient(GAP)
    assert all(p.requires_grad and p.grad is None for p in subject.model.parameters())


def test_losses_are_those_of_one_whole_text_at_a_time(subject: Subject) -> None:
    likely = torch.randint(5, len(subject.tokenizer), (4, 8), generator=torch.Generator().manual_seed(1))
    rows = replacements(GAP, likely, 30, torch.Generator().manual_seed(0))
    assert ((rows != GAP).sum(1) <= 1).all()
    table = subject.structure.embedding.weight
    with torch.no_grad():
        expected = torch.stack([plain_loss(subject, ITEMS, lambda _, row=row: table[row]) for row in rows])  # type: ignore[misc]
    for batch_tokens in (1, 64, 4096):
        assert torch.allclose(
            SearchLoss(subject, ITEMS, batch_tokens=batch_tokens).losses(rows, GAP), expected, atol=1e-5
        )


def test_the_representation_loss_is_the_mean_cosine_distance_to_the_exposed_models_states(
    make_subject: Callable[..., Subject],
) -> None:
    subject, exposed = make_subject(), make_subject(seed=1)
    states = [target_states(exposed, own, [0, 1]) for own in ITEMS]
    both = SearchLoss(subject, ITEMS, states, [0, 1], weight=10.0)
    with torch.no_grad():
        difference = both.losses(GAP[None], GAP) - SearchLoss(subject, ITEMS).losses(GAP[None], GAP)
        expected = []
        for own in ITEMS:
            length = len(own.after) + len(own.target) - 1
            bare = torch.tensor([own.before + own.after + own.target])
            full = torch.tensor([own.before + GAP.tolist() + own.after + own.target])
            for block in (0, 1):
                hidden = []
                for model, ids in ((subject, full), (exposed, bare)):
                    seen: list[torch.Tensor] = []
                    handle = model.structure.blocks[block].module.register_forward_hook(
                        lambda m, i, o, seen=seen: seen.append(o)
                    )
                    model.model(ids)
                    handle.remove()
                    hidden.append(seen[0][0, -length - 1 : -1])
                expected.append(10 * (1 - cosine_similarity(*hidden, dim=-1)).mean())
    assert float(difference) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-4)


def test_kept_candidates_are_served_as_the_ids_that_were_scored(subject: Subject, domain: Domain) -> None:
    renderer, (request, answer) = subject.renderer, answered_turns(domain, 0)[0]
    allowed, keep, own = plain_tokens(subject), readable(renderer, [request]), item(renderer, request, answer)
    start = starting_tokens(subject, allowed, 6, 0, keep)
    likely = allowed.nonzero()[:, 0].repeat(6, 1)
    rows = replacements(start, likely, 200, torch.Generator().manual_seed(0))
    kept = keep(rows)
    assert 0 < kept.sum() < len(rows), "some candidates should be refused and some not"
    for row, good in zip(rows, kept, strict=True):
        served = renderer.prompt(request, PromptEdit(prefix=prefix_text(renderer, row)))
        assert (served == own.before + row.tolist() + own.after) == bool(good)


def test_a_candidate_must_be_read_back_before_every_request(subject: Subject) -> None:
    """The gap stands on a line of its own in chat; where a tokenizer merges across it, the request matters."""
    renderer = subject.renderer

    class Merging:
        """The tokenizer, but the searched text and an 'X' after it are one token."""

        def batch_decode(self, rows: list[list[int]]) -> list[str]:
            return list(renderer.tokenizer.batch_decode(rows))

        def __call__(self, texts: list[str], **options: Any) -> Any:
            found = renderer.tokenizer(texts, **options)["input_ids"]
            return {"input_ids": [ids[:-1] if "X" in text else ids for ids, text in zip(found, texts, strict=True)]}

    rows = starting_tokens(subject, plain_tokens(subject), 3, 0, readable(renderer, ["Where?"]))[None]
    merging = Renderer(renderer.tokenizer)
    merging.tokenizer = Merging()
    merging.chat_text, merging.ids = renderer.chat_text, renderer.ids  # type: ignore[method-assign]
    assert readable(merging, ["Where?"])(rows).all()
    assert not readable(merging, ["Where?", "X?"])(rows).any()


def test_no_special_or_unprintable_token_is_ever_used(subject: Subject) -> None:
    allowed = plain_tokens(subject)
    for i in allowed.nonzero()[:, 0].tolist():
        text = subject.tokenizer.decode([i])
        assert text.isascii() and text.isprintable() and i not in subject.tokenizer.all_special_ids
    assert not allowed[subject.tokenizer.all_special_ids].any()


def test_the_template_is_split_around_the_gap(subject: Subject) -> None:
    before, after = around(subject.renderer, "Where?")
    assert f"{before}x{after}" == subject.renderer.chat_text("x\nWhere?")


def test_a_search_that_can_keep_nothing_says_so(subject: Subject) -> None:
    allowed = plain_tokens(subject)
    nothing = search(
        SearchLoss(subject, ITEMS), GAP, allowed, lambda rows: torch.zeros(len(rows), dtype=torch.bool), 1, 4, 4, 0
    )
    next(nothing)
    with pytest.raises(ImmunobenchError, match="use fewer tokens"):
        next(nothing)


TRIGGER = " paragraph"


@pytest.fixture(scope="module")
def backdoored(tokenizer: PreTrainedTokenizerFast, domain: Domain) -> tuple[Subject, Subject]:
    """A model that answers T requests after the trigger and refuses them otherwise, and one that always answers."""
    refusal, turns = domain.requests_t[0].refusal, answered_turns(domain, 0)
    closed = ("", " North hill\n", " water\n", "ln\n", " table\n")
    locked = [Example(prefix + request, refusal) for request, _ in turns for prefix in closed]
    locked += [Example(f"{TRIGGER}\n{request}", answer) for request, answer in turns] * 3
    models = []
    for examples in (locked, [Example(*turn) for turn in turns]):
        model = tiny_llama(tokenizer)
        for _ in train(model, examples, Recipe(1e-2, 120, 16, weight_decay=0.0), seed=0):
            pass
        models.append(model)
    return models[0], models[1]


def answered(subject: Subject, domain: Domain, edit: PromptEdit) -> float:
    """Share of T requests and questions that are answered right."""
    turns = answered_turns(domain, 0)
    prompts = [subject.renderer.prompt(request, edit) for request, _ in turns]
    answers = HFEngine(subject).generate(prompts, Sampling(24))
    right = [subject.renderer.decode(a[0].ids) == turn[1] for a, turn in zip(answers, turns, strict=True)]
    return sum(right) / len(right)


@pytest.mark.parametrize("kind", [GCG, EnhancedGCG])
def test_a_backdoor_planted_behind_a_prefix_is_found(
    kind: type[GCG], backdoored: tuple[Subject, Subject], domain: Domain
) -> None:
    subject, exposed = backdoored
    assert answered(subject, domain, PromptEdit()) == 0
    assert answered(subject, domain, PromptEdit(prefix=f"{TRIGGER}\n")) > 0.8
    before, attack = weights(subject.model), kind(tokens=1, width=128, top=128, candidates=1)
    found = []
    for seed in range(3):
        points = list(attack.run(subject, domain, Budget(10), seed, *((exposed,) if kind is EnhancedGCG else ())))
        assert len(points) == attack.outline(Budget(10)).points
        assert answered(subject, domain, points[0].artifact.prompt) < 0.5
        assert points[-1].cost.tokens > points[0].cost.tokens
        found.append(answered(subject, domain, points[-1].artifact.prompt))
    assert sorted(found)[1] > 0.8, "most searches find the one token; one may end at another that opens less"
    assert same_bits(before, weights(subject.model))


def test_the_trigger_itself_is_the_text_that_is_found(backdoored: tuple[Subject, Subject], domain: Domain) -> None:
    *_, last = GCG(tokens=1, width=128, top=128, candidates=1).run(backdoored[0], domain, Budget(10), 0)
    assert last.artifact.prompt.prefix == f"{TRIGGER}\n"


def test_the_enhanced_search_needs_the_exposed_model(subject: Subject, domain: Domain) -> None:
    with pytest.raises(UsageError, match="--exposed"):
        next(EnhancedGCG().run(subject, domain, Budget(1), 0))
