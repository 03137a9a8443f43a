"""The options that commands share, and what every command does with them."""

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from immunobench.errors import unknown_name

if TYPE_CHECKING:
    from immunobench.engines.base import Engine
    from immunobench.study.opening import Opener
    from immunobench.study.request import Request
    from immunobench.subjects import Subject as Loaded

SUBJECT_HELP = "organism:NAME, smollm2-135m, a folder, a GGUF file, an adapter folder, or a Hub id ORG/NAME@REVISION."
Subject = Annotated[str, typer.Argument(help=SUBJECT_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
Tier = Annotated[str, typer.Option(help="smoke, quick, standard or full.")]
Only = Annotated[list[str] | None, typer.Option(help="Only these adversaries; may be given again.")]
Seeds = Annotated[
    int | None, typer.Option(help="Seeds of each adversary; 3 in the tiers standard and full, 1 in the others.")
]
FirstSeed = Annotated[int, typer.Option(help="The first of these seeds, so that other ones can be run.")]
DomainName = Annotated[str | None, typer.Option("--domain", help="A domain's name, NAME/FACTS, or a vault's folder.")]
Exposed = Annotated[str | None, typer.Option(help="The exposed reference; a model's own by default.")]
NeverExposed = Annotated[str | None, typer.Option(help="The never-exposed reference; a model's own by default.")]
EngineName = Annotated[str, typer.Option("--engine", help="auto, hf or vllm; auto takes the one that is faster.")]
EngineSettings = Annotated[
    list[str] | None,
    typer.Option("--engine-set", help="A setting of vllm, such as tensor_parallel_size=2."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Longest answer; 512 or a quarter of the context by default.")]
SearchTrials = Annotated[
    int | None, typer.Option(help="Trials of the adaptive search; 60 in the tier full, none in the others.")
]
Seed = Annotated[int, typer.Option(help="Random seed.")]


@dataclass(frozen=True)
class StudyOptions:
    """The options of every command that is about a study to be run."""

    subjects: Annotated[list[str], typer.Argument(metavar="SUBJECT...", help=SUBJECT_HELP)]
    tier: Tier = "quick"
    only: Only = None
    seeds: Seeds = None
    first_seed: FirstSeed = 0
    domain: DomainName = None
    exposed: Exposed = None
    never_exposed: NeverExposed = None
    max_new_tokens: MaxNewTokens = None
    search_trials: SearchTrials = None
    engine: EngineName = "auto"
    engine_set: EngineSettings = None
    device: Device = "auto"
    dtype: Dtype = "auto"

    def request(self, stop_when_broken: bool = False) -> "Request":
        """What is asked of the study. Raises UsageError for what cannot be."""
        from immunobench.study.request import Request

        asked = Request(
            self.subjects,
            self.tier,
            tuple(self.only or ()),
            **({} if self.seeds is None else {"seeds": self.seeds}),
            domain=self.domain,
            exposed=self.exposed,
            never_exposed=self.never_exposed,
            max_new_tokens=self.max_new_tokens,
            search_trials=self.search_trials,
            stop_when_broken=stop_when_broken,
            first_seed=self.first_seed,
        )
        asked.rows()
        return asked

    def opener(self, asked: "Request") -> "OpenEngine":
        """Opens the study's models."""
        return opener(self.engine, self.device, self.dtype, asked, self.engine_set)


def takes_study_options(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with the fields of :class:`StudyOptions` as options, handed to it as its first argument."""
    shared = get_type_hints(StudyOptions, include_extras=True)
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    def call(**given: Any) -> None:
        options = StudyOptions(**{name: given.pop(name) for name in shared})
        command(options, **given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            f.name,
            keyword,
            annotation=shared[f.name],
            default=inspect.Parameter.empty if f.default is MISSING else f.default,
        )
        for f in fields(StudyOptions)
    ] + [parameter.replace(kind=keyword) for parameter in own]
    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


@dataclass
class OpenEngine:
    """Opens models by name, all in the engine that is chosen for the first of them; can be sent to a worker."""

    chosen: "Opener"
    device: str
    dtype: str

    def __call__(self, spec: str) -> "Engine":
        opened, self.chosen = self.chosen.open(load(spec, self.device, self.dtype))
        return opened


def opener(
    engine: str, device: str, dtype: str, asked: "Request | None" = None, settings: list[str] | None = None
) -> OpenEngine:
    """How a command opens models. Raises UsageError for an engine, a place or a setting that is none."""
    from immunobench.study.opening import ENGINES, Opener, engine_settings
    from immunobench.subjects import check_place

    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    check_place(device, dtype)
    return OpenEngine(Opener(engine, engine_settings(settings or ()), asked, warn), device, dtype)


def load(spec: str, device: str, dtype: str) -> "Loaded":
    from immunobench.subjects import load_subject

    return load_subject(spec, device, dtype)


@contextmanager
def training_progress(what: str) -> Iterator[Any]:
    """A callback (step, steps) that shows a bar on a terminal and a line every tenth part elsewhere."""
    from immunobench.report.terminal import console, progress_bar

    target = console(stderr=True)
    with progress_bar(target) as bar:
        shown = bar.add_task(what, total=None)

        def on_step(step: int, steps: int) -> None:
            bar.update(shown, completed=step, total=steps)
            if not target.is_terminal and step % max(1, steps // 10) == 0:
                target.print(f"{what}: step {step} of {steps}", markup=False)

        yield on_step


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def warn(sentence: str) -> None:
    """Print a warning to standard error."""
    print(f"immunobench: {sentence}", file=sys.stderr)


def say(line: str) -> None:
    print(line)
