"""A worker runs one cell after another, keeps its subject loaded, and leaves what it did in the store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from immunobench.attacks.base import Checkpoint
from immunobench.domains import Domain, load_domain
from immunobench.engines.base import Engine, NotServedError, Sampling
from immunobench.errors import ImmunobenchError
from immunobench.protocol.adversary import Adversary, fingerprint
from immunobench.protocol.search import Found
from immunobench.study.adaptive import Search, run_search
from immunobench.study.cell import Cell, Failure, tables
from immunobench.study.claim import claimed
from immunobench.study.execute import Known, Task, answer_tokens, execute
from immunobench.study.store import Store
from immunobench.subjects import load_subject

OpenEngine = Callable[[str], Engine]
"""Loads the subject that a name stands for, into an engine."""
OnPoint = Callable[[Checkpoint], None]


@dataclass(frozen=True)
class Job:
    """A cell to run, by names alone, so that it can be sent anywhere."""

    model: str
    domain: str
    exposed: str
    adversary: Adversary
    seed: int
    max_new_tokens: int | None = None
    """None takes what the subject's context allows."""
    fallback: bool = False
    """Whether only the engine's fallback may run it."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the cells of all its seeds share: model, domain, exposed reference, adversary."""
        return self.model, self.domain, self.exposed, self.adversary.name

    @property
    def points(self) -> int:
        """Checkpoints that will be measured."""
        return self.adversary.instance.outline(self.adversary.budget).points

    @property
    def name(self) -> tuple[str | int, ...]:
        """What tells it from every other job of a study."""
        return *self.key, self.seed, int(self.fallback)


@dataclass(frozen=True)
class Done:
    """What became of a job."""

    job: Job | Search
    state: Literal["done", "kept", "error", "busy"]
    """Run now; stored before; failed and stored as such; or held by another worker, so that it is to be asked again."""
    cell_id: str
    engine: str = ""
    found: Found | None = None
    """What a search found."""


class Worker:
    """Runs jobs over the store in ``root``. One subject is loaded at a time."""

    def __init__(self, root: Path, open_engine: OpenEngine) -> None:
        self.store = Store(root)
        self.open_engine = open_engine
        self._model = ""
        self._engine: Engine | None = None
        self._known: dict[str, Known] = {}

    def run(self, job: Job | Search, on_point: OnPoint = lambda _: None) -> Done:
        """Run ``job`` unless it is stored or another worker is at it.

        Raises ImmunobenchError where the subject cannot be loaded, the store cannot be written or a cell is damaged.
        """
        engine = self._loaded(job.model)
        if isinstance(job, Search):
            found = run_search(job, engine, self.store.root)
            return Done(job, "busy" if found is None else "done", "", found=found)
        domain = load_domain(job.domain)
        backends = [engine] if engine.fallback is None else [engine, engine.fallback]
        backends = backends[-1:] if job.fallback else backends
        task = task_of(job, domain, engine)
        ids = [task.cell_id(backend) for backend in backends]
        if kept := self._stored(job, ids):
            return kept
        with claimed(self.store.root, ids[0], note_of(job, task.identity(backends[0]))) as mine:
            if not mine:
                return Done(job, "busy", ids[0])
            # Another worker may have finished it between the look and the claim.
            return self._stored(job, ids) or self._run(job, task, backends, on_point)

    def close(self) -> None:
        """Free the subject that is loaded."""
        if self._engine is not None:
            self._engine.close()
        self._model, self._engine = "", None

    def _run(self, job: Job, task: Task, backends: Sequence[Engine], on_point: OnPoint) -> Done:
        for engine in backends:
            try:
                done = execute(task, engine, self._known.setdefault(engine.name, {}), on_point)
                break
            except NotServedError:
                if engine is backends[-1]:
                    raise
        cell = self.store.write(*done)
        return Done(job, "error" if cell.status == "error" else "done", cell.cell_id, engine_of(cell))

    def _stored(self, job: Job, cell_ids: Sequence[str]) -> Done | None:
        for cell_id in cell_ids:
            cell = self.store.read(cell_id)
            if cell is not None and cell.status == "done":
                return Done(job, "kept", cell_id, engine_of(cell))
        return None

    def _loaded(self, model: str) -> Engine:
        if self._engine is None or self._model != model:
            self.close()
            self._model, self._engine, self._known = model, self.open_engine(model), {}
        return self._engine


def check_model(model: str) -> None:
    """Load ``model`` once and let it go, so that what is wrong with it is told before hours went into others.

    Raises ImmunobenchError where it cannot be loaded, holds NaN or infinite weights, or has no chat template.
    """
    if not load_subject(model, device="cpu").renderer.has_template:
        raise ImmunobenchError(f"'{model}' has no chat template: add chat_template to its tokenizer.")


def task_of(job: Job, domain: Domain, engine: Engine) -> Task:
    """The task that ``job`` is on the subject of ``engine``."""
    tokens = job.max_new_tokens or answer_tokens(engine.subject)
    return Task(job.adversary, job.seed, domain, Sampling(max_new_tokens=tokens, seed=job.seed), job.exposed)


def note_of(job: Job, identity: dict[str, Any]) -> dict[str, Any]:
    """What a claim says of ``job``: enough to record its failure where the worker dies."""
    return {"job": list(job.name), "identity": identity}


def engine_of(cell: Cell) -> str:
    """Name of the engine that served it."""
    return str(cell.identity["engine"]["name"])


def record_death(store: Store, job: Job | Search, notes: Sequence[dict[str, Any]], why: str) -> Done | None:
    """Store ``job`` as failed after its workers died; None where none of them came as far as to begin it.

    ``notes`` are the claims left behind (see :func:`immunobench.study.claim.abandoned`).
    """
    identity = next((note["identity"] for note in notes if note["job"] == list(job.name)), None)
    if identity is None or isinstance(job, Search):
        return None
    failure = Failure(type="WorkerDied", message=why, traceback=f"{why}; it left no traceback.")
    cell = Cell(cell_id=fingerprint(identity), identity=identity, status="error", error=failure)
    stored = store.write(cell, *tables([]))
    return Done(job, "error", stored.cell_id, engine_of(stored))
