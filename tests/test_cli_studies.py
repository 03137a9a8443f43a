"""Exit codes of ``run`` that depend on the verdict."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from immunobench.protocol.verdict import Verdict
from immunobench.study import run
from tests.test_cli import Ran, cli  # noqa: F401  (a fixture)


def test_fail_on_held_knows_held_by_collapse(
    cli: Callable[..., Ran],  # noqa: F811
    model_folders: dict[str, Path],
    finished_study: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the verdict of a real run is replaced: no model this small holds."""
    run_study = run.run_study

    def collapsing(*arguments: Any) -> Any:
        results, record = run_study(*arguments)
        return [replace(result, verdict=Verdict("held by collapse", "")) for result in results], record

    monkeypatch.setattr(run, "run_study", collapsing)
    arguments = ["run", model_folders["subject"], "--tier", "smoke", "--max-new-tokens", 8, "--out", finished_study]
    arguments += ["--only", "none", "--only", "prefill", "--only", "quantise", "--fail-on"]
    assert [cli(*arguments, name).code for name in ("held", "broken", "inconclusive")] == [3, 0, 0]
