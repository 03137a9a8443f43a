"""The parts of eleven kinds of decoder, found by structure; clear errors for what is none."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from immunobench.errors import ImmunobenchError
from immunobench.structure import Structure, find_structure, output_size, weight_of

HIDDEN = 32
SHARED = {
    "vocab_size": 64,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GROUPED = {**SHARED, "num_key_value_heads": 1, "head_dim": 16}
WINDOWED = {**GROUPED, "sliding_window": 6}
GPT2 = {"vocab_size": 64, "n_embd": HIDDEN, "n_layer": 3, "n_head": 2, "n_positions": 64, "n_inner": 48}

# family: (options of its config, path of a block's attention, its MLP, their writers, the final norm, linears a block)
FAMILIES = {
    "Llama": (GROUPED, "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj", "model.norm", 7),
    "Mistral": (WINDOWED, "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj", "model.norm", 7),
    "Qwen2": (
        {**SHARED, "num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        "self_attn",
        "mlp",
        "self_attn.o_proj",
        "mlp.down_proj",
        "model.norm",
        7,
    ),
    "Qwen3": (GROUPED, "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj", "model.norm", 7),
    "Gemma2": (WINDOWED, "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj", "model.norm", 7),
    "Gemma3": (WINDOWED, "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj", "model.norm", 7),
    "Olmo2": (SHARED, "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj", "model.norm", 7),
    "Phi": (SHARED, "self_attn", "mlp", "self_attn.dense", "mlp.fc2", "model.final_layernorm", 6),
    "Phi3": (WINDOWED, "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj", "model.norm", 4),
    "GPTNeoX": (SHARED, "attention", "mlp", "attention.dense", "mlp.dense_4h_to_h", "gpt_neox.final_layer_norm", 4),
    "GPT2": (GPT2, "attn", "mlp", "attn.c_proj", "mlp.c_proj", "transformer.ln_f", 4),
}


def build(family: str, **options: Any) -> nn.Module:
    """A tiny random model of ``family``, with ``options`` in place of those of its config."""
    name = f"{family}TextConfig" if family == "Gemma3" else f"{family}Config"
    kind = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    config = getattr(transformers, name)(**{**FAMILIES[family][0], **options})
    model: nn.Module = getattr(transformers, kind)(config).eval()
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_is_found(family: str) -> None:
    _, attention, mlp, attention_out, mlp_out, final_norm, linears = FAMILIES[family]
    model = build(family)
    found = find_structure(model)
    assert len(found.blocks) == 3
    assert found.hidden_size == HIDDEN
    assert found.final_norm is model.get_submodule(final_norm)
    assert found.embedding is model.get_input_embeddings()  # type: ignore[operator]
    assert found.head is model.get_output_embeddings()  # type: ignore[operator]
    for index, block in enumerate(found.blocks):
        prefix = f"{found.block_list}.{index}"
        assert block.module is model.get_submodule(prefix)
        assert block.attention is model.get_submodule(f"{prefix}.{attention}")
        assert block.mlp is model.get_submodule(f"{prefix}.{mlp}")
        assert block.attention_out is model.get_submodule(f"{prefix}.{attention_out}")
        assert block.mlp_out is model.get_submodule(f"{prefix}.{mlp_out}")
        assert len(block.linears) == linears
        assert all(model.get_submodule(name) is linear for name, linear in block.linears.items())
    assert len(found.linears) == 3 * linears


@pytest.mark.parametrize("family", FAMILIES)
def test_writers_are_all_that_writes(family: str) -> None:
    """With both writers of every block silenced the residual stream is the embedding alone."""
    model = build(family)
    found = find_structure(model)
    ids = torch.arange(1, 9)[None]
    streams: list[torch.Tensor] = []
    inputs = found.blocks[0].module.register_forward_pre_hook(lambda _, args: streams.append(args[0]))
    outputs = found.final_norm.register_forward_pre_hook(lambda _, args: streams.append(args[0]))
    with torch.no_grad():
        for block in found.blocks:
            for writer in (block.attention_out, block.mlp_out):
                assert output_size(writer) == HIDDEN
                writer.weight.zero_()
                if getattr(writer, "bias", None) is not None:
                    writer.bias.zero_()
        model(input_ids=ids)
    inputs.remove()
    outputs.remove()
    first, last = streams
    assert torch.equal(first, last)
    assert weight_of(found.blocks[0].mlp_out).abs().sum() == 0


def message(model: nn.Module) -> str:
    """The one sentence that ``model`` is refused with."""
    with pytest.raises(ImmunobenchError) as caught:
        find_structure(model)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_encoder_is_refused() -> None:
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    assert "BertModel has no list of transformer blocks" in message(transformers.BertModel(config))
    assert "BertLayer has 3 parts" in message(transformers.BertForMaskedLM(config))


def test_a_state_space_model_is_refused() -> None:
    config = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
    assert "MambaBlock has 1 parts" in message(transformers.MambaForCausalLM(config))


def test_what_the_limits_say_is_refused_is_refused() -> None:
    opt = transformers.OPTConfig(
        vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=32
    )
    experts = transformers.MixtralConfig(**{**GROUPED, "num_local_experts": 2})
    ending = "parts with linears where attention and an MLP were expected: this architecture is not supported."
    said = [message(transformers.OPTForCausalLM(opt)), message(transformers.MixtralForCausalLM(experts))]
    assert said == [f"OPTDecoderLayer has 3 {ending}", f"MixtralDecoderLayer has 1 {ending}"]


def test_linears_are_named_once() -> None:
    found: Structure = find_structure(build("Llama"))
    assert len({id(module) for module in found.linears.values()}) == len(found.linears)
