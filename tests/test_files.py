"""Writing whole or not at all, and trying it beforehand."""

import os
from pathlib import Path

import pytest

from immunobench.errors import ImmunobenchError
from immunobench.files import try_to_write, write_atomically, write_file
from tests.study.test_store import disk_of


def test_a_write_replaces_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_atomically(path, b"old")
    with disk_of(10), pytest.raises(OSError):
        write_atomically(path, b"new" * 100)
    with disk_of(10), pytest.raises(ImmunobenchError, match=f"cannot write {path}: File too large; free space"):
        write_file(path, b"new" * 100)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
    write_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"


def test_a_pipe_is_written_to_and_not_replaced_and_a_folder_refuses(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", b"new")
    assert os.read(reader, 10) == b"new" and (tmp_path / "pipe").is_fifo()
    os.close(reader)
    with pytest.raises(ImmunobenchError, match="Is a directory"):
        write_file(tmp_path, b"new")


def test_a_trial_leaves_nothing(tmp_path: Path) -> None:
    try_to_write(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "a", Path("/proc/a")):
        with pytest.raises(OSError):
            try_to_write(place)
