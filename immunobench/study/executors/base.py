"""The Executor protocol, and the one that runs cells in this process."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from immunobench.study.adaptive import Search
from immunobench.study.worker import Done, Job, OnPoint, Worker, check_model

RETRIES = 2
"""How often a job is tried again whose worker died. One that kills its third worker is recorded as failed."""


OnStart = Callable[[Job | Search], None]
"""Told which job begins."""


class Executor(Protocol):
    """Runs jobs somewhere."""

    def check(self, models: Sequence[str]) -> None:
        """Load each of ``models`` once where there is memory for it. Raises ImmunobenchError as ``check_model`` does.

        Nothing of it is kept: the workers load them anew, one after another.
        """
        ...

    def run(self, jobs: deque[Job | Search], on_start: OnStart, on_point: OnPoint) -> Iterator[Done]:
        """What becomes of every job, in the order they finish; jobs may be added and cleared meanwhile.

        Only where jobs run in this process is ``on_point`` told of each checkpoint.
        A job whose worker dies is tried again. Raises ImmunobenchError as a worker does.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class InProcess:
    """One job after another in this process."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def check(self, models: Sequence[str]) -> None:
        """See :class:`Executor`."""
        for model in models:
            check_model(model)

    def run(self, jobs: deque[Job | Search], on_start: OnStart, on_point: OnPoint) -> Iterator[Done]:
        """See :class:`Executor`."""
        while jobs:
            job = jobs.popleft()
            on_start(job)
            yield self.worker.run(job, on_point)

    def close(self) -> None:
        """Free the subject."""
        self.worker.close()
