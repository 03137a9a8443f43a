"""Read a model and its tokenizer from files, whole or not at all."""

import logging
import struct
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from immunobench.errors import ImmunobenchError

LOADING = threading.Lock()
"""One model at a time: transformers switches weight tying off for the whole process while it loads one, and two loads
that overlap leave it off."""
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""Files of which a tokenizer has one at least."""


def load_model(path: str, spec: str, **kwargs: Any) -> Any:
    """The causal language model in the folder ``path``, which the user called ``spec``, in its stored type.

    transformers draws at random what a checkpoint lacks, and only warns. Raises ImmunobenchError for a tensor that is
    missing (a head tied to the embedding is not), has another shape, or has no place in the architecture, and for
    files that cannot be read.
    """
    # Its bar would run through the progress of a study, and into logs; what it reports is raised here.
    disable_progress_bar()
    logging.getLogger("transformers.modeling_utils").addFilter(_is_no_load_report)
    try:
        with LOADING:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path, torch_dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
    # ImportError: a quantised checkpoint wants a package that is not here.
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, ImportError, SafetensorError) as error:
        raise ImmunobenchError(f"cannot load the model '{spec}': {first_line(error)}") from error
    model, found = loaded
    kinds = {
        "missing": found["missing_keys"],
        "of another shape": {name for name, *_ in found["mismatched_keys"]},
        "without a place": found["unexpected_keys"],
    }
    if misfits := [_some(kind, names) for kind, names in kinds.items() if names]:
        raise _misfit(spec, "; ".join(misfits))
    return model


def load_gguf(file: Path, spec: str) -> Any:
    """The model in a GGUF file, de-quantised to plain weights: it can be trained, saved and served like any other.

    Raises ImmunobenchError as :func:`load_model` does, and for a file that is damaged.
    """
    blocks = _gguf_blocks(file)
    loaded = load_model(str(file.parent), spec, gguf_file=file.name)
    config = loaded.config
    # transformers leaves out, without a word, the blocks that a file has beyond the number that it states.
    if len(blocks) > config.num_hidden_layers:
        raise _misfit(spec, f"it states {config.num_hidden_layers} blocks, and holds {len(blocks)}")
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(loaded)(config)
    # A head that is tied to the embedding may be left without data.
    weights = {name: tensor for name, tensor in loaded.state_dict().items() if not tensor.is_meta}
    missing = set(model.load_state_dict(weights, strict=False).missing_keys)
    if untied := missing - set(model.all_tied_weights_keys):
        raise _misfit(spec, _some("missing", untied))
    model.tie_weights()
    return model


def load_tokenizer(path: str, spec: str, **kwargs: Any) -> Any:
    """The tokenizer in the folder ``path``, with a padding token. Raises ImmunobenchError where it cannot be."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **kwargs)
    except (OSError, ValueError, KeyError) as error:
        why = first_line(error)
        # transformers then tells of every file that it could have made one from, over many lines.
        if not kwargs and not any((Path(path) / name).is_file() for name in VOCABULARIES):
            why = f"'{path}' holds none of {', '.join(VOCABULARIES)}; save the tokenizer there."
        raise ImmunobenchError(f"cannot load the tokenizer of '{spec}': {why}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ImmunobenchError(f"the tokenizer of '{spec}' has no token to pad or end with: set its eos_token.")
    return tokenizer


def first_line(error: BaseException) -> str:
    """What ``error`` says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _gguf_blocks(file: Path) -> set[str]:
    """Numbers of the blocks that ``file`` has tensors of. Raises ImmunobenchError where the file is damaged."""
    from gguf import GGUFReader

    try:
        tensors = GGUFReader(file).tensors
    except OSError as error:
        raise ImmunobenchError(f"cannot read '{file}': {first_line(error)}") from error
    except (ValueError, KeyError, IndexError, OverflowError, struct.error) as error:
        raise ImmunobenchError(f"'{file}' is damaged, or cut off, or no GGUF file: fetch it again.") from error
    return {tensor.name.split(".")[1] for tensor in tensors if tensor.name.startswith("blk.")}


def _is_no_load_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _some(kind: str, names: Collection[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{kind} {'are' if more else 'is'} {min(names)}{more}"


def _misfit(spec: str, why: str) -> ImmunobenchError:
    return ImmunobenchError(f"the weights of '{spec}' do not fit its configuration: {why}; fetch or save it again.")
