"""Write a made model as any model folder, with its history beside it."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from immunobench.dataset_builders.storage import check_free
from immunobench.errors import disk_errors
from immunobench.subjects import HISTORY_FILE, History, Subject


def save_subject(subject: Subject, history: History, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """Write model, tokenizer and history to ``folder``; ``dtype`` stores the weights in that type.

    The folder appears whole or not at all; the subject's own weights are left rounded to ``dtype``. Raises
    ImmunobenchError where the folder exists with something in it, or the disk refuses.
    """
    check_free(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    model = subject.model
    before = next(model.parameters()).dtype
    with disk_errors(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if dtype is not None:
                model.to(dtype)
            model.save_pretrained(temporary)  # type: ignore[operator]
            subject.tokenizer.save_pretrained(temporary)
            (temporary / HISTORY_FILE).write_text(json.dumps(_portable(history, folder), indent=1) + "\n")
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            model.to(before)
    return folder


def _portable(history: History, folder: Path) -> dict[str, Any]:
    """The history with references in folders named from the model's own, so that both can be moved together."""
    fields = asdict(history)
    for key in ("exposed", "never_exposed"):
        name = fields[key]
        if name and name != "." and Path(name).is_dir():
            fields[key] = f"./{os.path.relpath(name, folder)}"
    return fields
