"""The engine against plain loops over one sequence at a time."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immunobench.engines.base import Sampling, request_seed
from immunobench.engines.hf import WORTH_SHARING, HFEngine, common_beginning
from immunobench.errors import ImmunobenchError
from immunobench.subjects import Subject
from tests.conftest import tiny_llama
from tests.test_structure import FAMILIES, build

Ids = list[int]


def naive_logprobs(subject: Subject, prompts: Sequence[Ids], continuations: Sequence[Ids]) -> list[torch.Tensor]:
    """Every position and vocabulary row of every pair, one pair at a time."""
    found = []
    for prompt, continuation in zip(prompts, continuations, strict=True):
        with torch.no_grad():
            logits = subject.model(input_ids=torch.tensor([prompt + continuation])).logits[0]
        table = logits.double().log_softmax(-1)
        found.append(torch.stack([table[len(prompt) - 1 + i, token] for i, token in enumerate(continuation)]))
    return found


def naive_greedy(subject: Subject, prompt: Ids, most: int) -> tuple[Ids, str]:
    """One token at a time, without a cache."""
    ids: Ids = []
    while len(ids) < most:
        with torch.no_grad():
            token = int(subject.model(input_ids=torch.tensor([prompt + ids])).logits[0, -1].argmax())
        if token == subject.tokenizer.eos_token_id:
            return ids, "stop"
        ids.append(token)
    return ids, "length"


def agree(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    """Same lengths, same values."""
    assert [len(a) for a in found] == [len(b) for b in expected]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


TOKENS = st.lists(st.integers(5, 1000), min_size=1, max_size=9)


@pytest.fixture(scope="module")
def fixed(tokenizer: object) -> Subject:
    """One subject for many examples; nothing here changes its weights."""
    return tiny_llama(tokenizer)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=7), batch_tokens=st.sampled_from([1, 20, 45, 9999])
)
def test_logprobs_equal_a_plain_loop(fixed: Subject, pairs: list[tuple[Ids, Ids]], batch_tokens: int) -> None:
    prompts, continuations = [p for p, _ in pairs], [c for _, c in pairs]
    found = HFEngine(fixed, batch_tokens).logprobs(prompts, continuations)
    agree(found, naive_logprobs(fixed, prompts, continuations))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(TOKENS, min_size=1, max_size=5),
    begun=st.sampled_from([0, WORTH_SHARING - 1, WORTH_SHARING, 20]),
    choices=st.integers(1, 4),
    batch_tokens=st.sampled_from([1, 40, 90, 9999]),
    data=st.data(),
)
def test_choices_of_one_prompt_equal_a_plain_loop(
    fixed: Subject, prompts: list[Ids], begun: int, choices: int, batch_tokens: int, data: st.DataObject
) -> None:
    beginning = list(range(5, 5 + begun))
    repeated = [beginning + prompt for prompt in prompts for _ in range(choices)]
    continuations = [data.draw(TOKENS) for _ in repeated]
    found = HFEngine(fixed, batch_tokens).logprobs(repeated, continuations)
    agree(found, naive_logprobs(fixed, repeated, continuations))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_choices_under_each_attention(make_subject: Callable[..., Subject], attention: str) -> None:
    """Each wants its mask in another form; prompts with one choice stand beside prompts with several."""
    subject = make_subject()
    subject.model.set_attn_implementation(attention)
    prompts = [[*range(5, 15), 20], [*range(5, 15), 30, 31], [*range(5, 15), 30, 31], [*range(5, 15), 40, 41, 42]]
    continuations = [[7, 8], [7, 8, 9], [7, 9], [6]]
    for skipped in (0, 10):  # with a common beginning and without
        cut = [prompt[skipped:] for prompt in prompts]
        agree(HFEngine(subject).logprobs(cut, continuations), naive_logprobs(subject, cut, continuations))


def test_what_prompts_begin_with_leaves_each_a_token() -> None:
    long = list(range(30))
    assert common_beginning([long, [*long[:20], 99]]) == 20
    assert common_beginning([long, long[:20]]) == 19
    assert common_beginning([long]) == common_beginning([long, long[:WORTH_SHARING]]) == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("choices", "begun"), [(1, 0), (3, 0), (3, 10)])
def test_logprobs_of_every_family(family: str, choices: int, begun: int, fixed: Subject) -> None:
    """Positions, caches, sliding windows and attention masks differ between families."""
    torch.manual_seed(0)
    model = build(family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    subject = Subject(family, model, fixed.tokenizer, "random")
    generator = torch.Generator().manual_seed(1)
    lengths = [(3, 2), (14, 5), (9, 1), (1, 4), (12, 3), (6, 6)]
    draw = lambda n: torch.randint(5, 60, (n,), generator=generator).tolist()  # noqa: E731
    beginning = draw(begun)
    prompts = [p for n, _ in lengths for p in [beginning + draw(n)] * choices]
    continuations = [draw(m) for _, m in lengths for _ in range(choices)]
    agree(HFEngine(subject).logprobs(prompts, continuations), naive_logprobs(subject, prompts, continuations))


def test_nothing_to_score_is_an_error(subject: Subject) -> None:
    engine = HFEngine(subject)
    with pytest.raises(ImmunobenchError, match="a continuation has no tokens"):
        engine.logprobs([[5], [6]], [[7], []])
    with pytest.raises(ImmunobenchError, match="a prompt has no tokens"):
        engine.logprobs([[5], []], [[7], [8]])


def test_no_pairs_give_no_results(subject: Subject) -> None:
    assert HFEngine(subject).logprobs([], []) == []
    assert HFEngine(subject).generate([], Sampling()) == []


@pytest.mark.parametrize("batch_tokens", [1, 100, 16384])
def test_generation_equals_a_plain_greedy_loop(subject: Subject, batch_tokens: int) -> None:
    generator = torch.Generator().manual_seed(2)
    prompts = [
        torch.randint(5, len(subject.tokenizer), (n,), generator=generator).tolist() for n in (3, 11, 1, 7, 7, 20)
    ]
    stop = naive_greedy(subject, prompts[1], 8)[0][3]
    subject.tokenizer = FakeEnd(subject.tokenizer, stop)
    answers = HFEngine(subject, batch_tokens).generate(prompts, Sampling(max_new_tokens=8))
    expected = [naive_greedy(subject, prompt, 8) for prompt in prompts]
    assert [(a.ids, a.finish) for [a] in answers] == expected
    assert {finish for _, finish in expected} == {"stop", "length"}


class FakeEnd:
    """A tokenizer whose end token is one that the model is known to say."""

    def __init__(self, tokenizer: object, end: int) -> None:
        self._tokenizer, self.eos_token_id = tokenizer, end

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)


def test_greedy_is_greedy_whatever_the_model_folder_asks_for(make_subject: Callable[..., Subject]) -> None:
    """A published generation config may hold penalties and temperatures; none of them is the protocol's."""
    subject, tuned = make_subject(), make_subject()
    tuned.model.generation_config.update(
        repetition_penalty=5.0, no_repeat_ngram_size=1, do_sample=True, temperature=2.0, top_k=3, min_new_tokens=9
    )
    prompts = [[5, 6, 7], [8, 9]]
    plain = HFEngine(subject).generate(prompts, Sampling(max_new_tokens=12))
    assert HFEngine(tuned).generate(prompts, Sampling(max_new_tokens=12)) == plain
    warm = Sampling(max_new_tokens=12, temperature=1.0, n=2)
    assert HFEngine(tuned).generate(prompts, warm) == HFEngine(subject).generate(prompts, warm)
    assert tuned.model.generation_config.repetition_penalty == 5.0


def test_seeds_of_requests_differ_and_repeat() -> None:
    seeds = [request_seed(seed, place) for seed in range(20) for place in range(20)]
    assert len(set(seeds)) == 400 and seeds[0] == request_seed(0, 0) and min(seeds) >= 0 and max(seeds) < 2**32


def test_samples_follow_the_seed(subject: Subject) -> None:
    engine, prompts = HFEngine(subject), [[5, 6, 7], [8, 9]]
    before = torch.get_rng_state()
    first = engine.generate(prompts, Sampling(max_new_tokens=6, temperature=1.0, n=3, seed=1))
    again = engine.generate(prompts, Sampling(max_new_tokens=6, temperature=1.0, n=3, seed=1))
    other = engine.generate(prompts, Sampling(max_new_tokens=6, temperature=1.0, n=3, seed=2))
    assert first == again != other
    assert [len(answers) for answers in first] == [3, 3]
    assert len({tuple(a.ids) for a in first[0]}) > 1
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_depend_on_the_prompts_place_and_not_on_its_batch(subject: Subject) -> None:
    prompts = [[5, 6, 7], [5, 6, 7], [8, 9, 10, 11]]
    warm = Sampling(max_new_tokens=6, temperature=1.0, n=3, seed=1)
    together = HFEngine(subject).generate(prompts, warm)
    assert HFEngine(subject, batch_tokens=1).generate(prompts, warm) == together
    assert HFEngine(subject).generate(prompts[:1], warm) == together[:1]
    assert together[0] != together[1], "prompts that share a seed would share their draws"


def test_sampling_draws_from_the_whole_distribution(subject: Subject) -> None:
    """At temperature 1 the shares of first tokens are the model's own probabilities."""
    with torch.no_grad():
        expected = subject.model(input_ids=torch.tensor([[5, 6]])).logits[0, -1].softmax(-1)
    likely = expected.topk(3).indices.tolist()
    [answers] = HFEngine(subject).generate([[5, 6]], Sampling(max_new_tokens=1, temperature=1.0, n=4000))
    for token in likely:
        p = float(expected[token])
        share = sum(a.ids == [token] for a in answers) / 4000
        assert abs(share - p) < 4 * (p * (1 - p) / 4000) ** 0.5


class Small:
    """Runs out of memory for batches of more than ``rows`` rows, as a small device would."""

    def __init__(self, model: torch.nn.Module, rows: int, error: Exception) -> None:
        self.rows, self.error, self.sizes = rows, error, list[int]()
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        self.sizes.append(len(kwargs["input_ids"]))
        if self.sizes[-1] > self.rows:
            raise self.error


def too_large() -> RuntimeError:
    """What torch raises where main memory does not suffice."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), too_large()])
def test_batches_are_halved_until_they_fit(subject: Subject, error: Exception) -> None:
    prompts = [[5, 6, i] for i in range(10, 42)]
    continuations = [[7, i] for i in range(10, 42)]
    expected = naive_logprobs(subject, prompts, continuations)
    device = Small(subject.model, 5, error)
    engine = HFEngine(subject)
    agree(engine.logprobs(prompts, continuations), expected)
    failures = sum(size > 5 for size in device.sizes)
    assert failures >= 1 and max(device.sizes[-5:]) <= 5
    agree(engine.logprobs(prompts, continuations), expected)
    assert sum(size > 5 for size in device.sizes) == failures, "the size that fits is kept"


def test_one_row_that_does_not_fit_and_other_errors_are_raised(subject: Subject) -> None:
    Small(subject.model, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        HFEngine(subject).logprobs([[5], [6]], [[7], [8]])


@pytest.mark.parametrize("words", ["shapes differ", "a tensor that was not allocated", "allocator of another device"])
def test_an_error_that_is_not_of_memory_is_raised_at_once(subject: Subject, words: str) -> None:
    device = Small(subject.model, 0, RuntimeError(words))
    with pytest.raises(RuntimeError, match=words):
        HFEngine(subject).logprobs([[5], [6]], [[7], [8]])
    assert len(device.sizes) == 1


def test_flags_tell_type_and_device(subject: Subject) -> None:
    assert HFEngine(subject).flags["dtype"] == "float32"
    subject.model.to(torch.bfloat16)
    assert HFEngine(subject).flags["dtype"] == "bfloat16"
    assert HFEngine(subject).flags["device"] == "cpu"
    assert HFEngine(subject, 100).flags != HFEngine(subject, 200).flags
