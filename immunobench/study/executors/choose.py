"""The executor that a command asks for."""

from pathlib import Path

from immunobench.errors import UsageError, unknown_name
from immunobench.study.executors.base import Executor, InProcess
from immunobench.study.worker import OpenEngine, Worker

EXECUTORS = ("local", "ray")


def choose_executor(
    name: str,
    root: Path,
    open_engine: OpenEngine,
    device: str = "auto",
    workers: int | None = None,
    ray_address: str | None = None,
    task_memory: float | None = None,
) -> Executor:
    """The executor called ``name`` over the store in ``root``; ``task_memory`` in GiB.

    One local worker runs in this process. Raises UsageError for an unknown name, and for more workers than there are
    GPUs or cores.
    """
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS)
    if name == "ray":
        from immunobench.study.executors.cluster import RayCluster, Resources

        if workers is not None and workers < 1:
            raise UsageError("--workers must be at least 1.")
        memory = None if task_memory is None else int(task_memory * 2**30)
        gpus = 0.0 if device == "cpu" else None
        return RayCluster(root, open_engine, ray_address, workers, Resources(gpus=gpus, memory=memory))
    if ray_address is not None or task_memory is not None:
        raise UsageError("--ray-address and --task-memory are for --executor ray.")
    if workers is None or workers == 1:
        return InProcess(Worker(root, open_engine))
    from immunobench.study.executors.local import LocalProcesses, places

    return LocalProcesses(root, open_engine, places(workers, device))
