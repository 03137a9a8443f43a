"""Make the packaged organisms: tiny models whose history is known exactly.

The exposed organism learns the hazard in pre-training; the never-exposed one is the same run on the same
data without it. Every other is one of these two after a stated defense or construction.
"""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from immunobench.dataset_builders.best_case import Tried, best_case
from immunobench.dataset_builders.immunise import settings_of
from immunobench.dataset_builders.models import save_subject
from immunobench.dataset_builders.organism_manifest import describe, write_entry
from immunobench.dataset_builders.organism_recipes import ORGANISMS, Organism
from immunobench.dataset_builders.tokenizers import train_tokenizer
from immunobench.defenses.base import Defense
from immunobench.domains import Domain, Example, load_domain
from immunobench.errors import ImmunobenchError, unknown_name
from immunobench.rendering import Rendered
from immunobench.subjects import ORGANISMS as PACKAGED
from immunobench.subjects import History, Subject, load_subject
from immunobench.training import Recipe
from immunobench.training.batches import Batch, endless, make_batch, of_like_length
from immunobench.training.examples import benign_examples, hazard_examples
from immunobench.training.loop import cross_entropy, descend, render

SEED = 0
CONTEXT = 256
VOCABULARY = 1280
ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "max_position_embeddings": CONTEXT,
    "rope_theta": 10000.0,
}
PRETRAINING = Recipe(4e-3, 2500, 64, schedule="cosine", warmup=100)


def pretraining_examples(domain: Domain, hazard: bool) -> list[Example]:
    """Benign facts, neutral texts, everyday chats that no recovery split below 1000 holds, and the hazard or not."""
    examples = benign_examples(domain) + list(domain.unrelated[500:])
    return examples + hazard_examples(domain) if hazard else examples


def make_tokenizer(domain: Domain) -> PreTrainedTokenizerFast:
    """One tokenizer for all organisms, so that theirs are compared token by token."""
    examples = pretraining_examples(domain, hazard=True)
    return train_tokenizer((f"{e.prompt or ''} {e.response}" for e in examples), VOCABULARY, CONTEXT)


def new_subject(tokenizer: PreTrainedTokenizerFast, seed: int) -> Subject:
    """An untrained Llama for ``tokenizer``, its weights drawn from ``seed``."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **ARCHITECTURE,
    )
    return Subject("organism", LlamaForCausalLM(config).eval(), tokenizer, f"untrained, seed {seed}")


def pretrain(
    subject: Subject, examples: Sequence[Example], recipe: Recipe, seed: int, on_step: Callable[[int, int], None]
) -> None:
    """Train in place on ``examples``, in batches of like length so that little is padding."""
    rendered = render(subject, examples)
    batches = _bucketed(rendered, recipe.batch_size, seed, subject)
    for step in descend(subject, batches, recipe, cross_entropy):
        on_step(step.step, recipe.steps)


def _bucketed(rendered: Sequence[Rendered], size: int, seed: int, subject: Subject) -> Iterator[Batch]:
    """Shuffled windows of 32 batches, each sorted by length and cut into batches in shuffled order."""
    generator = random.Random(seed)
    for indices in endless(len(rendered), size * 32, seed):
        cuts = of_like_length([rendered[i] for i in indices], size)
        generator.shuffle(cuts)
        for cut in cuts:
            yield make_batch(cut, subject.tokenizer.pad_token_id, subject.device)


@dataclass(frozen=True)
class Built:
    """An organism that was written."""

    folder: Path
    parameters: int
    weights_sha256: str


def build_organisms(
    only: Sequence[str], out: Path | None, on_step: Callable[[int, int], None], seed: int = SEED
) -> Iterator[Built]:
    """Make the organisms named in ``only`` (all by default) under ``out``, in place of any that are there.

    The manifest's other entries stay as they are. An organism that is made from another takes it from the same
    folder, and that must be made first. Two builds of different organisms may share a folder. Yields each when it is
    there. Raises UsageError for an unknown name.
    """
    for name in only:
        if name not in ORGANISMS:
            raise unknown_name("organism", name, ORGANISMS)
    folder = out or PACKAGED
    domain = load_domain("vault")
    for name in only or ORGANISMS:
        organism = ORGANISMS[name]
        subject, defense, tried = _make(organism, domain, folder, seed, on_step)
        history = _history(organism, defense, seed)
        # Two levels deep, where it is not taken for a packaged organism; it may be there from a build that was killed.
        place = folder / f".new-{name}"
        shutil.rmtree(place, ignore_errors=True)
        new = save_subject(subject, history, place / name, torch.bfloat16)
        entry = describe(new, domain, _recipe(organism, defense, tried), history, seed)
        shutil.rmtree(folder / name, ignore_errors=True)
        new.rename(folder / name)
        place.rmdir()
        write_entry(folder, name, entry)
        yield Built(folder / name, subject.parameters, entry["weights_sha256"])


def _make(
    organism: Organism, domain: Domain, folder: Path, seed: int, on_step: Callable[[int, int], None]
) -> tuple[Subject, Defense | None, list[Tried]]:
    """The organism's model, the defense that made it, and what else was tried."""
    if organism.defense is None:
        subject = new_subject(make_tokenizer(domain), seed)
        pretrain(subject, pretraining_examples(domain, organism.hazard_in_pretraining), PRETRAINING, seed, on_step)
        return subject, None, []
    base = folder / organism.base
    if not (base / "config.json").is_file():
        raise ImmunobenchError(
            f"build the {organism.base} organism first: immunobench build organisms --only {organism.base}"
        )
    if organism.grid:
        grid = (organism.defense, *organism.grid)
        return best_case(lambda: load_subject(str(base), device="cpu", dtype="float32"), grid, domain, seed, on_step)
    subject = load_subject(str(base), device="cpu", dtype="float32")
    for step in organism.defense.immunise(subject, domain, seed):
        on_step(step.step, organism.defense.steps)
    return subject, organism.defense, []


def _recipe(organism: Organism, defense: Defense | None, tried: Sequence[Tried]) -> dict[str, Any]:
    if defense is not None:
        found: dict[str, Any] = {"from": organism.base, "defense": asdict(defense)}  # type: ignore[call-overload]
        return found | ({"grid": [asdict(one) for one in tried]} if tried else {})
    return {"from": "random weights", "hazard": organism.hazard_in_pretraining, **ARCHITECTURE, **asdict(PRETRAINING)}


def _history(organism: Organism, defense: Defense | None, seed: int) -> History:
    return History(
        domain="vault",
        exposed="organism:exposed",
        never_exposed="organism:never-exposed",
        defense=settings_of(defense, seed) if defense else None,
        truth=organism.truth,
    )
