"""The store under fire: whatever is written, cut off, filled up and flipped, in any order, by real processes."""

import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from immunobench.errors import ImmunobenchError
from immunobench.study.cell import Cell, Failure
from immunobench.study.store import Store, write_json
from tests.study.synthetic import cell_tables, level
from tests.study.test_store import in_a_fork

Content = tuple[Cell, pa.Table, pa.Table]
SYSCALLS = ("mkdir", "rename", "fsync")
"""Calls at which a writer may die; each write makes eight of them."""


def made(seed: int, version: int) -> Content:
    """A cell, whose measurements differ by version as those of a GPU may."""
    cell, items, transcripts = cell_tables({("", 0): level(0.5 + version / 10, refused=0.5)}, {"seed": seed})
    return cell.model_copy(update={"environment": {"version": version}}), items, transcripts


CONTENTS = {(seed, version): made(seed, version) for seed in range(2) for version in range(3)}
FILES = ["items.parquet", "transcripts.parquet", "cell.json"]
SEEDS, VERSIONS = st.integers(0, 1), st.integers(0, 2)


def dying_at(call: int) -> None:
    """From now on this process ends, without cleaning up, in place of the ``call``-th of its system calls."""
    left = iter(range(call))

    def deadly(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def run(*arguments: object, **options: object) -> object:
            if next(left, None) is None:
                os._exit(9)
            return real(*arguments, **options)

        return run

    for name in SYSCALLS:
        setattr(os, name, deadly(name))


class StoreUnderFire(RuleBasedStateMachine):
    """``done`` is what must be there: nothing of it may be lost, and nothing else may pass for done."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.done: dict[int, int] = {}
        """Seed -> version of every cell that is done."""
        self.damaged: set[int] = set()

    @initialize()
    def start(self) -> None:
        self.store = Store(self.root / "study")

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def settle(self, seed: int, versions: set[int]) -> None:
        """What a write that may or may not have come to its end left."""
        if seed in self.done or seed in self.damaged:
            return
        cell = self.store.read(CONTENTS[seed, 0][0].cell_id)
        if cell is not None and cell.status == "done":
            assert cell.environment["version"] in versions
            self.done[seed] = cell.environment["version"]

    @rule(seed=SEEDS, version=VERSIONS)
    def write(self, seed: int, version: int) -> None:
        if seed in self.damaged:
            return
        stored = self.store.write(*CONTENTS[seed, version])
        assert stored.environment["version"] == self.done.setdefault(seed, version), "the first one stays"

    @rule(seed=SEEDS)
    def write_an_error(self, seed: int) -> None:
        if seed in self.damaged:
            return
        cell, items, transcripts = CONTENTS[seed, 0]
        failure = Failure(type="E", message="m", traceback="t")
        failed = cell.model_copy(update={"status": "error", "error": failure, "points": []})
        stored = self.store.write(failed, items.slice(0, 0), transcripts.slice(0, 0))
        assert stored.status == ("done" if seed in self.done else "error")

    @rule(seed=SEEDS, version=VERSIONS, call=st.integers(0, 8))
    def crash(self, seed: int, version: int, call: int) -> None:
        def body() -> None:
            dying_at(call)
            self.store.write(*CONTENTS[seed, version])

        assert in_a_fork(body) in (0, 1, 9)
        self.settle(seed, {version})

    @rule(seed=SEEDS, version=VERSIONS, most=st.integers(0, 4000), killed=st.booleans())
    def full_disk(self, seed: int, version: int, most: int, killed: bool) -> None:
        """No file may grow further: the write is refused, or the process dies in the middle of it."""

        def body() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            try:
                self.store.write(*CONTENTS[seed, version])
            except ImmunobenchError as error:
                assert "free space" in str(error) or "is damaged" in str(error)

        assert in_a_fork(body) in ((0, -signal.SIGXFSZ) if killed else (0,))
        self.settle(seed, {version})

    @rule(seed=SEEDS, first=VERSIONS, second=VERSIONS)
    def two_writers(self, seed: int, first: int, second: int) -> None:
        if seed in self.damaged:
            return
        children = []
        for version in (first, second):
            child = os.fork()
            if child == 0:
                try:
                    self.store.write(*CONTENTS[seed, version])
                finally:
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        self.settle(seed, {first, second})
        assert seed in self.done

    @rule(seed=SEEDS, name=st.sampled_from(FILES[:2]), bit=st.integers(0, 10**6))
    def flip(self, seed: int, name: str, bit: int) -> None:
        self.damage(seed, name, lambda content: _flipped(content, bit))

    @rule(seed=SEEDS, name=st.sampled_from(FILES), keep=st.floats(0, 0.99))
    def truncate(self, seed: int, name: str, keep: float) -> None:
        self.damage(seed, name, lambda content: content[: int(keep * len(content))])

    def damage(self, seed: int, name: str, change: Callable[[bytes], bytes]) -> None:
        if seed in self.done and seed not in self.damaged:
            path = self.store.root / CONTENTS[seed, 0][0].cell_id / name
            path.write_bytes(change(path.read_bytes()))
            self.damaged.add(seed)

    @rule(seed=SEEDS)
    def remove_as_told(self, seed: int) -> None:
        if seed in self.damaged:
            shutil.rmtree(self.store.root / CONTENTS[seed, 0][0].cell_id)
            self.damaged.remove(seed)
            del self.done[seed]

    @rule()
    def open_again(self) -> None:
        self.store = Store(self.root / "study")
        write_json(self.store.root / "study.json", {"done": len(self.done)})

    @invariant()
    def nothing_is_lost_and_nothing_passes_for_done(self) -> None:
        for seed in range(2):
            cell_id = CONTENTS[seed, 0][0].cell_id
            if seed in self.damaged:
                try:
                    self.store.read(cell_id)
                except ImmunobenchError as error:
                    assert f"cell {cell_id} is damaged" in str(error)
                    continue
                raise AssertionError("damage was not seen")
            cell = self.store.read(cell_id)
            if seed not in self.done:
                assert cell is None or cell.status == "error"
                continue
            version = self.done[seed]
            assert cell is not None and cell.environment["version"] == version
            assert self.store.items(cell_id).equals(CONTENTS[seed, version][1])
            assert self.store.transcripts(cell_id).equals(CONTENTS[seed, version][2])


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8 % len(content)] ^= 1 << bit % 8
    return bytes(changed)


StoreUnderFire.TestCase.settings = settings(
    max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreUnderFire = StoreUnderFire.TestCase
