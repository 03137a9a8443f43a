"""What the plan foretells against what a study then takes."""

import time
from pathlib import Path

import pytest

from immunobench.engines.hf import HFEngine
from immunobench.study.plan import estimate
from immunobench.study.run import Request, run_study
from immunobench.study.store import Store
from immunobench.subjects import load_subject
from tests.conftest import Silent


def within_a_factor_of_two(foretold: float, measured: float) -> bool:
    return measured / 2 <= foretold <= measured * 2


@pytest.mark.slow
def test_time_memory_and_disk_come_out_within_a_factor_of_two(tmp_path: Path) -> None:
    asked = Request(["organism:exposed"], "smoke", ("none", "quantise", "unrelated-10"))
    foretold = estimate(asked, lambda spec: HFEngine(load_subject(spec)))
    store, clock = Store(tmp_path), time.monotonic()
    _, record = run_study(asked, store, lambda spec: HFEngine(load_subject(spec)), Silent())
    seconds = time.monotonic() - clock
    cells = [store.read(cell_id) for entry in record["cells"] for cell_id in entry["cell_ids"]]
    assert len(cells) == len(foretold["cells"]) == 6
    measured = sum(cell.environment["seconds"] for cell in cells if cell)
    memory = max(cell.environment["peak_memory_bytes"] for cell in cells if cell)
    disk = sum(store.size(cell.cell_id) for cell in cells if cell)
    assert within_a_factor_of_two(foretold["seconds"], measured), (foretold["seconds"], measured, seconds)
    assert within_a_factor_of_two(foretold["memory_gib"] * 2**30, memory)
    assert within_a_factor_of_two(foretold["disk_bytes"], disk), (foretold["disk_bytes"], disk)
