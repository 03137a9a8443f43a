"""A Ray cluster: every cell a task with the GPUs and the memory that it asks for."""

import os
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunobench.errors import ImmunobenchError
from immunobench.study.adaptive import Search
from immunobench.study.claim import abandoned
from immunobench.study.executors.base import RETRIES, OnStart
from immunobench.study.store import Store
from immunobench.study.worker import Done, Job, OnPoint, OpenEngine, Worker, check_model, record_death

LOOK = 30.0
"""Seconds without a finished task after which it is asked whether any node can run one."""


@dataclass(frozen=True)
class Resources:
    """What a task asks of the cluster."""

    cpus: float = 1.0
    gpus: float | None = None
    """None is one where the cluster has any."""
    memory: int | None = None
    """Bytes; None asks for none in particular."""


class RayCluster:
    """Cells as tasks of a Ray cluster whose nodes share the store's folder.

    Ray runs a task again whose worker or node died. A worker process keeps its subject for the next task.
    """

    def __init__(
        self,
        root: Path,
        open_engine: OpenEngine,
        address: str | None = None,
        workers: int | None = None,
        resources: Resources = Resources(),
    ) -> None:
        self._ray = _imported()
        if not self._ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # A cluster that is there has its dashboard already, or none.
            where = {"include_dashboard": False} if address is None else {"address": address}
            try:
                self._ray.init(log_to_driver=False, logging_level="error", **where)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ImmunobenchError(f"no Ray cluster at '{address}' ({error}): check --ray-address.") from error
        self._store = Store(root)
        has = self._ray.cluster_resources()
        gpus = resources.gpus if resources.gpus is not None else min(1.0, has.get("GPU", 0.0))
        self._workers = workers or max(1, int(has.get("GPU", 0) / gpus if gpus else has.get("CPU", 1) / resources.cpus))
        options = {"num_cpus": resources.cpus, "num_gpus": gpus, "max_retries": RETRIES}
        if resources.memory is not None:
            options["memory"] = resources.memory
        self._asked = {"CPU": resources.cpus, "GPU": gpus, "memory": float(resources.memory or 0)}
        self._task = self._ray.remote(**options)(run_job)
        self._check = self._ray.remote(**options)(check_model)
        self._payload = self._ray.put((uuid.uuid4().hex, root.absolute(), open_engine))

    def check(self, models: Sequence[str]) -> None:
        """See :class:`Executor`. The node of this process may not have the memory that a task has."""
        for model in models:
            loading = self._check.remote(model)
            while not self._ray.wait([loading], timeout=LOOK)[0]:
                self._check_nodes()
            try:
                self._ray.get(loading)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, ImmunobenchError) else error from error
            except self._ray.exceptions.RayError as error:
                died = f"the worker that loaded '{model}' died with {type(error).__name__}"
                raise ImmunobenchError(f"{died}: see whether the model fits into memory.") from error

    def run(self, jobs: deque[Job | Search], on_start: OnStart, on_point: OnPoint) -> Iterator[Done]:
        """See :class:`Executor`."""
        running: dict[Any, Job | Search] = {}
        while jobs or running:
            while jobs and len(running) < self._workers:
                job = jobs.popleft()
                on_start(job)
                running[self._task.remote(self._payload, job)] = job
            finished, _ = self._ray.wait(list(running), num_returns=1, timeout=LOOK)
            if not finished:
                self._check_nodes()
            for ready in finished:
                yield self._result(ready, running.pop(ready))

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()

    def _check_nodes(self) -> None:
        """Raises ImmunobenchError where no node that is up has what a task asks for: it would wait for ever."""
        up = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0.0) >= amount for name, amount in self._asked.items()) for node in up):
            gib = f"{self._asked['memory'] / 2**30:g} GiB of memory"
            asked = f"{self._asked['CPU']:g} CPU, {self._asked['GPU']:g} GPU and {gib}"
            raise ImmunobenchError(
                f"no node of the Ray cluster can run a task, which asks for {asked}: lower --task-memory, or add nodes."
            )

    def _result(self, ready: Any, job: Job | Search) -> Done:
        errors = self._ray.exceptions
        try:
            done: Done = self._ray.get(ready)
            return done
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, ImmunobenchError) else error from error
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        ) as error:
            why = f"the worker died {RETRIES + 1} times, the last time with {type(error).__name__}"
            recorded = record_death(self._store, job, abandoned(self._store.root), why)
            if recorded is None:
                raise ImmunobenchError(
                    f"{why}, before it began a cell of '{job.model}': see whether it fits into memory, and whether "
                    f"all nodes share {self._store.root}."
                ) from error
            return recorded


_WORKERS: dict[str, Worker] = {}
"""The one worker of a Ray process, kept between the tasks of its cluster object: another one may open models
otherwise, over the same folder."""


def run_job(payload: tuple[str, Path, OpenEngine], job: Job | Search) -> Done:
    """One task."""
    mark, root, open_engine = payload
    if mark not in _WORKERS:
        for worker in _WORKERS.values():
            worker.close()
        _WORKERS.clear()
        _WORKERS[mark] = Worker(root, open_engine)
    return _WORKERS[mark].run(job)


def _imported() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise ImmunobenchError("ray is not installed: pip install 'immunobench[ray]'.") from None
    return ray
