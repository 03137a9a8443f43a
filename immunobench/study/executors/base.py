"""The Executor protocol, and the one that runs cells in this process."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from immunobench.study.adaptive import Search
from immunobench.study.worker import Done, Job, OnPoint, Worker

RETRIES = 2
"""How often a job is tried again whose worker died. One that kills its third worker is recorded as failed."""


OnStart = Callable[[Job | Search], None]
"""Told which job begins."""


class Executor(Protocol):
    """Runs jobs somewhere."""

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

    def run(self, jobs: deque[Job | Search], on_start: OnStart, on_point: OnPoint) -> Iterator[Done]:
        """See :class:`Executor`."""
        while jobs:
            job = jobs.popleft()
            on_start(job)
            yield self.worker.run(job, on_point)

    def close(self) -> None:
        """Free the subject."""
        self.worker.close()
