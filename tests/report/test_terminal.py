"""What a person sees in the terminal."""

import re
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from immunobench.attacks.quantisation import RoundToNearest
from immunobench.engines.hf import HFEngine
from immunobench.report.reading import StudyReport
from immunobench.report.terminal import StudyProgress, print_list, print_results
from immunobench.study.plan import size
from immunobench.study.run import Request, run_study
from immunobench.study.store import Store
from immunobench.subjects import load_subject
from tests.conftest import BROKEN_EARLY


def test_what_looks_like_markup_is_shown() -> None:
    """Templates such as Llama 2's are no markup."""
    shown = StringIO()
    print_list("a[b]", [("<s>[INST] Hello [/INST]", "[vllm]")], ("template", "extra"), Console(file=shown, width=120))
    assert "a[b]" in shown.getvalue() and "<s>[INST] Hello [/INST]" in shown.getvalue() and "[vllm]" in shown.getvalue()


def test_a_table_of_several_engines_has_a_column_for_them(
    mixed_study: list[StudyReport], studies: list[StudyReport]
) -> None:
    shown = [StringIO(), StringIO()]
    for each, sink in zip((mixed_study, studies), shown, strict=True):
        print_results([each[0].subjects[0].result], Console(file=sink, width=200))
    lines = {line.split()[0]: line.split() for line in shown[0].getvalue().splitlines() if line.strip()}
    assert "engine" in lines["adversary"] and "hf" in lines["quantise"] and "vllm" in lines["prefill"]
    assert "engine" not in shown[1].getvalue()


def shown_while(asked: Request, root: Path) -> list[tuple[str, int, int, str]]:
    """What the bar of a study showed on a terminal: label, checkpoints done, of how many, and the time left."""
    sink = StringIO()
    target = Console(file=sink, force_terminal=True, width=200, legacy_windows=False)
    with StudyProgress(*size(asked), target) as progress:
        progress._bar.live.auto_refresh = False
        for told in ("cell_started", "point_done", "cell_done"):

            def and_refresh(*given: object, call: Callable[..., None] = getattr(progress, told)) -> None:
                call(*given)
                progress._bar.refresh()

            setattr(progress, told, and_refresh)
        run_study(asked, Store(root), lambda spec: HFEngine(load_subject(spec)), progress)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sink.getvalue())
    row = re.compile(r"(\S+ × \S+|starting) \S+ +(\d+)/(\d+) [\d:]+ left ([-\d:]+)")
    return [(label, int(done), int(total), left) for label, done, total, left in row.findall(plain)]


def test_the_bar_shows_the_time_left_and_ends_full(model_folders: dict[str, Path], tmp_path: Path) -> None:
    asked = Request([str(model_folders["subject"])], "smoke", ("none", "prefill", "quantise"), max_new_tokens=8)
    shown = shown_while(asked, tmp_path)
    assert shown[0][1:] == (0, size(asked)[0], "-:--:--")
    assert any(re.fullmatch(r"0:\d\d:\d\d", left) and 0 < done < total for _, done, total, left in shown)
    assert [done for _, done, *_ in shown] == sorted(done for _, done, *_ in shown)
    assert shown[-1][1:3] == (size(asked)[0],) * 2 and shown[-1][0].endswith("never × quantise")
    shutil.rmtree(next(path.parent for path in tmp_path.glob("*/cell.json")))
    again = shown_while(asked, tmp_path)
    assert again[-1][1] == again[-1][2] < size(asked)[0], "what is kept takes no time and is not counted"


def test_the_bar_ends_full_where_cells_fail_or_are_left_out(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the disk of weights slipped")

    monkeypatch.setattr(RoundToNearest, "run", fail)
    asked = Request([str(model_folders["subject"])], "smoke", ("none", "quantise"), max_new_tokens=8)
    shown = shown_while(asked, tmp_path / "failed")
    assert shown[-1][1] == shown[-1][2] == size(asked)[0]
    shown = shown_while(BROKEN_EARLY, tmp_path / "early")
    assert 0 < shown[-1][1] == shown[-1][2] < shown[0][2] == size(BROKEN_EARLY)[0]
