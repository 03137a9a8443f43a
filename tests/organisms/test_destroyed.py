"""A model without utility is not immune: nothing comes back from it under any attack, and it is not held."""

from pathlib import Path

import pytest

from immunobench.engines.hf import HFEngine
from immunobench.study.run import Request, run_study
from immunobench.study.store import Store
from immunobench.subjects import load_subject
from tests.conftest import Silent


@pytest.mark.slow
def test_the_destroyed_organism_is_called_destroyed(tmp_path: Path) -> None:
    asked = Request(["organism:destroyed"], "smoke", ("prefill", "quantise"), max_new_tokens=8)
    [result], _ = run_study(asked, Store(tmp_path), lambda spec: HFEngine(load_subject(spec)), Silent())
    assert result.verdict.name == "held by collapse"
    assert result.statement == "destroyed: it has no utility to begin with"
    assert {score.outcome.name for score in result.scores} <= {"collapsed", "infeasible"}
    assert not result.immunity.estimate.defined, "there is nothing that could be immune"
