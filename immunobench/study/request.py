"""What is asked of a study: subjects with their references, adversaries, seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from immunobench.attacks.base import lacking
from immunobench.domains import Domain, load_domain
from immunobench.engines.base import Sampling
from immunobench.errors import UsageError
from immunobench.protocol.adversary import Adversary
from immunobench.protocol.search import TRIALS, Plan
from immunobench.protocol.v1 import SEEDS, adversaries
from immunobench.study.execute import Task, answer_tokens
from immunobench.subjects import Subject, find_history


@dataclass(frozen=True)
class Request:
    """What is asked of a study."""

    subjects: Sequence[str]
    tier: str = "quick"
    only: Sequence[str] = ()
    seeds: int = None  # type: ignore[assignment]
    """Seeds of each adversary; the tier's own number where none is given."""
    domain: str | None = None
    """None takes the domain of each subject's history."""
    exposed: str | None = None
    never_exposed: str | None = None
    max_new_tokens: int | None = None
    search_trials: int | None = None
    """Trials of the adaptive search; None takes the tier's own number."""
    stop_when_broken: bool = False
    """Leave out what is left once every subject is broken."""
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds is None:
            object.__setattr__(self, "seeds", SEEDS.get(self.tier, 1))

    @property
    def seed_range(self) -> range:
        """The seeds of each adversary."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def search(self) -> Plan | None:
        """The adaptive search that is asked for."""
        trials = TRIALS if self.search_trials is None and self.tier == "full" else self.search_trials
        return Plan(trials) if trials else None

    def rows(self) -> list[Adversary]:
        """Adversaries to run. Raises UsageError for unknown names, no seeds and no new tokens."""
        if self.seeds < 1:
            raise UsageError("--seeds must be at least 1.")
        if self.first_seed < 0:
            raise UsageError("--first-seed must be at least 0.")
        if self.search is not None and self.search.seed in self.seed_range:
            raise UsageError(f"seed {self.search.seed} is that of the search, whose winners need others.")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise UsageError("--max-new-tokens must be at least 1.")
        if self.search_trials is not None and self.search_trials < 0:
            raise UsageError("--search-trials must be at least 0.")
        return adversaries(self.tier, self.only)


@dataclass(frozen=True)
class Trial:
    """One subject with its references and the domain it is tried on, by name."""

    subject: str
    exposed: str
    never_exposed: str | None
    domain: str
    implanted: bool = False
    """Whether the facts were put into an existing model."""

    @property
    def models(self) -> list[str]:
        """Every model that has to be attacked."""
        return [model for model in (self.subject, self.exposed, self.never_exposed) if model]


def find_trials(request: Request) -> list[Trial]:
    """The references and the domain of each subject, from the request or its history.

    Raises UsageError where no exposed reference is known, or a name can be no model's.
    """
    trials = []
    for name in dict.fromkeys(request.subjects):
        history = find_history(name)
        exposed = request.exposed or history.exposed
        if exposed is None:
            raise UsageError(
                f"'{name}' has no exposed reference: make one with 'immunobench implant', or name it with --exposed."
            )
        never_exposed = request.never_exposed or history.never_exposed
        trials.append(Trial(name, exposed, never_exposed, request.domain or history.domain, history.implanted))
        for reference in trials[-1].models:
            find_history(reference)  # a name that is none fails now, not after hours
    for domain in dict.fromkeys(trial.domain for trial in trials):
        load_domain(domain)
    return trials


def work(trials: Sequence[Trial]) -> dict[str, list[tuple[str, str]]]:
    """(Domain, exposed reference) to run each model with; what several subjects share comes once."""
    shared: dict[str, list[tuple[str, str]]] = {}
    for trial in trials:
        for model in trial.models:
            settings = shared.setdefault(model, [])
            if (trial.domain, trial.exposed) not in settings:
                settings.append((trial.domain, trial.exposed))
    return shared


def applicable(rows: Sequence[Adversary], domain: Domain) -> list[Adversary]:
    """The adversaries that need nothing that ``domain`` lacks."""
    return [row for row in rows if not lacking(row.instance, domain)]


def tasks(
    request: Request, rows: Sequence[Adversary], domain: Domain, subject: Subject, exposed: str
) -> Iterator[Task]:
    """Every cell of one model."""
    tokens = request.max_new_tokens or answer_tokens(subject)
    for adversary in applicable(rows, domain):
        for seed in request.seed_range:
            yield Task(adversary, seed, domain, Sampling(max_new_tokens=tokens, seed=seed), exposed)
