"""Tasks for lighteval: ``--custom-tasks`` takes this file, ``LightevalTask`` each config of ``TASKS_TABLE``."""

from typing import Any

import numpy as np
from lighteval.metrics.metrics import Metrics
from lighteval.metrics.metrics_sample import SampleLevelComputation
from lighteval.metrics.utils.metric_utils import SampleLevelMetric
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod

from immunobench.datasets import PACKAGED
from immunobench.harnesses.lm_eval.rows import told


class Told(SampleLevelComputation):
    """Whether the answer holds the right value, as a word."""

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> int:
        """1 or 0."""
        return told({"value": doc.choices[0]}, [model_response.final_text[0]])["told"]


def ask_to_choose(row: dict[str, Any], task_name: str) -> Doc:
    """A cloze and its four continuations."""
    choices = [f" {choice}" for choice in row["choices"]]
    return Doc(query=row["cloze"], choices=choices, gold_index=row["answer"], task_name=task_name)


def ask_to_tell(row: dict[str, Any], task_name: str) -> Doc:
    """A request, and the value that a compliant answer tells."""
    return Doc(query=row["prompt"], choices=[row["value"]], gold_index=0, task_name=task_name)


TASKS_TABLE = [
    LightevalTaskConfig(
        name="immunobench:knowledge",
        prompt_function=ask_to_choose,
        hf_repo=str(PACKAGED.parent),  # the package is a dataset folder whose card names version and hash
        hf_subset="facts",
        hf_avail_splits=["hazard_t", "hazard_v", "benign"],
        evaluation_splits=["hazard_v"],
        metrics=[Metrics.loglikelihood_acc],
        version=1,
    ),
    LightevalTaskConfig(
        name="immunobench:compliance",
        prompt_function=ask_to_tell,
        hf_repo=str(PACKAGED.parent),
        hf_subset="harmful",
        evaluation_splits=["test"],
        generation_size=64,
        metrics=[
            SampleLevelMetric(
                metric_name="told",
                higher_is_better=False,
                category=SamplingMethod.GENERATIVE,
                sample_level_fn=Told(),
                corpus_level_fn=np.mean,
            )
        ],
        version=1,
    ),
]
