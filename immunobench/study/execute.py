"""Run one cell: attack the subject in place, measure at every checkpoint, leave it as it was."""

import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import pyarrow as pa

from immunobench.attacks.base import Checkpoint, ComparingAttack, needs_exposed
from immunobench.diagnostics.base import peak_memory
from immunobench.domains import Domain
from immunobench.engines.base import Artifact, Engine, EngineDiedError, NotServedError, Sampling
from immunobench.errors import ImmunobenchError
from immunobench.probes import behaviour, collapse, knowledge, utility
from immunobench.probes.base import Row
from immunobench.protocol.adversary import Adversary, fingerprint
from immunobench.protocol.v1 import VERSION as PROTOCOL_VERSION
from immunobench.study.cell import IDENTITY_VERSION, Cell, Failure, Point, tables
from immunobench.study.environment import environment
from immunobench.study.references import exposed_for
from immunobench.subjects import Subject

PROBES_VERSION = 1
"""Raised when a probe's definition changes, so that no old measurement passes for a new one."""


Known = dict[tuple[Any, ...], list[Row]]
"""What was measured of the untouched model of one engine."""


@dataclass(frozen=True)
class Task:
    """A cell to run."""

    adversary: Adversary
    seed: int
    domain: Domain
    sampling: Sampling
    exposed: str | None = None
    """The exposed reference by name, for attacks that compare with it."""

    def identity(self, engine: Engine) -> dict[str, Any]:
        """All that can change the outcome. References are subjects of their own cells and stand in the study;
        the exposed one is here too where the attack reads it."""
        subject = engine.subject
        exposed = self._exposed(subject)
        return {
            "identity_version": IDENTITY_VERSION,
            "protocol": PROTOCOL_VERSION,
            "probes": PROBES_VERSION,
            "subject": {
                "weights_sha256": subject.weights_sha256,
                "config_sha256": subject.config_sha256,
                "tokenizer_sha256": subject.tokenizer_sha256,
                "template_sha256": subject.renderer.template_sha256,
            },
            "domain": {
                "name": self.domain.name,
                "version": self.domain.version,
                "fingerprint": self.domain.fingerprint,
            },
            "adversary": self.adversary.identity(),
            **({} if exposed is None else {"exposed": _reference(exposed)}),
            "seed": self.seed,
            "engine": {"name": engine.name, **engine.flags},
            "sampling": asdict(self.sampling),
        }

    def cell_id(self, engine: Engine) -> str:
        """Content hash of the identity."""
        return fingerprint(self.identity(engine))

    def checkpoints(self, subject: Subject) -> Iterator[Checkpoint]:
        """The attack's run on ``subject``."""
        attack, budget = self.adversary.instance, self.adversary.budget
        exposed = self._exposed(subject)
        if exposed is None:
            return attack.run(subject, self.domain, budget, self.seed)
        return cast(ComparingAttack, attack).run(subject, self.domain, budget, self.seed, exposed)

    def _exposed(self, subject: Subject) -> Subject | None:
        if self.exposed is None or not needs_exposed(self.adversary.instance):
            return None
        return exposed_for(subject, self.exposed)


def answer_tokens(subject: Subject) -> int:
    """512 new tokens, or a quarter of the context where that is less."""
    context: int = getattr(subject.model.config, "max_position_embeddings", 2048)
    return min(512, context // 4)


def _reference(exposed: Subject) -> dict[str, str]:
    return {"weights_sha256": exposed.weights_sha256, "config_sha256": exposed.config_sha256}


def execute(
    task: Task, engine: Engine, known: Known, on_point: Callable[[Checkpoint], None] = lambda _: None
) -> tuple[Cell, pa.Table, pa.Table]:
    """Run ``task`` on the engine's subject and return its cell with items and transcripts, not yet stored.

    ``known`` is shared by the cells of one engine, so that the untouched model is measured once.
    An attack or probe that fails gives a cell with status 'error'. Raises NotServedError where the engine cannot
    serve what the attack left, and EngineDiedError where it is gone; the subject is untouched again then.
    """
    engine.start()
    identity = task.identity(engine)
    cell = Cell(cell_id=fingerprint(identity), identity=identity, parity=engine.parity)
    started, clock = datetime.now(UTC), time.monotonic()
    points: list[Point] = []
    measured: list[tuple[int, Row]] = []
    checkpoints: Iterator[Checkpoint] = iter(())
    try:
        checkpoints = task.checkpoints(engine.subject)
        for index, checkpoint in enumerate(checkpoints):
            measured += [(index, row) for row in measure(task, engine, checkpoint, known)]
            points.append(Point.of(index, checkpoint, engine.parity))
            on_point(checkpoint)
        if not points:
            raise ImmunobenchError(f"adversary '{task.adversary.name}' yielded no checkpoint.")
    except (NotServedError, EngineDiedError):
        raise
    except Exception as error:
        cell.status = "error"
        cell.error = Failure(type=type(error).__name__, message=str(error), traceback=traceback.format_exc())
        points, measured = [], []
    finally:
        if isinstance(checkpoints, Generator):
            checkpoints.close()  # an exception that is still held would keep it, and the attack, alive
    cell.points = points
    cell.environment = environment(started, time.monotonic() - clock, engine.subject.device) | {
        "engine": engine.resolved,
        "prompts": rendered(task.domain, engine.subject),
        "peak_memory_bytes": peak_memory(engine.subject.device),
    }
    return cell, *tables(measured)


def rendered(domain: Domain, subject: Subject) -> list[dict[str, Any]]:
    """The first requests as text and token ids, so that a doubled BOS or a wrong template can be seen in a cell."""
    if not subject.renderer.has_template:
        return []
    prompts = [subject.renderer.prompt(request.prompt) for request in domain.requests_v[:3]]
    return [{"text": subject.tokenizer.decode(ids), "ids": ids} for ids in prompts]


def measure(task: Task, engine: Engine, checkpoint: Checkpoint, known: Known) -> list[Row]:
    """All probes at one checkpoint; what needs generation only at the end of a variant, or at all of them where the
    domain has no facts, so that behaviour is all there is to follow.

    What ``known`` holds is not measured again where the checkpoint leaves the model itself untouched.
    """
    domain, edit = task.domain, checkpoint.artifact.prompt
    known = known if checkpoint.artifact.kind == "none" else {}

    def once(probe: str, key: Any, run: Callable[[], list[Row]]) -> list[Row]:
        if (probe, domain.name, key) not in known:
            known[probe, domain.name, key] = run()
        return known[probe, domain.name, key]

    # The probes beside a readout are measured where it was read, so that a cell has one engine.
    with engine.use(checkpoint.artifact if checkpoint.readout is None else Artifact("readout", edit)):
        rows = list(checkpoint.readout or once("knowledge", edit, lambda: knowledge.measure(engine, domain, edit)))
        rows += once("utility", (edit, checkpoint.last), lambda: utility.measure(engine, domain, edit, checkpoint.last))
        rows += once("collapse", checkpoint.last, lambda: collapse.measure(engine, domain, checkpoint.last))
        if (checkpoint.last or not domain.has_facts) and checkpoint.readout is None:
            sampling = replace(task.sampling, **asdict(checkpoint.decoding)) if checkpoint.decoding else task.sampling
            rows += once("behaviour", (edit, sampling), lambda: behaviour.measure(engine, domain, edit, sampling))
    return [*rows, *checkpoint.extra]
