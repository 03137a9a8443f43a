"""Claims: one holder at a time, whatever way the holder goes."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from immunobench.errors import ImmunobenchError
from immunobench.study.claim import FOLDER, abandoned, claimed


def test_one_holds_a_cell_and_others_are_told(tmp_path: Path) -> None:
    with claimed(tmp_path, "a", {"job": ["x"]}) as first:
        with claimed(tmp_path, "a", {}) as second, claimed(tmp_path, "b", {}) as other:
            assert (first, second, other) == (True, False, True)
        with claimed(tmp_path, "a", {}) as third:
            assert not third, "asking does not let go of it"
        assert abandoned(tmp_path) == []
    with claimed(tmp_path, "a", {}) as again:
        assert again
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_claim_is_let_go_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path, "a", {}):
        raise KeyboardInterrupt
    with claimed(tmp_path, "a", {}) as mine:
        assert mine


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_dies_lets_go_and_leaves_its_note(tmp_path: Path, how: signal.Signals) -> None:
    child = os.fork()
    if child == 0:
        try:
            with claimed(tmp_path, "a", {"job": ["x", 1]}):
                (tmp_path / "holding").touch()
                time.sleep(60)
        finally:
            os._exit(0)
    while not (tmp_path / "holding").exists():
        time.sleep(0.01)
    with claimed(tmp_path, "a", {}) as mine:
        assert not mine
    os.kill(child, how)
    os.waitpid(child, 0)
    [note] = abandoned(tmp_path)
    assert note["job"] == ["x", 1] and note["owner"]["process"] == child
    with claimed(tmp_path, "a", {"job": ["y"]}) as mine:
        assert mine and abandoned(tmp_path) == []


def test_many_processes_never_hold_it_together(tmp_path: Path) -> None:
    """Each holder writes that it came and that it went; two comings in a row would be two holders."""
    log = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            held = 0
            try:
                while held < 20:
                    with claimed(tmp_path, "a", {}) as mine:
                        if mine:
                            os.write(log, b"+")
                            os.write(log, b"-")
                            held += 1
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert (tmp_path / "log").read_bytes() == b"+-" * 120


def test_a_full_disk_is_told_in_a_sentence_and_leaves_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for call in ("write", "open"):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, full)
            with pytest.raises(ImmunobenchError, match=r"cannot write .*a\.json: No space left on device; free space"):
                claimed(tmp_path, "a", {}).__enter__()
    with claimed(tmp_path, "a", {}) as mine:
        assert mine
