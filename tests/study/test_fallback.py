"""Cells that an engine cannot serve go to its fallback, and are compared with the fallback's own baseline."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from immunobench.attacks.baseline import NoAttack
from immunobench.engines.base import Artifact, EngineDiedError, NotServedError
from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError
from immunobench.rendering import PromptEdit
from immunobench.study.conclusions import trios_of
from immunobench.study.opening import engine_of_study
from immunobench.study.plan import estimate
from immunobench.study.request import Request, find_trials
from immunobench.study.reread import load_study
from immunobench.study.run import run_study
from immunobench.study.score import score
from immunobench.study.store import Store
from immunobench.subjects import Subject, load_subject
from tests.conftest import Silent, same_bits, weights

ROWS = ("none", "prefill", "quantise", "sampling")


class Picky(HFEngine):
    """The transformers engine, but for changed weights and readouts, which it leaves to its fallback."""

    name = "picky"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.fallback = HFEngine(subject, instead_of="picky")  # type: ignore[assignment]
        self.closed = False

    def serves(self, artifact: Artifact) -> bool:
        """All but weights and readouts."""
        return artifact.kind not in ("weights", "readout")

    @contextmanager
    def use(self, artifact: Artifact) -> Iterator[None]:
        """Serve all but those."""
        if not self.serves(artifact):
            raise NotServedError(f"no {artifact.kind} here.")
        yield

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class OnceOnly(HFEngine):
    """The transformers engine, but for the second model's prefilled answers, which it leaves to its fallback."""

    name = "picky"
    opened = 0

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.fallback = HFEngine(subject, instead_of="picky")  # type: ignore[assignment]
        OnceOnly.opened += 1
        self.refuses = OnceOnly.opened == 2

    @contextmanager
    def use(self, artifact: Artifact) -> Iterator[None]:
        """Serve plain prompts."""
        if self.refuses and artifact.prompt != PromptEdit():
            raise NotServedError("too long here.")
        yield


class Dying(Picky):
    """Dies at the second cell."""

    uses = 0

    @contextmanager
    def use(self, artifact: Artifact) -> Iterator[None]:
        """Serve once."""
        self.uses += 1
        if self.uses > 1:
            raise EngineDiedError("the process died: the same command goes on.")
        yield


@pytest.fixture
def request_(model_folders: dict[str, Path]) -> Request:
    """A study with prompts, decoding and weights."""
    return Request([str(model_folders["subject"])], "smoke", ROWS, max_new_tokens=8)


def test_weights_go_to_the_fallback(request_: Request, tmp_path: Path) -> None:
    engines: list[Picky] = []

    def opened(spec: str) -> Picky:
        engines.append(Picky(load_subject(spec)))
        return engines[-1]

    before = Silent()
    _, record = run_study(request_, Store(tmp_path), opened, before)
    assert all(engine.closed for engine in engines)
    study, request, _ = load_study(tmp_path)
    engine_of = {key[3]: {m.engine for m in cells} for key, cells in study.cells.items()}
    assert engine_of == {"none": {"picky", "hf"}, "prefill": {"picky"}, "quantise": {"hf"}, "sampling": {"picky"}}
    [shown, *_] = study.cells[next(iter(study.cells))][0].cell.environment["prompts"]
    assert shown["ids"].count(engines[0].subject.renderer.bos) == 1 and shown["text"].startswith("<s><user>")
    trial = find_trials(request)[0]
    for name, (_, trio) in trios_of(trial, request.rows(), study).items():
        wanted = {"hf"} if name == "quantise" else {"picky"}
        for cells in (trio.subject, trio.never_exposed, trio.exposed, trio.subject_before, trio.exposed_before):
            assert {cell.engine for cell in cells} == wanted, name
    again = Silent()
    assert run_study(request_, Store(tmp_path), opened, again)[1] == record
    assert len(again.done) == len(before.done) and all(stored for *_, stored in again.done)


def test_an_attack_runs_on_one_engine_whatever_the_model(request_: Request, tmp_path: Path) -> None:
    """Where one of the three models goes to the fallback, the others follow."""
    asked = replace(request_, only=("none", "prefill", "sampling"))
    OnceOnly.opened = 0
    run_study(asked, Store(tmp_path), lambda spec: OnceOnly(load_subject(spec)), Silent())
    study, request, _ = load_study(tmp_path)
    trial = find_trials(request)[0]
    trios = trios_of(trial, request.rows(), study)
    for name, (_, trio) in trios.items():
        wanted = {"hf"} if name == "prefill" else {"picky"}
        for cells in (trio.subject, trio.never_exposed, trio.exposed, trio.subject_before, trio.exposed_before):
            assert {cell.engine for cell in cells} == wanted, name
    row, sound = trios["prefill"]
    mixed = replace(
        sound,
        subject=[m for m in study.cells[trial.subject, trial.domain, trial.exposed, "prefill"] if m.engine == "picky"],
    )
    assert score(row, sound).outcome.name != "invalid"
    found = score(row, mixed).outcome
    assert found.name == "invalid" and "different engines (picky and hf)" in found.reason


def test_an_untouched_model_that_failed_is_not_run_again(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no cells, so that nothing tells which engine served it."""

    def fail(*_: object) -> None:
        raise RuntimeError("the disk of weights slipped.")

    monkeypatch.setattr(NoAttack, "run", fail)
    told = Silent()
    failed = r"failed \(the disk of weights slipped\): the others are kept; once that is mended, run the same command"
    with pytest.raises(ImmunobenchError, match=failed):
        run_study(replace(request_, only=("quantise",)), Store(tmp_path), lambda spec: Picky(load_subject(spec)), told)
    assert Counter(adversary for _, adversary, *_ in told.done) == {"none": 3, "quantise": 3}


def test_what_is_read_out_of_the_live_model_is_the_fallbacks(request_: Request, tmp_path: Path) -> None:
    run_study(
        replace(request_, only=("none", "logit-lens"), tier="quick"),
        Store(tmp_path),
        lambda spec: Picky(load_subject(spec)),
        Silent(),
    )
    study, *_ = load_study(tmp_path)
    assert {m.engine for key, cells in study.cells.items() if key[3] == "logit-lens" for m in cells} == {"hf"}


def test_the_plan_counts_what_the_fallback_will_run(request_: Request) -> None:
    asked = replace(request_, only=("none", "logit-lens"), tier="quick")
    planned = estimate(asked, lambda spec: Picky(load_subject(spec)))
    assert Counter(cell["adversary"] for cell in planned["cells"]) == {"none": 6, "logit-lens": 3}
    in_cells = sum(cell["seconds"] for cell in planned["cells"])
    assert planned["start_seconds"] > 0 and planned["seconds"] == pytest.approx(planned["start_seconds"] + in_cells)


def test_a_study_stays_on_its_engine(request_: Request, tmp_path: Path) -> None:
    assert engine_of_study(tmp_path) == "auto"
    run_study(replace(request_, only=("none",)), Store(tmp_path), lambda spec: HFEngine(load_subject(spec)), Silent())
    assert engine_of_study(tmp_path) == "hf"
    cell = sorted(tmp_path.glob("*/cell.json"))[0]
    stored = cell.read_text()
    for engine in ('"instead_of": "vllm", "name": "hf"', '"name": "vllm"'):
        cell.write_text(stored.replace('"name": "hf"', engine))
        assert engine_of_study(tmp_path) == "vllm"
    cell.write_text("{")
    assert engine_of_study(tmp_path) == "hf", "the next cell tells"


def test_a_refusal_leaves_the_subject_as_it_was(model_folders: dict[str, Path], tmp_path: Path) -> None:
    engine = Picky(load_subject(str(model_folders["subject"])))
    untouched = weights(engine.subject.model)
    engine.fallback = None
    request = Request([str(model_folders["subject"])], "smoke", ("quantise",), max_new_tokens=8)
    with pytest.raises(NotServedError, match="no weights here"):
        run_study(request, Store(tmp_path), lambda spec: engine, Silent())
    assert same_bits(weights(engine.subject.model), untouched) and engine.closed


def test_a_dead_engine_ends_the_study_and_the_same_command_goes_on(request_: Request, tmp_path: Path) -> None:
    def study(make: Callable[[Subject], HFEngine]) -> Silent:
        told = Silent()
        run_study(replace(request_, only=ROWS), Store(tmp_path), lambda spec: make(load_subject(spec)), told)
        return told

    with pytest.raises(EngineDiedError, match="the same command goes on"):
        study(Dying)
    assert [stored for *_, stored in study(Picky).done].count(True) == 1
