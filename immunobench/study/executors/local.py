"""Several processes on this machine, each with its own GPU or its own group of cores."""

import multiprocessing
import os
import pickle
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from immunobench.errors import ImmunobenchError, UsageError
from immunobench.study.adaptive import Search
from immunobench.study.claim import abandoned
from immunobench.study.executors.base import RETRIES, OnStart
from immunobench.study.store import Store
from immunobench.study.worker import Done, Job, OnPoint, OpenEngine, Worker, check_model, record_death

LEAVING = 20.0
"""Seconds that a worker has to end its engine before it is killed."""


@dataclass(frozen=True)
class Place:
    """What one worker has to itself."""

    cores: tuple[int, ...]
    gpu: str | None = None
    """As CUDA_VISIBLE_DEVICES takes it."""


@dataclass
class Hand:
    """A worker process as its coordinator sees it."""

    place: Place
    process: BaseProcess
    pipe: Connection
    model: str = ""
    """The subject that it has loaded."""
    job: Job | Search | None = None


class LocalProcesses:
    """Workers as processes. One that dies is replaced, and its job is tried again."""

    def __init__(self, root: Path, open_engine: OpenEngine, places: Sequence[Place]) -> None:
        try:
            self._payload = pickle.dumps((root, open_engine))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(f"the engine cannot be opened in another process ({error}): use one worker.") from error
        self._store = Store(root)
        self._context = multiprocessing.get_context("spawn")
        self._places = list(places)
        self._hands: list[Hand] = []
        self._deaths: Counter[tuple[str | int, ...]] = Counter()

    def check(self, models: Sequence[str]) -> None:
        """See :class:`Executor`."""
        for model in models:
            check_model(model)

    def run(self, jobs: deque[Job | Search], on_start: OnStart, on_point: OnPoint) -> Iterator[Done]:
        """See :class:`Executor`."""
        while jobs or any(hand.job for hand in self._hands):
            for hand in self._free(len(jobs)):
                if jobs:
                    self._send(hand, jobs, on_start)
            waited = [hand for hand in self._hands if hand.job]
            ready = wait([hand.pipe for hand in waited])
            for hand in waited:
                if hand.pipe in ready and (done := self._received(hand, jobs)):
                    yield done

    def close(self) -> None:
        """End the workers and what they started; what they had not finished is not in the store."""
        for hand in self._hands:
            hand.process.terminate()
        for hand in self._hands:
            hand.process.join(LEAVING)
            hand.process.kill()
            hand.process.join()
            hand.pipe.close()
        self._hands = []

    def _free(self, wanted: int) -> list[Hand]:
        """Workers without a job, new ones among them as long as there are places."""
        free = [hand for hand in self._hands if hand.job is None]
        for place in self._places[len(self._hands) :][: max(0, wanted - len(free))]:
            free.append(self._start(place))
            self._hands.append(free[-1])
        return free

    def _start(self, place: Place) -> Hand:
        ours, theirs = self._context.Pipe()
        # Not a daemon: an engine may need processes of its own. It leaves by itself when the coordinator is gone.
        process = self._context.Process(target=_work, args=(theirs, place, self._payload))
        process.start()
        theirs.close()
        return Hand(place, process, ours)

    def _send(self, hand: Hand, jobs: deque[Job | Search], on_start: OnStart) -> None:
        """The first job on the subject that the worker has loaded, or the first of all."""
        job = next((job for job in jobs if job.model == hand.model), jobs[0])
        jobs.remove(job)
        hand.job, hand.model = job, job.model
        on_start(job)
        try:
            hand.pipe.send(job)
        except OSError:
            return  # it is dead: waiting for it says so

    def _received(self, hand: Hand, jobs: deque[Job | Search]) -> Done | None:
        """What the worker says of its job, or None where it died and the job is tried again."""
        job, hand.job = hand.job, None
        assert job is not None
        try:
            said = hand.pipe.recv()
        except (EOFError, OSError):
            return self._buried(hand, job, jobs)
        if isinstance(said, BaseException):
            raise said
        assert isinstance(said, Done)
        return said

    def _buried(self, hand: Hand, job: Job | Search, jobs: deque[Job | Search]) -> Done | None:
        hand.process.join()
        hand.pipe.close()
        self._hands[self._hands.index(hand)] = self._start(hand.place)
        self._deaths[job.name] += 1
        if self._deaths[job.name] <= RETRIES:
            jobs.appendleft(job)
            return None
        why = f"the worker died {self._deaths[job.name]} times, the last time with exit code {hand.process.exitcode}"
        done = record_death(self._store, job, abandoned(self._store.root), why)
        if done is None:
            raise ImmunobenchError(f"{why}, before it began a cell of '{job.model}': see whether it fits into memory.")
        return done


def places(workers: int, device: str) -> list[Place]:
    """A GPU, or an equal share of the cores, for each worker. Raises UsageError for more workers than there are.

    Two workers may share a single core, so that a command written for two cores goes through, slowly, on one.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    gpus = _gpus() if device in ("auto", "cuda") else []
    if not 1 <= workers <= (len(gpus) or max(2, len(cores))):
        there = f"{len(gpus)} GPUs" if gpus else f"{len(cores)} cores"
        raise UsageError(f"--workers {workers} is out of range: there are {there} here.")
    share = max(1, len(cores) // workers)
    groups = [tuple(cores[i * share : (i + 1) * share] or cores) for i in range(workers)]
    return [Place(group, gpus[i] if gpus else None) for i, group in enumerate(groups)]


def _gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def _work(pipe: Connection, place: Place, payload: bytes) -> None:
    """What a worker process does. Ctrl-C is its coordinator's to answer; asked to leave, it ends its engine first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    if place.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, place.cores)
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(place.cores)))
    import torch

    torch.set_num_threads(max(1, len(place.cores)))
    worker: Worker | None = None
    try:
        while True:
            try:
                job = pipe.recv()
            except EOFError:
                return  # the coordinator is gone
            try:
                worker = worker or Worker(*pickle.loads(payload))
                pipe.send(worker.run(job))
            except Exception as error:
                pipe.send(_sendable(error))
    finally:
        if worker is not None:
            worker.close()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _sendable(error: Exception) -> Exception:
    """``error``, or where it cannot be sent, one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ImmunobenchError(f"{type(error).__name__}: {error}")
    return error
