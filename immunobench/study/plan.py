"""How large a study is, before it runs: cells, checkpoints, time and memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from immunobench.attacks.base import Budget, Checkpoint, Cost, left_by
from immunobench.attacks.data import training_data
from immunobench.attacks.learning_rates import SCORED
from immunobench.attacks.training import FineTune
from immunobench.diagnostics.base import peak_memory
from immunobench.domains import Example, load_domain
from immunobench.edits import restored
from immunobench.engines.base import Artifact, Engine, NotServedError
from immunobench.protocol.adversary import Adversary
from immunobench.protocol.search import Plan
from immunobench.study.cell import tables
from immunobench.study.execute import Task, measure
from immunobench.study.run import OpenEngine, Request, applicable, find_trials, tasks, work
from immunobench.study.store import parquet
from immunobench.subjects import Subject
from immunobench.training import Recipe, train

STEPS = 4
"""Training steps of a calibration; the first one is not timed."""
CELL_BYTES = 6_000
"""Size of a cell.json, and of what parquet files hold beside their rows."""
MEMORY_COPIES = 2
"""Copies of the largest model that a study may hold beyond what calibrating does: the exposed reference that some
attacks compare with, and one to compute with."""


def size(request: Request) -> tuple[int, int]:
    """Checkpoints and cells of a study. Needs no model; raises UsageError as ``find_trials`` does."""
    rows = request.rows()
    domains = [load_domain(domain) for trials in work(find_trials(request)).values() for domain, _ in trials]
    outlines = [row.instance.outline(row.budget) for domain in domains for row in applicable(rows, domain)]
    return request.seeds * sum(outline.points for outline in outlines), request.seeds * len(outlines)


@dataclass(frozen=True)
class Calibration:
    """What the parts of a cell take on this machine, measured once for each model and engine."""

    point: float
    """Seconds of the probes at a checkpoint in the middle of a variant."""
    last_point: float
    """The same at the end of a variant, generation included."""
    token: float
    """Seconds of training on one token, forward and backward."""
    point_bytes: int
    """Stored at a checkpoint in the middle of a variant."""
    last_point_bytes: int
    tokens: Callable[[Task], float]
    """Mean length of an example that a task trains on."""
    swap: float = 0.0
    """Seconds in which the engine takes over changed weights and is compared with them."""

    def seconds(self, task: Task) -> float:
        """Time that a cell will take.

        Each training run begins at the untouched model, which is measured once for all cells of a model.
        """
        attack = task.adversary.instance
        outline = attack.outline(task.adversary.budget)
        known = outline.variants if attack.access == "training" else 0
        probes = (outline.points - outline.variants - known) * self.point + outline.variants * self.last_point
        training = outline.trained_on(task.domain) * self.tokens(task) * self.token
        swaps = (outline.points - known) * self.swap if attack.access in ("weights", "training") else 0.0
        return max(0.0, probes) + training + swaps + self._choosing(task)

    def trial(self, task: Task) -> float:
        """Time of one trial of the adaptive search, which measures half the items and generates nothing."""
        outline = task.adversary.instance.outline(task.adversary.budget)
        training = outline.trained_on(task.domain) * self.tokens(task) * self.token
        return outline.points * self.point / 2 + training

    def _choosing(self, task: Task) -> float:
        """Time to score the short runs that choose a learning rate: on a part of what a checkpoint measures."""
        attack = task.adversary.instance
        if not getattr(attack, "trial_steps", 0):
            return 0.0
        measured = len(task.domain.hazard_v) + len(task.domain.benign_v)
        looks = len(getattr(attack, "learning_rates", ())) + 1
        return looks * self.point * min(1.0, 2 * SCORED / max(1, measured))

    def bytes(self, task: Task) -> int:
        """What a cell will take on disk."""
        outline = task.adversary.instance.outline(task.adversary.budget)
        middle = outline.points - outline.variants
        return CELL_BYTES + middle * self.point_bytes + outline.variants * self.last_point_bytes


def estimate(request: Request, open_engine: OpenEngine) -> dict[str, Any]:
    """Cells with their checkpoints, seconds and bytes, the sums of these, memory in GiB,
    and each model's engine.

    Calibrates on each model: two sets of probes and a few training steps, on the engine and on its fallback, which
    runs what the engine does not serve and measures its own baseline. Seconds are of one worker.
    """
    rows = request.rows()
    cells: list[dict[str, Any]] = []
    engines, memory, searching, starting, seeds = [], 0.0, 0.0, 0.0, request.seed_range
    for model, trials in work(find_trials(request)).items():
        engine, clock = open_engine(model), time.monotonic()
        engine.start()
        starting += time.monotonic() - clock
        engines.append(f"{model}: {_described(engine)}")
        size_bytes = sum(p.numel() * p.element_size() for p in engine.subject.model.parameters())
        for domain, exposed in trials:
            found = list(tasks(request, rows, load_domain(domain), engine.subject, exposed))
            speed = calibrate(found[0], engine)
            slower = calibrate(found[0], engine.fallback) if engine.fallback else speed
            memory = max(memory, (peak_memory(engine.subject.device) + MEMORY_COPIES * size_bytes) / 2**30)
            if (search := request.search) is not None and found[0].domain.has_facts:
                found += [_winner(found[0], search, place, seed) for place in range(search.winners) for seed in seeds]
                if model in request.subjects:
                    searching += search.trials * speed.trial(_winner(found[0], search, 0, 0))
            by_fallback = [task for task in found if not _served(task, engine)]
            cells += [_planned(model, task, slower if task in by_fallback else speed) for task in found]
            if engine.fallback and by_fallback:
                cells += [_planned(model, task, slower) for task in found if task.adversary.name == "none"]
        engine.close()
    seconds = starting + searching + sum(c["seconds"] for c in cells)
    return {
        "cells": cells,
        "seconds": seconds,
        "search_seconds": searching,
        "start_seconds": starting,
        "disk_bytes": sum(c["bytes"] for c in cells),
        "memory_gib": round(memory, 2),
        "engines": engines,
    }


def _served(task: Task, engine: Engine) -> bool:
    return all(engine.serves(Artifact(kind)) for kind in left_by(task.adversary.instance))


def _planned(model: str, task: Task, speed: Calibration) -> dict[str, Any]:
    return {
        "subject": model,
        "adversary": task.adversary.name,
        "seed": task.seed,
        "points": task.adversary.instance.outline(task.adversary.budget).points,
        "seconds": round(speed.seconds(task), 1),
        "bytes": speed.bytes(task),
    }


def _winner(task: Task, search: Plan, place: int, seed: int) -> Task:
    """What a winner of the search, or a trial of it, will be like at its dearest: a training run."""
    settings = {"data": "t-facts", "learning_rates": (1e-3,)}
    attack = "immunobench.attacks.training.FineTune"
    adversary = Adversary(f"adaptive-{place + 1}", "adaptive", attack, "", settings, Budget(search.steps))
    return replace(task, adversary=adversary, seed=seed)


def _described(engine: Engine) -> str:
    """Name of the engine, why it was chosen, and how it shares memory."""
    memory = engine.resolved.get("memory")
    shared = f"; memory: {memory['how']}, {memory['engine_bytes'] / 2**30:.1f} GiB for vllm" if memory else ""
    return f"{engine.name} ({engine.resolved.get('chosen', 'asked for')}){shared}"


def calibrate(task: Task, engine: Engine) -> Calibration:
    """Measure one checkpoint of each kind and a few training steps, and leave the model as it was."""
    seconds, sizes = [], []
    for last in (False, True):
        clock = time.monotonic()
        rows = measure(task, engine, Checkpoint(Cost(), Artifact(), last=last), {})
        seconds.append(time.monotonic() - clock)
        sizes.append(sum(len(parquet(table)) for table in tables([(0, row) for row in rows])))
    subject = engine.subject
    examples = list(task.domain.unrelated[:64])
    with restored(subject.model):
        steps = train(subject, examples, Recipe(0.0, STEPS), seed=0)
        next(steps)
        first = next(steps)
        clock = time.monotonic()
        last_step = list(steps)[-1]
        token = (time.monotonic() - clock) / (last_step.tokens - first.tokens)
    usual = _length(subject, examples)

    @lru_cache
    def length(data: str) -> float:
        return _length(subject, [e for phase in training_data(task.domain, data, 0) for e in phase.examples])

    def tokens(asked: Task) -> float:
        attack = asked.adversary.instance
        return length(attack.data) if isinstance(attack, FineTune) else usual

    return Calibration(seconds[0], seconds[1], token, sizes[0], sizes[1], tokens, _swap(engine))


def _swap(engine: Engine) -> float:
    """Seconds in which ``engine`` takes over the weights; none where it runs the live ones or does not serve them."""
    if engine.fallback is None:
        return 0.0
    clock = time.monotonic()
    try:
        with engine.use(Artifact("weights")):
            return time.monotonic() - clock
    except NotServedError:
        return 0.0


def _length(subject: Subject, examples: Sequence[Example]) -> float:
    """Mean tokens of an example."""
    rendered = [subject.renderer.example(example) for example in examples[:256]]
    return sum(len(r.prompt) + len(r.response) for r in rendered) / len(rendered)
