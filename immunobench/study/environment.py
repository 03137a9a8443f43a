"""What a cell was run with, recorded beside its identity: libraries and machine, and nothing that names its owner."""

import platform
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from immunobench import __version__

LIBRARIES = ("torch", "transformers", "numpy", "datasets", "peft")
COMPARED = ("immunobench", *LIBRARIES, "python", "platform", "processor", "accelerator", "threads")
"""What two studies are compared in."""


def environment(started: datetime, seconds: float, device: torch.device) -> dict[str, Any]:
    """Of a cell that was ``started`` then and took so many ``seconds`` on ``device``."""
    return {
        "immunobench": __version__,
        **{library: version(library) for library in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "accelerator": accelerator(device),
        "threads": torch.get_num_threads(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }


@cache
def processor() -> str:
    """The processor's name as its maker gives it; its architecture where the system does not tell."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def accelerator(device: torch.device) -> str:
    """The GPU's name with the CUDA that torch was built for; 'none' on a processor."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return "none" if device.type == "cpu" else device.type
