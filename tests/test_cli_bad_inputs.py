"""Bad inputs whose making takes more than a line: a folder nobody may write to, a damaged cell, a foreign adapter."""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from immunobench.subjects import Subject
from tests.test_cli import RUN, Ran, cli  # noqa: F401  (a fixture)
from tests.test_subjects import adapter, on_base  # noqa: F401  (a fixture)

OVERRIDE = 1 << 1
"""CAP_DAC_OVERRIDE, by which permissions do not bind root (capabilities(7))."""


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Permissions bind this thread, though it may be root's."""
    if os.getuid():
        yield
        return
    system = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert system.capget(header, sets) == 0
    effective = sets[0]
    try:
        sets[0] = effective & ~OVERRIDE
        assert system.capset(header, sets) == 0
        yield
    finally:
        sets[0] = effective
        assert system.capset(header, sets) == 0


@pytest.mark.parametrize("command", ["run", "implant", "immunise", "diagnose", "export", "report"])
def test_a_read_only_folder(
    cli: Callable[..., Ran],  # noqa: F811
    model_folders: dict[str, Path],
    finished_study: Path,
    tmp_path: Path,
    command: str,
) -> None:
    defense = ("--defense", "ga", "--set", "steps=1", "--keep-utility", "0")
    words = {
        "run": (*RUN, model_folders["subject"], "--out", "out"),
        "implant": ("implant", model_folders["exposed"], "--facts", "32", "--out", "out"),
        "diagnose": ("diagnose", model_folders["subject"], "probes", "--out", "out"),
        "immunise": ("immunise", model_folders["exposed"], *defense, "--out", "out"),
        "export": ("export", "out"),
        "report": ("report", finished_study, "--format", "html", "--out", "out.html"),
    }[command]
    here = tmp_path / "here"
    here.mkdir(mode=0o555)
    with bound_by_permissions():
        ran = cli(*words)
    here.chmod(0o755)
    told = ran.err.splitlines()
    assert ran.code == 1 and ran.out == "" and "Traceback" not in ran.err
    assert told[-1].startswith("immunobench: cannot write") and "Permission denied" in told[-1], ran.err
    assert not [line for line in told if ": step " in line], "all that work for nothing"
    assert list(here.iterdir()) == []


def test_a_damaged_cell_of_a_study_that_goes_on(
    cli: Callable[..., Ran],  # noqa: F811
    model_folders: dict[str, Path],
    finished_study: Path,
    tmp_path: Path,
) -> None:
    root = shutil.copytree(finished_study, tmp_path / "study")
    for file in root.glob("*/cell.json"):
        file.write_text("{")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    words = ["run", model_folders["subject"], "--tier", "smoke", "--max-new-tokens", 8, "--only", "none"]
    ran = cli(*words, "--out", root)
    last = ran.err.splitlines()[-1]
    assert ran.code == 1 and ran.out == "" and "Traceback" not in ran.err
    assert last.startswith("immunobench: ") and "is damaged (cell.json does not read): remove the folder" in last
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_an_adapter_for_another_base(
    cli: Callable[..., Ran],  # noqa: F811
    adapter: Path,  # noqa: F811
    make_subject: Callable[..., Subject],
    tmp_path: Path,
) -> None:
    spec = on_base(adapter, make_subject(hidden=48), tmp_path)
    ran = cli(*RUN, spec, "--exposed", tmp_path / "base")
    last = ran.err.splitlines()[-1]
    assert ran.code == 2 and ran.out == "" and "Traceback" not in ran.err
    assert last.startswith("immunobench: ") and "does not fit its base" in last
    assert not list((tmp_path / "here").rglob("study.json")) and not list((tmp_path / "here").rglob("*.tmp"))
