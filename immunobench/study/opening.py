"""Open a subject in the engine that was asked for, or in the one that pays."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Literal

import torch

from immunobench.attacks.base import left_by
from immunobench.domains import load_domain
from immunobench.engines.base import Engine
from immunobench.engines.hf import HFEngine
from immunobench.engines.placement import GIB, Choice, Load, Sharing, choose, free_memory, share
from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_settings import Settings, installed_version, resolve, serves
from immunobench.errors import ImmunobenchError, UsageError, unknown_name
from immunobench.study.execute import answer_tokens
from immunobench.study.request import Request
from immunobench.subjects import DTYPES, Subject

EngineName = Literal["auto", "hf", "vllm"]
ENGINES: tuple[EngineName, ...] = ("auto", "hf", "vllm")
TOKENS_A_CHOICE = 40
"""Tokens of a question with one of its choices, as an estimate."""
ANSWERED = 0.5
"""Share of the longest answer that an answer takes, as an estimate."""


@dataclass(frozen=True)
class Opener:
    """How the models of one study are opened; all of them in the same engine."""

    engine: EngineName = "auto"
    settings: Settings = Settings()
    request: Request | None = None
    """What will be asked; where it is not known, 'auto' is the transformers engine."""
    warn: Callable[[str], None] = warnings.warn
    """Told in a sentence when 'auto' falls back."""

    def choice(self, subject: Subject) -> Choice:
        """The engine for ``subject``. Raises ImmunobenchError where vllm was asked for and cannot be."""
        if self.engine == "hf":
            return Choice("hf", "asked for")
        sharing = sharing_of(subject, self.settings)
        if self.engine == "vllm":
            if sharing.how == "no room":
                raise ImmunobenchError(f"vllm does not fit here ({sharing}): choose --engine hf.")
            return Choice("vllm", "asked for")
        if parent_process() is not None:
            # Each would choose by the memory that it finds free, while the others start theirs.
            return Choice("hf", "several workers take vllm only where it is asked for by name")
        load = None if self.request is None else load_of(self.request, subject, self.settings)
        installed = installed_version() is not None
        return choose(subject.parameters, load, subject.device.type, installed, sharing.how != "no room")

    def open(self, subject: Subject) -> tuple[Engine, "Opener"]:
        """The engine, and the opener of the study's next models, which settles on the same one.

        Where 'auto' takes vllm it is started here, before any cell is made, and the transformers engine takes the study
        with a warning if it does not start, or not as the very model. Raises ImmunobenchError where vllm was asked for
        and cannot be.
        """
        choice = self.choice(subject)
        engine: Engine = HFEngine(subject)
        if choice.engine == "vllm":
            engine = VLLMEngine(subject, self.settings, sharing_of(subject, self.settings))
            if self.engine == "auto":
                try:
                    engine.start()
                except ImmunobenchError as error:
                    choice = Choice("hf", f"vllm was to run it and failed: {error}")
                    self.warn(f"the engine hf takes this study, for vllm failed: {error}")
                    engine = HFEngine(subject)
        engine.resolved["chosen"] = choice.reason
        return engine, replace(self, engine=choice.engine)


def sharing_of(subject: Subject, settings: Settings) -> Sharing:
    """How vLLM and the live model would share the subject's device."""
    resolved = resolve(settings, subject)
    live = sum(p.numel() * p.element_size() for p in subject.model.parameters())
    served = subject.parameters * DTYPES[resolved.dtype].itemsize
    cache = int(resolved.cache_gib * GIB)
    free, host_free = free_memory(subject.device), free_memory(torch.device("cpu"))
    return share(live, served, cache, free, host_free, can_sleep=subject.device.type == "cuda")


def engine_of_study(root: Path) -> EngineName:
    """The engine that the cells in ``root`` were made on, 'auto' where there are none.

    Chosen again by the memory that is free now, another one would make every cell anew.
    """
    for file in sorted(root.glob("*/cell.json")):
        try:
            engine = json.loads(file.read_text())["identity"]["engine"]
        except (ValueError, KeyError):  # a damaged cell is told of where it is read
            continue
        return "vllm" if "vllm" in (engine["name"], engine.get("instead_of")) else "hf"
    return "auto"


def load_of(request: Request, subject: Subject, vllm: Settings = Settings()) -> Load:
    """What a study asks of one model, estimated from the sizes of its domain and the outlines of its adversaries.

    Those that vLLM started with these settings leaves to the transformers engine cost the same on either, and are left
    out.
    """
    domain = load_domain(request.domain or subject.history.domain)
    longest = request.max_new_tokens or answer_tokens(subject)
    facts = [*domain.hazard_v, *domain.benign_v]
    scored = TOKENS_A_CHOICE * (sum(len(fact.choices) for fact in facts) + len(domain.neutral))
    generated = int(ANSWERED * longest * len(domain.requests_v))
    load, settings = Load(), resolve(vllm, subject)
    for row in request.rows():
        kinds = left_by(row.instance)
        if not all(serves(settings, kind) for kind in kinds):
            continue
        outline = row.instance.outline(row.budget)
        swaps = outline.points if {"weights", "adapter"} & {*kinds} else 0
        load = Load(
            load.generated + request.seeds * outline.variants * generated * getattr(row.instance, "n", 1),
            load.scored + request.seeds * outline.points * scored,
            load.swaps + request.seeds * swaps,
        )
    return load


def engine_settings(pairs: Sequence[str]) -> Settings:
    """vLLM's settings from texts such as 'tensor_parallel_size=2'. Raises UsageError for what is none."""
    known = {field.name: field.type for field in fields(Settings)}
    chosen: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in known:
            raise unknown_name("engine setting", name, known)
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if not isinstance(value, _types(known[name])):
            raise UsageError(
                f"engine setting '{pair}' does not fit: {name} is {getattr(known[name], '__name__', known[name])}."
            )
        chosen[name] = value
    if chosen.get("dtype") not in (None, *DTYPES):
        raise unknown_name("dtype", chosen["dtype"], DTYPES)
    return Settings(**chosen)


def _types(annotation: Any) -> tuple[type, ...]:
    """The types that an annotation such as ``int | None`` allows; a whole number is a number too."""
    allowed = getattr(annotation, "__args__", (annotation,))
    return (*allowed, int) if float in allowed else tuple(allowed)
