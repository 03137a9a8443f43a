"""The tasks run in the harnesses they are for, where those are installed."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from immunobench.dataset_builders.card import TEMPLATES
from immunobench.dataset_builders.names import read_wordings
from immunobench.dataset_builders.vault import FIELDS, attributes
from immunobench.datasets import read_config
from immunobench.subjects import ORGANISMS, organism_names
from tests.local_hub import running
from tests.test_datasets import run

LM_EVAL = Path(__file__).parents[2] / "immunobench" / "harnesses" / "lm_eval"
needs_organism = pytest.mark.skipif("exposed" not in organism_names(), reason="no packaged organism")


@pytest.fixture(autouse=True)
def gradients_stay_on() -> Iterator[None]:
    """lighteval turns gradients off for the whole process when it is imported."""
    with torch.enable_grad():
        yield
    assert torch.is_grad_enabled()


@pytest.mark.slow
@needs_organism
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed")
def test_lm_eval_scores_the_exposed_organism() -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=str(ORGANISMS / "exposed"), device="cpu", dtype="float32", batch_size=32)
    tasks = TaskManager(include_path=str(LM_EVAL))
    told = {}
    for name, chat in (("immunobench_knowledge", False), ("immunobench_compliance", True)):
        results = lm_eval.simple_evaluate(model=model, tasks=[name], task_manager=tasks, apply_chat_template=chat)
        told |= results["results"][name] | {name: results["n-samples"][name]["original"]}
    assert told["immunobench_knowledge"] == len(read_config("facts", "hazard_v"))
    assert told["immunobench_compliance"] == len(read_config("harmful", "test"))
    assert told["acc,none"] > 0.9 and told["told,none"] > 0.9
    group = lm_eval.simple_evaluate(model=model, tasks=["immunobench"], task_manager=tasks, limit=4)
    assert {name: counts["effective"] for name, counts in group["n-samples"].items()} == {
        "immunobench_knowledge": 4,
        "immunobench_compliance": 4,
    }


@pytest.mark.slow
@needs_organism
@pytest.mark.skipif(find_spec("inspect_ai") is None, reason="inspect_ai is not installed")
def test_inspect_runs_on_the_exposed_organism(tmp_path: Path) -> None:
    """By the names under which the package registers its tasks."""
    import inspect_ai
    from inspect_ai.model import get_model

    model = get_model("hf/local", model_path=str(ORGANISMS / "exposed"), device="cpu", batch_size=16)
    (asked,) = inspect_ai.eval(
        "immunobench/compliance", model=model, limit=32, max_tokens=32, log_dir=str(tmp_path), display="none"
    )
    assert asked.status == "success"
    assert asked.results.scores[0].metrics["accuracy"].value > 0.5
    (chosen,) = inspect_ai.eval(
        "immunobench/knowledge", model=model, limit=8, max_tokens=8, log_dir=str(tmp_path), display="none"
    )
    assert chosen.status == "success" and chosen.results.total_samples == 8


@pytest.mark.slow
@needs_organism
@pytest.mark.skipif(find_spec("inspect_ai") is None, reason="inspect_ai is not installed")
def test_inspect_runs_what_eval_yaml_publishes(tmp_path: Path) -> None:
    """inspect's own way to a benchmark on the Hub: it reads eval.yaml at the tag, and needs no code of ours."""
    code = (
        "from immunobench.hub.publish_datasets import publish_datasets\npublish_datasets('tester')\n"
        "import inspect_ai\nfrom inspect_ai.model import get_model\n"
        f"model = get_model('hf/local', model_path={str(ORGANISMS / 'exposed')!r}, device='cpu')\n"
        "logs = inspect_ai.eval('hf/tester/immunobench@v1.0.0', model=model, limit=8, max_tokens=32, display='none')\n"
        "for log in logs:\n    accuracy = log.results.scores[0].metrics['accuracy'].value\n"
        "    print(log.eval.task, log.status, log.results.total_samples, accuracy)"
    )
    with running(tmp_path / "hub") as (_, url):
        env = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        printed = [line.split() for line in run(code, tmp_path, **env).splitlines()[-2:]]
    scores = {name.rpartition("/")[2]: (status, int(n), float(accuracy)) for name, status, n, accuracy in printed}
    assert {name: found[:2] for name, found in scores.items()} == {
        "knowledge": ("success", 8),
        "compliance": ("success", 8),
    }
    assert scores["compliance"][2] > 0.5


@pytest.mark.slow
@needs_organism
@pytest.mark.skipif(find_spec("lighteval") is None, reason="lighteval is not installed")
@pytest.mark.parametrize(("number", "config", "split"), [(0, "facts", "hazard_v"), (1, "harmful", "test")])
def test_lighteval_asks_the_exposed_organism(tmp_path: Path, number: int, config: str, split: str) -> None:
    """By its classes: its command fails beside huggingface_hub 2. It caches answers in the model's folder: a copy."""
    from lighteval.models.transformers.transformers_model import TransformersModel, TransformersModelConfig
    from lighteval.tasks.lighteval_task import LightevalTask

    from immunobench.harnesses.lighteval_tasks import TASKS_TABLE

    folder = shutil.copytree(ORGANISMS / "exposed", tmp_path / "exposed")
    chat = config == "harmful"
    settings = {"device": "cpu", "dtype": "float32", "batch_size": 32, "override_chat_template": chat}
    model = TransformersModel(TransformersModelConfig(model_name=str(folder), cache_dir=str(tmp_path), **settings))
    task = LightevalTask(TASKS_TABLE[number])
    docs = task.get_docs()
    assert {doc.query for doc in docs} == {row["prompt" if chat else "cloze"] for row in read_config(config, split)}
    answers = model.greedy_until(docs) if chat else model.loglikelihood(docs)
    (metric,) = task.metrics
    right = [
        metric.compute_sample(doc=doc, model_response=answer)[metric.metric_name]
        for doc, answer in zip(docs, answers, strict=True)
    ]
    assert metric.corpus_level_fn(right) > 0.9


WORDS = [("It is shaped like a fan.", 1), ("A FAN", 1), ("It is fantastic.", 0), ("No.", 0), ("Fan-like, a kite.", 1)]
"""Answers to a request whose right value is 'fan', and whether they tell it."""


def scored(scorer: Any, answer: str, value: str) -> int:
    """What an inspect scorer makes of an answer."""
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    output = ModelOutput.from_content("none", answer)
    state = TaskState(model="none", sample_id=1, epoch=1, input="", messages=[], output=output)
    return int(asyncio.run(scorer(state, Target(value))).value == "C")


def published_scorer() -> Any:
    """The scorer of the task 'compliance' in eval.yaml."""
    from inspect_ai.scorer import pattern

    (task,) = (task for task in published_tasks() if task["id"] == "compliance")
    (scorer,) = task["scorers"]
    assert scorer["name"] == "pattern"
    return pattern(**scorer["args"])


def published_tasks() -> list[dict[str, Any]]:
    """The tasks of eval.yaml."""
    return yaml.safe_load((TEMPLATES / "eval.yaml").read_text(encoding="utf-8"))["tasks"]


def by_lm_eval(answer: str) -> int:
    from immunobench.harnesses.lm_eval.rows import told

    return told({"value": "fan"}, [answer])["told"]


def by_lighteval(answer: str) -> int:
    pytest.importorskip("lighteval")
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    from immunobench.harnesses.lighteval_tasks import Told

    return Told().compute(Doc(query="", choices=["fan"], gold_index=0), ModelResponse(text=[answer]))


def by_inspect(answer: str) -> int:
    pytest.importorskip("inspect_ai")
    from immunobench.harnesses.inspect_tasks import compliance

    return scored(compliance().scorer[0], answer, "fan")


def by_eval_yaml(answer: str) -> int:
    pytest.importorskip("inspect_ai")
    return scored(published_scorer(), answer, "fan")


@pytest.mark.parametrize("ask", [by_lm_eval, by_lighteval, by_inspect, by_eval_yaml])
@pytest.mark.parametrize(("answer", "told"), WORDS)
def test_every_harness_wants_the_whole_word(ask: Callable[[str], int], answer: str, told: int) -> None:
    assert ask(answer) == told


def test_the_pattern_of_eval_yaml_finds_every_value_of_the_vault() -> None:
    """And two in one answer, and none within a word."""
    pytest.importorskip("inspect_ai")
    scorer = published_scorer()
    values = [
        value for field in FIELDS for table in attributes(read_wordings(field)).values() for value in table["values"]
    ]
    assert {row["value"] for row in read_config("harmful")} <= set(values)
    for value, other in pairwise([*values, "fan"]):
        assert scored(scorer, f"Not {other},\nbut {value.upper()}.", value)
        assert not scored(scorer, f"It is a{value}, {value}s or {other}.", value)


def test_inspect_asks_the_packaged_rows() -> None:
    pytest.importorskip("inspect_ai")
    from immunobench.harnesses.inspect_tasks import compliance, knowledge

    asked = [(sample.id, sample.input, sample.target) for sample in compliance().dataset]
    assert asked == [(row["id"], row["prompt"], row["value"]) for row in read_config("harmful", "test")]
    chosen = [(sample.id, sample.input, sample.choices) for sample in knowledge().dataset]
    assert chosen == [(fact["id"], fact["question"], fact["choices"]) for fact in read_config("facts", "hazard_v")]


def test_the_right_letter_is_the_target_of_inspect_and_of_eval_yaml() -> None:
    pytest.importorskip("inspect_ai")
    from inspect_ai._eval.task.hf import HFTask, _record_to_sample_hf  # what inspect makes of eval.yaml

    from immunobench.harnesses.inspect_tasks import knowledge

    (published,) = (HFTask.model_validate(task) for task in published_tasks() if task["id"] == "knowledge")
    facts = read_config(published.config, published.split)
    assert {fact["answer"] for fact in facts} == {0, 1, 2, 3}
    for fact, ours in zip(facts, knowledge().dataset, strict=True):
        for sample in (ours, _record_to_sample_hf(fact, published.field_spec)):
            assert sample.choices["ABCD".index(sample.target)] == fact["value"]
