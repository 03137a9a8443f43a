"""The sentence embedder is read at one commit of the Hub, or from the package that carries it."""

import json
from pathlib import Path

import numpy as np
import pytest

from immunobench.dataset_builders import embeddings
from immunobench.dataset_builders.similarity import unit_rows
from tests.local_hub import running
from tests.test_datasets import run

PAIRS = [("tell me", "no"), ("tell me of the sea", "it is wide")]


def tiny_embedder(folder: Path, seed: int) -> Path:
    """A model of the embedder's architecture with random weights, and a tokenizer of a few words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    sizes = {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(**sizes, intermediate_size=16)
    BertModel(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "tell", "me", "no", "of", "the", "sea", "it", "is", "wide"]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def test_the_hub_is_read_at_the_pinned_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tiny_embedder(tmp_path / str(seed), seed) for seed in (0, 1)]
    expected = []
    for folder in folders:
        source = {"pretrained_model_name_or_path": str(folder)}
        monkeypatch.setattr(embeddings, "embedder_source", lambda source=source: source)
        expected.append(embeddings.sentence_features(PAIRS))
    assert not np.allclose(*expected, atol=0.01)
    with running(tmp_path / "hub") as (store, url):
        store.create("models", embeddings.EMBEDDER)
        first, _ = (
            store.commit(
                *("models", embeddings.EMBEDDER, "main", {"summary": folder.name}),
                [("file", file.name, file.read_bytes()) for file in sorted(folder.iterdir())],
            )
            for folder in folders
        )
        code = (
            "import json\nfrom immunobench.dataset_builders import embeddings\n"
            f"embeddings.PACKAGE, embeddings.REVISION = 'no_such_package', {first!r}\n"
            f"print(json.dumps(embeddings.sentence_features({PAIRS!r}).tolist()))"
        )
        read = run(code, tmp_path, HF_ENDPOINT=url, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1")
    np.testing.assert_allclose(json.loads(read.splitlines()[-1]), expected[0], atol=1e-6)


def test_a_subject_s_features_are_its_last_layer_at_the_last_token(subject) -> None:
    """As an unpadded pass over each pair alone gives them, for pairs of unlike length in one batch."""
    import torch

    pairs = [("Tell me of the sea.", "It is wide and deep, and nobody has seen all of it."), ("Why?", "No."), PAIRS[1]]
    found = embeddings.subject_features(subject, pairs)
    assert found.shape == (3, 32)
    for (prompt, response), row in zip(pairs, found, strict=True):
        ids = subject.renderer.prompt(prompt) + subject.renderer.ids(response)
        with torch.inference_mode():
            states = subject.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        last, before, earlier = (
            unit_rows(states[layer][:, token].numpy())[0] for layer, token in ((-1, -1), (-2, -1), (-1, -2))
        )
        np.testing.assert_allclose(row, last, atol=1e-5)
        assert not np.allclose(row, before, atol=0.01) and not np.allclose(row, earlier, atol=0.01)


def test_only_the_hub_has_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "PACKAGE", "no_such_package")
    assert embeddings.embedder_source() == {
        "pretrained_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
        "revision": "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    }
    monkeypatch.setattr(embeddings, "PACKAGE", "immunobench")
    (path,) = embeddings.embedder_source().values()
    assert Path(path).parts[-2:] == ("immunobench", "model")
