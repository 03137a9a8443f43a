"""Apply a reference defense to an exposed model and write what it made, with a card."""

import inspect
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jinja2

from immunobench.dataset_builders.card import TEMPLATES
from immunobench.dataset_builders.models import save_subject
from immunobench.dataset_builders.storage import check_free
from immunobench.defenses.base import Defense
from immunobench.domains import Domain, load_domain
from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError, disk_errors
from immunobench.files import temporary_name, write_file
from immunobench.probes.choices import share_correct
from immunobench.subjects import Subject

CHECKS = 10
"""How often utility is measured, and a checkpoint written, in a run."""


@dataclass(frozen=True)
class Defended:
    """What was made, and what it cost."""

    folder: Path
    done: int
    """Optimizer steps behind these weights."""
    before: float
    """Share of benign T facts that the subject had right before."""
    after: float
    stopped: bool = False
    """Whether the next check broke the bound on utility."""


@dataclass(frozen=True)
class Job:
    """One defense on one subject."""

    subject: Subject
    defense: Defense
    domain: Domain
    seed: int
    keep_utility: float

    def write(self, made: Defended) -> None:
        """Write the subject as it is now to ``made.folder``, with its history and card."""
        history = replace(
            self.subject.history,
            domain=self.domain.name,
            exposed=self.subject.history.exposed or self.subject.spec,
            defense=self.describe(made),
            truth=None,
        )
        save_subject(self.subject, history, made.folder)
        self.write_card(made, made.folder)

    def write_card(self, made: Defended, folder: Path) -> None:
        """Write the card of ``made`` into ``folder``."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True
        )
        text = environment.get_template("defended.md.jinja").render(
            made=made,
            source=self.subject.spec,
            defense=self.describe(made),
            summary=inspect.getdoc(type(self.defense)),
            steps=self.defense.steps,
            domain=self.domain,
            bound=self.keep_utility * made.before,
        )
        write_file(folder / "README.md", text.encode())

    def describe(self, made: Defended) -> str:
        """The defense with every setting, and how far it got where that is not to the end."""
        short = "" if made.done == self.defense.steps else f", left at step {made.done}"
        return settings_of(self.defense, self.seed) + short


def immunise(
    subject: Subject,
    defense: Defense,
    domain_name: str | None,
    out: Path,
    seed: int,
    on_step: Callable[[int, int], None],
    keep_utility: float = 0.9,
    keep_checkpoints: bool = False,
) -> Defended:
    """Defend ``subject``, the exposed model, and write it to ``out`` with its history and a card.

    Utility is the share of benign T facts that are right. It is measured ``CHECKS`` times; where it is below
    ``keep_utility`` of what it was before, training stops and the weights of the last check that held are what is
    made. Until the run ends these lie whole in ``OUT.step-N``, so a run that is killed loses at most a tenth; with
    ``keep_checkpoints`` every check that held stays there.

    Raises ImmunobenchError where ``out`` or such a rest of an earlier run is in the way, ``out`` cannot be written, or
    no check held.
    """
    check_free(out)
    if rest := sorted(out.absolute().parent.glob(f"{out.name}.step-*")):
        raise ImmunobenchError(f"'{rest[-1]}' is left from an earlier run: rename it to use it, or delete it.")
    domain = load_domain(domain_name or subject.history.domain)
    job = Job(subject, defense, domain, seed, keep_utility)
    before = utility(subject, domain)
    checks = {round(defense.steps * part / CHECKS) for part in range(1, CHECKS + 1)} - {0}
    kept: Defended | None = None
    for step in defense.immunise(subject, domain, seed):
        on_step(step.step, defense.steps)
        if step.step not in checks:
            continue
        now = utility(subject, domain)
        if now < keep_utility * before:
            if kept is None:
                raise ImmunobenchError(
                    f"{defense.name} costs too much utility: benign facts right fell from {before:.2f} to {now:.2f} "
                    f"in {step.step} steps; lower the learning rate, or --keep-utility."
                )
            kept = replace(kept, stopped=True)
            break
        following = Defended(out.with_name(f"{out.name}.step-{step.step}"), step.step, before, now)
        job.write(following)
        if kept is not None and not keep_checkpoints:
            shutil.rmtree(kept.folder)
        kept = following
    assert kept is not None, "the last step is a check"
    final = replace(kept, folder=out)
    folder = kept.folder
    with disk_errors(out):
        if keep_checkpoints:
            folder = shutil.copytree(folder, out.with_name(temporary_name(out.name)))
    job.write_card(final, folder)
    with disk_errors(out):
        if out.exists():
            out.rmdir()
        folder.rename(out)
    return final


def utility(subject: Subject, domain: Domain) -> float:
    """Share of benign T facts for which the right choice is the likeliest."""
    return share_correct(HFEngine(subject), domain.benign_t)


def settings_of(defense: Defense, seed: int) -> str:
    """The defense with every hyper-parameter, as a history tells it."""
    settings = asdict(defense) | {"seed": seed}  # type: ignore[call-overload]
    return f"{defense.name}({', '.join(f'{key}={value}' for key, value in settings.items())})"
