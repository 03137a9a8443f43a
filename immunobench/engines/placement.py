"""Which engine pays, and how two copies of a model share one device: small models of time and memory, stated."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

GIB = 2**30


@dataclass(frozen=True)
class Rate:
    """Seconds that an engine takes, for a model of N billion parameters."""

    start: tuple[float, float]
    """Seconds to start: a fixed part, and a part that is multiplied by N."""
    generated: tuple[float, float]
    """Seconds a generated token: a fixed part, and a part that is multiplied by N."""
    scored: tuple[float, float]
    """Seconds a scored token, likewise."""
    swap: tuple[float, float]
    """Seconds to take over changed weights, likewise."""

    def seconds(self, parameters: int, load: "Load") -> float:
        """Time for ``load`` on a model of so many parameters."""
        size = parameters / 1e9
        parts = (
            (1, self.start),
            (load.generated, self.generated),
            (load.scored, self.scored),
            (load.swaps, self.swap),
        )
        return sum(count * (fixed + size * each) for count, (fixed, each) in parts)


@dataclass(frozen=True)
class Load:
    """What a study asks of one model."""

    generated: int = 0
    """Tokens to generate at most."""
    scored: int = 0
    """Tokens to score."""
    swaps: int = 0
    """Checkpoints whose weights or adapter the engine has to take over."""


@dataclass(frozen=True)
class Choice:
    """The engine that ``auto`` picks, and why."""

    engine: Literal["hf", "vllm"]
    reason: str


def choose(parameters: int, load: Load | None, device: str, installed: bool, fits: bool) -> Choice:
    """The engine that takes less time by the rates of ``device`` ('cpu' or 'cuda')."""
    if not installed:
        return Choice("hf", "vllm is not installed")
    if load is None:
        return Choice("hf", "how much is asked is not known beforehand")
    if not fits:
        return Choice("hf", "vllm does not fit beside the model that attacks change")
    hf, vllm = (RATES[device, name].seconds(parameters, load) for name in ("hf", "vllm"))
    engine: Literal["hf", "vllm"] = "vllm" if vllm < hf else "hf"
    return Choice(engine, f"by the cost model vllm takes {vllm:.0f} s for each model, hf {hf:.0f} s")


@dataclass(frozen=True)
class Sharing:
    """How vLLM and the live model share one device."""

    how: Literal["side by side", "sleep", "no room"]
    """'sleep': vLLM's weights go to main memory while an attack trains."""
    engine_bytes: int
    """What vLLM may take, its weights and its cache."""

    def __str__(self) -> str:
        if self.how == "no room":
            return f"no room: vllm wants {self.engine_bytes / GIB:.1f} GiB beside the model"
        return f"{self.how}, {self.engine_bytes / GIB:.1f} GiB for vllm"


def share(live: int, served: int, cache: int, free: int, host_free: int, can_sleep: bool) -> Sharing:
    """How to share a device on which the live model of ``live`` bytes already lies. All in bytes.

    Full fine-tuning with AdamW takes four times the weights more: a copy to restore, gradients and two moments. vLLM
    takes its own copy of ``served`` bytes, a ``cache`` of keys and values, and a gibibyte to work in. Where both do
    not fit at once, vLLM sleeps at level 1 while an attack trains; never at level 2, which loses weights under
    adapters.
    """
    engine = served + cache + GIB
    training = 4 * live
    if engine + training <= free:
        return Sharing("side by side", engine)
    if can_sleep and max(engine, training) <= free and served <= host_free:
        return Sharing("sleep", engine)
    return Sharing("no room", engine)


def free_memory(device: torch.device) -> int:
    """Bytes free on ``device``: of a GPU, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []:
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


RATES = {
    ("cpu", "hf"): Rate((0.0, 0.0), (1e-3, 0.14), (3e-5, 0.008), (0.0, 0.0)),
    ("cpu", "vllm"): Rate((40.0, 0.0), (1.6e-3, 0.035), (7e-5, 0.0075), (0.25, 60.0)),
    ("cuda", "hf"): Rate((0.0, 0.0), (2e-4, 2e-4), (2e-6, 1e-5), (0.0, 0.0)),
    ("cuda", "vllm"): Rate((90.0, 0.0), (1e-5, 2e-5), (2e-6, 5e-6), (1.0, 2.0)),
}
"""CPU: measured on one thread with models of 1 and 135 million parameters. CUDA: assumed, not measured."""
