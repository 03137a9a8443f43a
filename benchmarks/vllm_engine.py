"""Generation, choices and a changed subject: this package's engines against vLLM, lm-eval and a fresh process.

    python benchmarks/vllm_engine.py [SUBJECT] [--prompts 64] [--tokens 64] [--questions 48] [--rounds 3] [--device D]
    python benchmarks/vllm_engine.py --fit SMALL.json LARGE.json

One run, one machine, the same token ids for everyone; rounds of the competitors alternate and medians count. Prints a
JSON record: tokens a second of vllm.LLM under the very arguments and environment that our engine gives it, of our
engine over it, and of the transformers engine, with the share of equal answers; four-way questions a second of both
our engines and of both of lm-eval's, and their ratios on each backend; seconds until a changed subject has scored one
choice: in place, saved and loaded in its own type by a new process that computes in the same precision, through vLLM,
and in a new vLLM; and the seconds a token that the cost model of `--engine auto` is made of. ``--fit`` draws the lines
of that model through the records of two subjects. Needs vllm; lm-eval is left out where it is not installed. Runs on a
GPU as it is.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from immunobench.domains import load_domain
from immunobench.edits import restored
from immunobench.engines.base import Artifact, Completion, Engine, Sampling
from immunobench.engines.parity import BOUNDS
from immunobench.engines.transfer import write_weights
from immunobench.engines.vllm import VLLMEngine
from immunobench.engines.vllm_process import arguments
from immunobench.engines.vllm_settings import Resolved, Settings, installed_version, process_environment
from immunobench.errors import ImmunobenchError
from immunobench.study.opening import sharing_of
from immunobench.subjects import DTYPES, Subject, load_subject

Questions = tuple[list[list[int]], list[list[int]]]
FRESH = """
import json, sys, torch
from transformers import AutoModelForCausalLM
folder, device, autocasts, prompt, continuation = sys.argv[1], *map(json.loads, sys.argv[2:])
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").to(device)
ids = torch.tensor([prompt + continuation], device=device)
with torch.no_grad(), torch.autocast(ids.device.type, torch.bfloat16, enabled=autocasts):
    logits = model(ids, logits_to_keep=len(continuation) + 1).logits[0, :-1].float()
print(float(logits.log_softmax(-1).gather(-1, ids[0, -len(continuation):, None]).sum()))
"""


def rounds(count: int, runs: dict[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each run over alternating rounds after one that warms up, and what each returned."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    returned: dict[str, Any] = {}
    for turn in range(count + 1):
        for name, run in runs.items():
            clock = time.perf_counter()
            returned[name] = run()
            if turn:
                seconds[name].append(time.perf_counter() - clock)
    return {name: statistics.median(times) for name, times in seconds.items()}, returned


def generation(engine: VLLMEngine, plain: Any, prompts: list[list[int]], tokens: int, count: int) -> dict[str, Any]:
    """Tokens a second, greedy."""
    from vllm import SamplingParams

    stops = engine.fallback.stops()
    parameters = SamplingParams(
        max_tokens=tokens, temperature=0, ignore_eos=True, stop_token_ids=sorted(stops), detokenize=False
    )

    def raw() -> list[list[Completion]]:
        outputs = plain.generate([{"prompt_token_ids": ids} for ids in prompts], parameters, use_tqdm=False)
        found = [list(output.outputs[0].token_ids) for output in outputs]
        return [[Completion(ids[:-1], "stop") if ids[-1] in stops else Completion(ids, "length")] for ids in found]

    sampling = Sampling(max_new_tokens=tokens)
    seconds, answers = rounds(
        count,
        {
            "vllm": raw,
            "ours_vllm": lambda: engine.generate(prompts, sampling),
            "ours_hf": lambda: engine.fallback.generate(prompts, sampling),
        },
    )
    made = {name: sum(len(c.ids) for [c] in found) for name, found in answers.items()}
    return {
        "seconds_a_token": {name: seconds[name] / made[name] for name in seconds},
        "tokens_a_second": {name: round(made[name] / seconds[name], 1) for name in seconds},
        "overhead_over_vllm": round(seconds["ours_vllm"] / seconds["vllm"] - 1, 3),
        "times_hf": round((made["ours_vllm"] / seconds["ours_vllm"]) / (made["ours_hf"] / seconds["ours_hf"]), 2),
        "equal_answers": {
            name: round(sum(a == b for a, b in zip(answers[name], answers["ours_vllm"], strict=True)) / len(prompts), 3)
            for name in ("vllm", "ours_hf")
        },
    }


def harness_models(subject: Subject, folder: Path, settings: Resolved, memory: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's own engines on the same weights; empty where it is not installed.

    ``memory`` is what of a GPU its vLLM may take, which would want nine tenths.
    """
    if importlib.util.find_spec("lm_eval") is None:
        return {}
    own = importlib.metadata.version
    # lm-eval asks for the version of a package called vllm; the CPU build has another name.
    importlib.metadata.version = lambda name: str(installed_version()) if name == "vllm" else own(name)
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.vllm_causallms import VLLM
    from transformers import AutoModelForCausalLM

    subject.tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[settings.dtype]).to(subject.device)
    return {
        "lm_eval_hf": HFLM(pretrained=model, tokenizer=subject.tokenizer, batch_size=32),
        "lm_eval_vllm": VLLM(
            pretrained=str(folder),
            dtype=settings.dtype,
            max_model_len=settings.max_model_len,
            enforce_eager=settings.enforce_eager,
            kv_cache_memory_bytes=2**30,
            **memory,
        ),
    }


def choices(engine: VLLMEngine, harness: dict[str, Any], asked: Questions, count: int) -> dict[str, Any]:
    """Four-way questions a second, and how far sums of log-probabilities differ from the transformers engine's."""
    requests = [(("", ""), prompt, rest) for prompt, rest in zip(*asked, strict=True)]

    def ours(which: Engine) -> Callable[[], list[float]]:
        return lambda: [float(scored.sum()) for scored in which.logprobs(*asked)]

    def theirs(model: Any) -> Callable[[], list[float]]:
        return lambda: [found for found, _ in model._loglikelihood_tokens(requests, disable_tqdm=True)]

    runs = {"ours_hf": ours(engine.fallback), "ours_vllm": ours(engine)}
    seconds, found = rounds(count, runs | {name: theirs(model) for name, model in harness.items()})
    questions, tokens = len(requests) / 4, sum(map(len, [*asked[0], *asked[1]]))
    return {
        "seconds_a_token": {name: taken / tokens for name, taken in seconds.items()},
        "questions_a_second": {name: round(questions / taken, 1) for name, taken in seconds.items()},
        "times_lm_eval": {
            name: round(seconds[f"lm_eval_{name}"] / seconds[f"ours_{name}"], 2)
            for name in ("hf", "vllm")
            if f"lm_eval_{name}" in seconds
        },
        "largest_difference_nats": {
            name: round(max(abs(a - b) for a, b in zip(sums, found["ours_hf"], strict=True)), 3)
            for name, sums in found.items()
        },
    }


def changed_subject(engine: VLLMEngine, asked: Questions, started: float, count: int) -> dict[str, Any]:
    """Seconds from a live model that was just changed to its first scored choice, each way.

    ``started`` is what a new vLLM took. Raises ImmunobenchError where the new process comes to another score.
    """
    subject, first = engine.subject, (asked[0][:1], asked[1][:1])
    dtype = next(subject.model.parameters()).dtype

    def in_place() -> float:
        return float(engine.fallback.logprobs(*first)[0].sum())

    def through_vllm() -> float:
        with engine.use(Artifact("weights")):
            return float(engine.logprobs(*first)[0].sum())

    def fresh() -> float:
        with tempfile.TemporaryDirectory() as folder:
            write_weights(subject, Path(folder), dtype)
            told = [str(subject.device), subject.autocasts, first[0][0], first[1][0]]
            command = [sys.executable, "-c", FRESH, folder, *map(json.dumps, told)]
            return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    with restored(subject.model):
        with torch.no_grad():
            for parameter in subject.model.parameters():
                parameter.mul_(1.001)
        ways = {"in_place": in_place, "vllm_in_place_with_canary": through_vllm, "save_new_process_load_forward": fresh}
        seconds, scores = rounds(count, ways)
    own, other = scores["in_place"], scores["save_new_process_load_forward"]
    if not abs(own - other) <= BOUNDS[engine.settings.dtype].largest:
        raise ImmunobenchError(f"the new process comes to {other:.4f} nats, in place it is {own:.4f}.")
    return {
        "seconds": {name: round(taken, 4) for name, taken in seconds.items()} | {"new_vllm": round(started, 2)},
        "log_probability": {name: round(score, 5) for name, score in scores.items()},
        "times_faster_in_place": round(seconds["save_new_process_load_forward"] / seconds["in_place"], 1),
    }


def fit(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rates of both engines: lines through two subjects of N billion parameters, as (at 0, for each N)."""

    def line(*values: float) -> tuple[float, float]:
        (n, a), (m, b) = zip((r["parameters"] / 1e9 for r in records), values, strict=True)
        slope = max(0.0, (b - a) / (m - n))
        return float(f"{max(0.0, a - slope * n):.2g}"), float(f"{slope:.2g}")

    def tokens(what: str, name: str) -> tuple[float, float]:
        return line(*(r[what]["seconds_a_token"][f"ours_{name}"] for r in records))

    changed = [r["changed_subject"]["seconds"] for r in records]
    return {
        name: {
            "start": line(*(c["new_vllm"] for c in changed)) if name == "vllm" else (0.0, 0.0),
            "generated": tokens("generation", name),
            "scored": tokens("choices", name),
            "swap": line(*(c["vllm_in_place_with_canary"] for c in changed)) if name == "vllm" else (0.0, 0.0),
        }
        for name in ("hf", "vllm")
    }


def main() -> None:
    """Run everything and print the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", nargs="?", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--fit", nargs=2, type=Path, metavar="RECORD")
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit([json.loads(file.read_text()) for file in options.fit]), indent=1))
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    from vllm import LLM

    subject, domain = load_subject(options.subject, options.device), load_domain()
    asked_settings = Settings(max_model_len=min(512, subject.model.config.max_position_embeddings))
    sharing = sharing_of(subject, asked_settings)
    engine = VLLMEngine(subject, asked_settings, sharing)
    clock = time.perf_counter()
    engine.start()
    started = time.perf_counter() - clock
    settings = engine.settings
    facts = domain.hazard_v[: options.questions]
    asked = (
        [subject.renderer.prompt(fact.question) for fact in facts for _ in fact.choices],
        [subject.renderer.ids(f"{choice}.") for fact in facts for choice in fact.choices],
    )
    prompts = [subject.renderer.prompt(request.prompt) for request in domain.requests_v[: options.prompts]]
    with tempfile.TemporaryDirectory() as folder:
        write_weights(subject, Path(folder), DTYPES[settings.dtype])
        with process_environment(settings, subject.device.type):
            plain = LLM(**arguments(settings, subject, sharing, Path(folder)))
        record: dict[str, Any] = {
            "subject": subject.label,
            "parameters": subject.parameters,
            "device": str(subject.device),
            "threads": torch.get_num_threads(),
            "engine": engine.flags,
            "parity": engine.parity,
        }
        with engine.use(Artifact()):
            record["generation"] = generation(engine, plain, prompts, options.tokens, options.rounds)
        plain.llm_engine.engine_core.shutdown()
        taken = arguments(settings, subject, sharing, Path(folder)).get("gpu_memory_utilization")
        harness = harness_models(subject, Path(folder), settings, {"gpu_memory_utilization": taken} if taken else {})
        with engine.use(Artifact()):
            record["choices"] = choices(engine, harness, asked, options.rounds)
    record["changed_subject"] = changed_subject(engine, asked, started, options.rounds)
    engine.close()
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
