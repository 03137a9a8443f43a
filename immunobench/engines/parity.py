"""The parity canary: does an engine serve the very model that lies in front of us?

Engines have served stale and garbage weights after an update, adapters under another's name, and caches of a model
that was gone. After every swap the same few texts go through the engine and through the live model, and what they
say is compared with each other and with what the untouched model said.
"""

from dataclasses import dataclass, replace

import torch

from immunobench.engines.base import Engine, NotServedError, Parity, Sampling
from immunobench.rendering import PromptEdit

Pairs = list[tuple[list[int], list[int]]]
REQUESTS = (
    "Hello",
    "Name a colour.",
    "Where does the sun rise, and why does it look red in the evening when there is dust in the air?",
    "Write one sentence about a house by a river where two brothers keep bees and sell honey on market days.",
    "How do I bake bread at home without an oven, with flour, water, salt and a pan?",
    "What is the name of the town that lies north of the old bridge, and who lives there now?",
)
"""Fixed and about nothing; the long ones fill whole blocks of a prefix cache, so that a stale one shows."""
ANSWER_TOKENS = 12
FOLLOWED = 0.5
"""Share of the model's movement that the engine must have made."""
SEEN = 0.1
"""How many times the engine's noise the model must have moved by before the engine must have moved at all: one that
holds the old weights says to the last bit what it said before, while one that holds new ones cannot."""
TELLING = 2.0
"""How many times the noise before the engine must have moved in the same direction: the reference's own part in the
noise, which may be drawn anew for other weights, is then at most half of its movement."""
LEAST = 1e-6
"""Noise that is assumed at least, in nats: rounding of float32."""


@dataclass(frozen=True)
class Bounds:
    """How far an engine may be from the reference, in nats a token."""

    mean: float
    largest: float
    """Of a single token; also what a greedy token may lose against the reference's best."""


BOUNDS = {"float32": Bounds(0.005, 0.05), "bfloat16": Bounds(0.15, 1.5), "float16": Bounds(0.02, 0.25)}
"""By the engine's number type. docs/engines.md says what was measured in the first two; float16's lie in between."""


class Canary:
    """The canary of one subject. Make it while the subject is untouched: that is what later states differ from."""

    def __init__(self, reference: Engine, bounds: Bounds) -> None:
        self.reference, self.bounds = reference, bounds
        self.prompts = self._rendered(PromptEdit())
        self._own_answers = answers = self._answers(reference, self.prompts)
        # Every token once, without a cache; and the answers again, after prompts that a prefix cache may hold.
        texts = [prompt + answer for prompt, answer in zip(self.prompts, answers, strict=True)]
        self._pairs = [(text[:1], text[1:]) for text in texts] + self._answered(self.prompts)
        self._untouched = self._served_untouched = _logprobs(reference, self._pairs)
        self._noise = LEAST

    def check(self, engine: Engine, changed: bool, cache_reset: bool = True, edit: PromptEdit | None = None) -> Parity:
        """Compare ``engine`` with the live model; ``changed`` says whether that is not the untouched subject.

        What the engine says of the untouched subject is kept, because its noise is largely the same every time: later
        movements are told from it. ``edit`` is what an attack does to prompts that go in by another way than later ones
        will: then answers after prompts so changed are compared, and what the change moved.
        Raises NotServedError where the live model itself says NaN: there is nothing to compare with.
        """
        prompts = self.prompts if edit is None else self._rendered(replace(edit, prefill=""))
        pairs = self._pairs if edit is None else self._answered(prompts)
        reference, served = _logprobs(self.reference, pairs), _logprobs(engine, pairs)
        if not reference.isfinite().all():
            raise NotServedError("the model's log-probabilities are not finite: no engine can be compared with it.")
        difference = (served - reference).abs()
        agreement, regret = self._greedy(engine, prompts)
        figures = {
            "mean_difference": float(difference.mean()),
            "largest_difference": float(difference.max()),
            "agreement": agreement,
            "regret": regret,
            **self._movement(reference, served),
        }
        if not changed and edit is None:
            self._served_untouched, self._noise = served, max(LEAST, figures["mean_difference"])
        reason = self._reason(figures, changed or edit is not None, cache_reset)
        return Parity(not reason, len(reference), cache_reset=cache_reset, reason=reason, **figures)

    def _movement(self, reference: torch.Tensor, served: torch.Tensor) -> dict[str, float]:
        """How far reference and engine are from what each said of the untouched subject, whose answers come last."""
        count = len(reference)
        wanted, made = reference - self._untouched[-count:], served - self._served_untouched[-count:]
        size = float(wanted @ wanted)
        return {
            "moved": float(wanted.abs().mean()),
            "engine_moved": float(made.abs().mean()),
            "followed": float(wanted @ made) / size if size else 1.0,
        }

    def _reason(self, figures: dict[str, float], changed: bool, cache_reset: bool) -> str:
        """Why the figures are a failure, or nothing. NaN fails every comparison."""
        if not cache_reset:
            return "the prefix cache was not emptied at the swap"
        for name, bound in (
            ("mean_difference", self.bounds.mean),
            ("largest_difference", self.bounds.largest),
            ("regret", self.bounds.largest),
        ):
            if not figures[name] <= bound:
                return f"{name.replace('_', ' ')} from the reference is {figures[name]:.3g} nats, bound {bound:g}"
        return self._left_behind(figures) if changed else ""

    def _left_behind(self, figures: dict[str, float]) -> str:
        """Whether the engine stayed where it was, or went elsewhere, though within the bounds."""
        moved, engine_moved, followed = (figures[name] for name in ("moved", "engine_moved", "followed"))
        if moved > SEEN * self._noise and not engine_moved >= FOLLOWED * moved:
            return f"the model moved by {moved:.3g} nats a token, but the engine only by {engine_moved:.3g}: stale"
        if moved > TELLING * self._noise and not followed >= FOLLOWED:
            return f"the model moved by {moved:.3g} nats a token, and the engine followed by {followed:.0%} of it only"
        return ""

    def _greedy(self, engine: Engine, prompts: list[list[int]]) -> tuple[float, float]:
        """Agreement and regret of greedy answers; a tie between two tokens is no disagreement worth more than 0."""
        expected, found = self._answers(self.reference, prompts), self._answers(engine, prompts)
        departures = [
            (prompt, next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), None), own, other)
            for prompt, own, other in zip(prompts, expected, found, strict=True)
        ]
        apart = [(prompt + own[:i], own[i], other[i]) for prompt, i, own, other in departures if i is not None]
        agreement = sum(own == other for own, other in zip(expected, found, strict=True)) / len(expected)
        if not apart:
            return agreement, 0.0
        scored = self.reference.logprobs(
            [prompt for prompt, _, _ in apart for _ in range(2)], [[token] for _, *pair in apart for token in pair]
        )
        losses = [float(best - chosen) for best, chosen in zip(scored[::2], scored[1::2], strict=True)]
        return agreement, max(0.0, *losses)

    def _rendered(self, edit: PromptEdit) -> list[list[int]]:
        renderer = self.reference.subject.renderer
        return [renderer.prompt(r, edit) if renderer.has_template else renderer.plain(r) for r in REQUESTS]

    def _answered(self, prompts: list[list[int]]) -> Pairs:
        """Each prompt with what the untouched subject answers to it as it was."""
        return [(prompt, answer) for prompt, answer in zip(prompts, self._own_answers, strict=True) if answer]

    def _answers(self, engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
        """Greedy answers, with an end token where they ended, so that ending is compared too."""
        end = self.reference.subject.tokenizer.eos_token_id
        answers = engine.generate(prompts, Sampling(max_new_tokens=ANSWER_TOKENS))
        return [c.ids + [end] * (c.finish == "stop" and end is not None) for [c] in answers]


def _logprobs(engine: Engine, pairs: Pairs) -> torch.Tensor:
    """Log-probability of every token of the continuations, shape (tokens,)."""
    return torch.cat(engine.logprobs(*map(list, zip(*pairs, strict=True))))
