"""Ctrl-C at a terminal, which every process of the command gets: nothing is lost, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from immunobench.protocol.search import counted, open_study
from tests.study.test_executors import same_measurements

MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
MAIN += "from immunobench.cli import main; main()"
"""The command as a terminal starts it: a shell that runs the tests in the background lets them ignore Ctrl-C."""
LONGEST = 300
"""Seconds until a command must have come as far as it is waited for."""


def command(subject: Path, out: Path, *options: str) -> list[str]:
    """A study of the tiny subject in a process of its own."""
    run = [sys.executable, "-c", MAIN, "run", str(subject), "--tier", "smoke", "--max-new-tokens", "8"]
    return [*run, "--out", str(out), *options]


def interrupt(asked: list[str], far_enough: Callable[[], bool]) -> str:
    """Run a command in a session of its own, press Ctrl-C once it is ``far_enough``, and return what it said."""
    with subprocess.Popen(
        asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        begun = time.monotonic()
        while not far_enough():
            assert process.poll() is None, "it ended before it could be stopped"
            assert time.monotonic() - begun < LONGEST
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=LONGEST)
    assert process.returncode == 1, said
    return said


def trials(root: Path) -> list[object]:
    """What was drawn in every trial of the one search in ``root``, and what came of it."""
    [journal] = (root / "search").glob("*.journal")
    found = sorted(counted(open_study(journal)), key=lambda t: t.number)
    return [(t.params, t.state.name, t.value) for t in found]


@pytest.mark.slow
def test_ctrl_c_during_a_search(model_folders: dict[str, Path], tmp_path: Path) -> None:
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    options = ("--only", "none", "--search-trials", "6")
    asked = command(model_folders["subject"], stopped, *options)

    def in_the_third_trial() -> bool:
        return any(path.read_bytes().count(b'"op_code":6,') >= 2 for path in stopped.glob("search/*.journal"))

    said = interrupt(asked, in_the_third_trial)
    assert "stopped: what was done is kept; the same command goes on." in said and "Traceback" not in said
    assert not (stopped / "study.json").exists() and 2 <= len(trials(stopped)) < 6
    subprocess.run(asked, check=True, capture_output=True)
    subprocess.run(command(model_folders["subject"], undisturbed, *options), check=True, capture_output=True)
    assert trials(stopped) == trials(undisturbed)
    assert (stopped / "study.json").read_bytes() == (undisturbed / "study.json").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two cores")
def test_ctrl_c_with_two_workers(model_folders: dict[str, Path], finished_study: Path, tmp_path: Path) -> None:
    only = [part for name in ("prefill", "quantise") for part in ("--only", name)]
    asked = command(model_folders["subject"], tmp_path / "study", *only, "--workers", "2")

    def done() -> int:
        return len(list((tmp_path / "study").glob("*/cell.json")))

    said = interrupt(asked, lambda: done() >= 2)
    assert "stopped: what was done is kept; the same command goes on." in said and "Traceback" not in said
    assert 2 <= done() < 9 and not (tmp_path / "study" / "study.json").exists()
    subprocess.run(asked, check=True, capture_output=True)
    assert done() == 9 and same_measurements(finished_study, tmp_path / "study")
