"""What an attack left on the live model, written for another process to read."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from immunobench.engines.base import NotServedError
from immunobench.subjects import Subject

SHARED_MEMORY = Path("/dev/shm")


def scratch(size: int) -> tempfile.TemporaryDirectory[str]:
    """A folder with room for two checkpoints of ``size`` bytes: in memory where that holds them, else on disk."""
    fits = os.access(SHARED_MEMORY, os.W_OK) and shutil.disk_usage(SHARED_MEMORY).free > 3 * size
    return tempfile.TemporaryDirectory(prefix="immunobench-", dir=SHARED_MEMORY if fits else None)


def write_weights(subject: Subject, folder: Path, dtype: torch.dtype) -> None:
    """The live model as a checkpoint of ``dtype``.

    Raises NotServedError for a model whose output matrix an attack has parted from the input embeddings that its
    configuration ties it to: a checkpoint of that configuration cannot hold both.
    """
    model: Any = subject.model
    head = model.get_output_embeddings()
    if model.config.tie_word_embeddings and head.weight is not model.get_input_embeddings().weight:
        raise NotServedError("the attack parted the output matrix from the embeddings that the model ties it to.")
    state = {
        name: tensor.detach().to("cpu", dtype) if tensor.is_floating_point() else tensor.detach().cpu()
        for name, tensor in model.state_dict().items()
    }
    if model.config.tie_word_embeddings:
        names = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is head.weight]
        for name in names[1:]:
            state[name] = state[names[0]]
    model.save_pretrained(folder, state_dict=state)


def adapter_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """A and B of every LoRA layer on the live model, by their names in an adapter file."""
    from peft.tuners.lora import LoraLayer

    found = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            for part in ("lora_A", "lora_B"):
                weight = getattr(module, part)["default"].weight
                found[f"base_model.model.{name}.{part}.weight"] = weight.detach().cpu().contiguous()
    return found


def adapter_rank(tensors: dict[str, torch.Tensor]) -> int:
    """The largest rank among adapter tensors, 0 where there are none."""
    return max((len(tensor) for name, tensor in tensors.items() if ".lora_A." in name), default=0)


def write_adapter(model: Any, tensors: dict[str, torch.Tensor], folder: Path) -> str:
    """An adapter folder as peft writes it; returns the hash of its content, 12 hex digits."""
    config = model.peft_config["default"]
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
        "fan_in_fan_out": config.fan_in_fan_out,
        "bias": "none",
    }
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / "adapter_model.safetensors")
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update((folder / "adapter_model.safetensors").read_bytes())
    return digest.hexdigest()[:12]
