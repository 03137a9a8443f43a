"""Can this subject be run here? Every question has an answer, whether the others passed or not."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from immunobench.engines.placement import free_memory
from immunobench.engines.vllm_settings import Settings, installed_version
from immunobench.errors import ImmunobenchError
from immunobench.rendering import PromptEdit, Renderer
from immunobench.study.opening import sharing_of
from immunobench.subjects import History, Subject, find_history, load_subject


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    name: str
    ok: bool
    finding: str


def examine(spec: str, device: str, dtype: str, out: Path) -> list[Check]:
    """Load the subject and look: access, architecture, template, BOS, memory, references, disk."""
    try:
        subject = load_subject(spec, device, dtype)
    except ImmunobenchError as error:
        return [Check("access", False, str(error))]
    return list(_checks(subject, out))


def _checks(subject: Subject, out: Path) -> Iterator[Check]:
    yield Check("access", True, f"{subject.parameters:,} parameters from {subject.source}")
    try:
        blocks, linears = len(subject.structure.blocks), len(subject.structure.linears)
        yield Check("architecture", True, f"{type(subject.model).__name__}: {blocks} blocks, {linears} linears")
    except ImmunobenchError as error:
        yield Check("architecture", False, str(error))
    yield from _rendering(subject)
    yield _memory(subject)
    yield _engine(subject)
    yield _references(subject.history)
    folder = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free / 2**30
    yield Check("disk", free > 1, f"{free:.0f} GiB free at {folder}")


def _rendering(subject: Subject) -> Iterator[Check]:
    renderer = subject.renderer
    if not renderer.has_template:
        yield Check("template", False, "no chat template: add one to the tokenizer")
        return
    ids = renderer.prompt("Hello", PromptEdit())
    yield Check("template", True, repr(subject.tokenizer.decode(ids)))
    yield _bos(renderer)


def _bos(renderer: Renderer) -> Check:
    """How many BOS the template's own text begins with. The renderer keeps one; other software would keep all."""
    if renderer.bos is None:
        return Check("bos", True, "the tokenizer has no BOS")
    own = renderer.ids(renderer.chat_text("Hello", PromptEdit()))
    printed = next((i for i, token in enumerate(own) if token != renderer.bos), len(own))
    if printed > 1:
        return Check(
            "bos",
            False,
            f"the template prints BOS {printed} times: here all but one are removed, elsewhere they are not",
        )
    adds = "adds one" if renderer.adds_bos else "adds none"
    sent = "with one" if renderer.prompt("Hello")[:1] == [renderer.bos] else "with none"
    return Check("bos", True, f"the template prints {printed or 'no'} BOS, the tokenizer {adds}: prompts begin {sent}")


def _references(history: History) -> Check:
    """Whether the models that the subject is compared with are known, and there."""
    if history.exposed is None:
        missing = "no exposed reference: make one with 'immunobench implant', or name it with --exposed"
        return Check("references", False, missing)
    for name in filter(None, (history.exposed, history.never_exposed)):
        try:
            find_history(name)
        except ImmunobenchError as error:
            return Check("references", False, str(error))
    stands_in = "none: the unattacked subject stands in"
    found = f"exposed {history.exposed}, never-exposed {history.never_exposed or stands_in}"
    return Check("references", True, found)


def _engine(subject: Subject) -> Check:
    """Which engines can be had here, and how vLLM would share the device with the model that attacks change."""
    found = installed_version()
    vllm = f"vllm {found}: {sharing_of(subject, Settings())}" if found else "vllm is not installed"
    return Check("engine", True, f"hf on {subject.device}; {vllm}; 'immunobench plan' says which one a study takes")


def _memory(subject: Subject) -> Check:
    """Full fine-tuning with AdamW holds weights, a copy to restore, gradients and two moments."""
    size = sum(p.numel() * p.element_size() for p in subject.model.parameters())
    wanted = 5 * size / 2**30
    free = free_memory(subject.device) / 2**30
    fits = wanted < free + size / 2**30
    return Check("memory", fits, f"full fine-tuning wants {wanted:.1f} GiB, {free:.1f} are free")
