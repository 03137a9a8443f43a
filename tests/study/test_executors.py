"""The same cells wherever they run: in processes of this machine and on a Ray cluster, with workers that die."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from immunobench.engines.base import Engine
from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.study.adaptive import Search
from immunobench.study.executors.base import Executor, InProcess
from immunobench.study.executors.choose import choose_executor
from immunobench.study.executors.local import LocalProcesses, Place, places
from immunobench.study.run import Request, run_study
from immunobench.study.store import Store
from immunobench.study.worker import Done
from immunobench.subjects import load_subject
from tests.conftest import STUDIED, Silent

TROUBLE = '''
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from immunobench.attacks.baseline import NoAttack

@dataclass(frozen=True)
class DiesOnce(NoAttack):
    """Kills its worker the first time."""

    def run(self, subject, domain, budget, seed):
        mark = Path(__file__).with_name(f"died-on-{subject.label}")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().run(subject, domain, budget, seed)

@dataclass(frozen=True)
class Poison(NoAttack):
    """Kills every worker that tries it on the subject."""

    def run(self, subject, domain, budget, seed):
        if subject.label == "subject":
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().run(subject, domain, budget, seed)

@dataclass(frozen=True)
class Raises(NoAttack):
    """Fails as Python code does."""

    def run(self, subject, domain, budget, seed):
        raise RuntimeError("the attack is wrong")
        yield
'''


def open_engine(spec: str) -> Engine:
    """Opens a model in a worker."""
    return HFEngine(load_subject(spec))


def study(
    folders: dict[str, Path], root: Path, only: Sequence[str], executor: Executor | None, reporter: Silent | None = None
) -> dict[str, Any]:
    """The record of a study of the tiny subject."""
    asked = Request([str(folders["subject"])], "smoke", only, max_new_tokens=8)
    return run_study(asked, Store(root), open_engine, reporter or Silent(), executor)[1]


def same_measurements(first: Path, second: Path) -> bool:
    """Whether every cell of ``first`` is in ``second`` with the same files."""
    return all(
        (second / path.parent.name / name).read_bytes() == (path.parent / name).read_bytes()
        for path in first.glob("*/cell.json")
        for name in ("items.parquet", "transcripts.parquet")
    )


def outcome(record: dict[str, Any], adversary: str) -> dict[str, Any]:
    [found] = [s["outcome"] for s in record["subjects"][0]["result"]["scores"] if s["adversary"] == adversary]
    return dict(found)


def test_places_share_what_there_is() -> None:
    one, *_ = places(1, "cpu")
    assert one.cores and one.gpu is None
    with pytest.raises(UsageError, match="--workers 1000 is out of range"):
        places(1000, "cpu")


@pytest.mark.parametrize("cores", [(3,), (3, 5), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("gpus", ["", "0"])
def test_two_workers_on_the_processor_fit_on_every_machine(
    monkeypatch: pytest.MonkeyPatch, cores: tuple[int, ...], gpus: str
) -> None:
    """The quickstart's request, with one core or more, and with one GPU that it does not ask for."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cores), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    first, second = places(2, "cpu")
    assert first.gpu is second.gpu is None
    assert first.cores and second.cores and {*first.cores, *second.cores} <= set(cores)
    assert len(cores) == 1 or not {*first.cores} & {*second.cores}
    with pytest.raises(UsageError, match=f"there are {len(cores)} cores here"):
        places(max(2, len(cores)) + 1, "cpu")
    if gpus:
        with pytest.raises(UsageError, match="there are 1 GPUs here"):
            places(2, "auto")


def test_executors_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'local'"):
        choose_executor("locl", tmp_path, open_engine)
    with pytest.raises(UsageError, match="are for --executor ray"):
        choose_executor("local", tmp_path, open_engine, ray_address="auto")
    with pytest.raises(UsageError, match="cannot be opened in another process"):
        LocalProcesses(tmp_path, lambda spec: open_engine(spec), [Place(())])
    executor = choose_executor("local", tmp_path, open_engine)
    assert isinstance(executor, InProcess)
    executor.close()


@dataclass
class Counting:
    """Opens a model in a worker and writes down which process opened which."""

    log: Path

    def __call__(self, spec: str) -> Engine:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {Path(spec).name}\n")
        return open_engine(spec)


def test_a_worker_loads_each_model_once(model_folders: dict[str, Path], tmp_path: Path) -> None:
    count = Counting(tmp_path / "log")
    root = tmp_path / "study"
    asked = Request([str(model_folders["subject"])], "smoke", STUDIED, seeds=2, max_new_tokens=4)
    run_study(asked, Store(root), count, Silent())
    assert [line.split()[1] for line in count.log.read_text().splitlines()] == ["subject", "exposed", "never"]


@pytest.mark.slow
def test_processes_load_each_model_once_each(model_folders: dict[str, Path], tmp_path: Path) -> None:
    count, root = Counting(tmp_path / "log"), tmp_path / "study"
    asked = Request([str(model_folders["subject"])], "smoke", STUDIED, seeds=2, max_new_tokens=4)
    run_study(asked, Store(root), count, Silent(), LocalProcesses(root, count, [Place(()), Place(())]))
    loads = count.log.read_text().splitlines()
    assert len(loads) == len(set(loads)) <= 6 and len({line.split()[0] for line in loads}) == 2


class Noting:
    """An executor that notes what it is given together."""

    live = True

    def __init__(self, own: Executor) -> None:
        self.own = own
        self.given: list[list[str]] = []

    def check(self, models: Any) -> None:
        """Check the models."""
        self.own.check(models)

    def run(self, jobs: Any, on_start: Any, on_point: Any) -> Iterator[Done]:
        """The jobs in the executor underneath."""
        self.given.append([job.model for job in jobs if isinstance(job, Search)])
        yield from self.own.run(jobs, on_start, on_point)

    def close(self) -> None:
        """Close it."""
        self.own.close()


def test_searches_on_several_subjects_are_queued_together(model_folders: dict[str, Path], tmp_path: Path) -> None:
    subjects = [str(model_folders[name]) for name in ("subject", "never")]
    asked = Request(subjects, "smoke", ("none",), max_new_tokens=4, search_trials=1)
    executor = Noting(choose_executor("local", tmp_path, open_engine))
    _, record = run_study(asked, Store(tmp_path), open_engine, Silent(), executor)
    assert [given for given in executor.given if given] == [subjects]
    assert set(record["searches"]) == set(subjects)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster in processes of this machine, with a head that runs nothing and no other node yet."""
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    yield found
    ray.shutdown()
    found.shutdown()


SMALL = {"object_store_memory": 100 * 2**20}
"""What a node may hold."""


@pytest.mark.slow
def test_a_ray_task_that_kills_its_worker_is_tried_again_and_then_recorded(
    model_folders: dict[str, Path], finished_study: Path, tmp_path: Path, cluster: Any
) -> None:
    (tmp_path / "trouble.py").write_text(TROUBLE)
    once, poison = (f"{tmp_path}/trouble.py:{name}" for name in ("DiesOnce", "Poison"))
    cluster.add_node(num_cpus=1, **SMALL)
    cluster.wait_for_nodes()
    root = tmp_path / "study"
    executor = choose_executor("ray", root, open_engine, "cpu", 1, cluster.address)
    record = study(model_folders, root, (*STUDIED, once, poison), executor)
    assert same_measurements(finished_study, root)
    assert (tmp_path / "died-on-subject").exists()
    assert outcome(record, once)["name"] != "invalid", "a worker that died once is no verdict"
    assert "died 3 times" in outcome(record, poison)["reason"]
    stored = [json.loads(path.read_text()) for path in root.glob("*/cell.json")]
    assert [cell["error"]["type"] for cell in stored if cell["error"]] == ["WorkerDied"]


@pytest.mark.slow
def test_a_ray_task_that_no_node_can_run_is_told(
    model_folders: dict[str, Path], tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("immunobench.study.executors.cluster.LOOK", 1.0)
    cluster.add_node(num_cpus=1, **SMALL)
    cluster.wait_for_nodes()
    executor = choose_executor("ray", tmp_path / "study", open_engine, "cpu", 1, cluster.address, 1e6)
    with pytest.raises(ImmunobenchError, match=r"no node .* asks for 1 CPU, 0 GPU and 1e\+06 GiB of memory: lower"):
        study(model_folders, tmp_path / "study", STUDIED, executor)


@pytest.mark.slow
def test_processes_run_the_same_study_and_survive_their_workers(
    model_folders: dict[str, Path], finished_study: Path, tmp_path: Path
) -> None:
    (tmp_path / "trouble.py").write_text(TROUBLE)
    trouble = [f"{tmp_path}/trouble.py:{name}" for name in ("DiesOnce", "Poison", "Raises")]
    root = tmp_path / "study"
    record = study(model_folders, root, (*STUDIED, *trouble), LocalProcesses(root, open_engine, [Place(()), Place(())]))
    assert same_measurements(finished_study, root)
    assert outcome(record, trouble[0])["name"] != "invalid", "a worker that died once is no verdict"
    assert (tmp_path / "died-on-subject").exists()
    assert "died 3 times" in outcome(record, trouble[1])["reason"]
    assert "the attack is wrong" in outcome(record, trouble[2])["reason"]
    stored = [json.loads(path.read_text()) for path in root.glob("*/cell.json")]
    failures = {cell["error"]["type"]: cell["error"] for cell in stored if cell["error"]}
    assert set(failures) == {"WorkerDied", "RuntimeError"}
    assert "in run" in failures["RuntimeError"]["traceback"]
    assert len([cell for cell in stored if cell["error"]]) == 4


@pytest.mark.slow
def test_what_a_worker_raises_is_raised(model_folders: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "study"
    asked = Request([str(model_folders["subject"])], "smoke", ("none",))
    executor = LocalProcesses(root, refuse, [Place(())])
    with pytest.raises(ImmunobenchError, match="does not open"):
        run_study(asked, Store(root), refuse, Silent(), executor)


def refuse(spec: str) -> Engine:
    """Opens nothing."""
    raise ImmunobenchError(f"'{spec}' does not open here.")


class Killing(Silent):
    """Takes a node away once some cells are done."""

    def __init__(self, after: int, kill: Callable[[], None]) -> None:
        super().__init__()
        self.after, self.kill = after, kill

    def cell_done(self, subject: str, task: Any, cell: Any, stored: bool) -> None:
        """A cell is done."""
        super().cell_done(subject, task, cell, stored)
        if len(self.done) == self.after:
            self.kill()


@pytest.mark.slow
def test_a_ray_cluster_runs_the_same_study_and_survives_the_loss_of_a_node(
    model_folders: dict[str, Path], finished_study: Path, tmp_path: Path, cluster: Any
) -> None:
    (tmp_path / "trouble.py").write_text(TROUBLE)
    raises = f"{tmp_path}/trouble.py:Raises"
    nodes = [cluster.add_node(num_cpus=1, **SMALL) for _ in range(2)]
    cluster.wait_for_nodes()
    root = tmp_path / "study"
    executor = choose_executor("ray", root, open_engine, "cpu", 2, cluster.address, 0.1)
    told = Killing(2, lambda: cluster.remove_node(nodes[0], allow_graceful=False))
    record = study(model_folders, root, (*STUDIED, raises), executor, told)
    assert same_measurements(finished_study, root)
    assert len(told.done) == 12
    assert "the attack is wrong" in outcome(record, raises)["reason"]
    stored = [json.loads(path.read_text()) for path in root.glob("*/cell.json")]
    assert len(stored) == 12 and sum(cell["status"] == "error" for cell in stored) == 3
