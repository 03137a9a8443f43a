"""The store against crashes, full disks, read-only folders and flipped bits."""

import json
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from immunobench.errors import ImmunobenchError
from immunobench.study.cell import Cell, Failure
from immunobench.study.store import UNFINISHED, Store, write_json
from tests.study.synthetic import cell_tables, level

POINTS = {("", 0): level(0.5, refused=0.5), ("", 1): level(0.7)}


def stored(root: Path) -> tuple[Store, Cell, pa.Table, pa.Table]:
    """A store with one cell."""
    store = Store(root)
    cell, items, transcripts = cell_tables(POINTS, {"seed": 1})
    return store, store.write(cell, items, transcripts), items, transcripts


def files(root: Path) -> list[str]:
    """Every file under ``root`` but the lock that writers share."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != ".lock")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store, cell, items, transcripts = stored(tmp_path / "deep" / "runs")
    assert store.read(cell.cell_id) == cell
    assert store.items(cell.cell_id).equals(items)
    assert store.transcripts(cell.cell_id).equals(transcripts)
    assert files(store.root) == [
        f"{cell.cell_id}/{name}" for name in ("cell.json", "items.parquet", "transcripts.parquet")
    ]
    assert store.read("0" * 16) is None


def test_numbers_and_texts_come_back_exactly(tmp_path: Path) -> None:
    _, _, items, _ = stored(tmp_path)
    values = [0.1, -0.0, 1e-320, float("inf"), float("nan")]
    odd = items.slice(0, len(values)).set_column(6, "value", pa.array(values))
    cell, _, transcripts = cell_tables(POINTS, {"seed": 2})
    texts = transcripts.set_column(3, "answer", pa.array(["\x00\u2028é𝔸\n" for _ in range(len(transcripts))]))
    store = Store(tmp_path)
    store.write(cell, odd, texts)
    read = store.items(cell.cell_id)["value"].to_pylist()
    assert [v.hex() for v in read] == [v.hex() for v in values]
    assert store.transcripts(cell.cell_id)["answer"].to_pylist() == texts["answer"].to_pylist()


@pytest.mark.parametrize("name", ["items.parquet", "transcripts.parquet", "cell.json"])
def test_a_flipped_bit_never_passes_for_a_result(tmp_path: Path, name: str) -> None:
    store, cell, *_ = stored(tmp_path)
    path = tmp_path / cell.cell_id / name
    content = path.read_bytes()
    for position in random.Random(0).sample(range(8 * len(content)), 300):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            assert store.read(cell.cell_id) == cell, "only white space may change unseen"
        except ImmunobenchError as error:
            assert "is damaged" in str(error) and "remove the folder" in str(error) and "\n" not in str(error)
        else:
            assert name == "cell.json"


@pytest.mark.parametrize("name", ["items.parquet", "transcripts.parquet", "cell.json"])
def test_a_truncated_and_a_missing_file(tmp_path: Path, name: str) -> None:
    store, cell, *_ = stored(tmp_path)
    path = tmp_path / cell.cell_id / name
    for size in (0, path.stat().st_size // 2):
        os.truncate(path, size)
        with pytest.raises(ImmunobenchError, match="is damaged"):
            store.read(cell.cell_id)
    path.unlink()
    if name == "cell.json":
        assert store.read(cell.cell_id) is None, "without its last file a cell is not done"
    else:
        with pytest.raises(ImmunobenchError, match="is damaged"):
            store.read(cell.cell_id)


def test_a_cell_in_another_s_folder_is_refused(tmp_path: Path) -> None:
    store, cell, *_ = stored(tmp_path)
    (tmp_path / cell.cell_id).rename(tmp_path / "0123456789abcdef")
    with pytest.raises(ImmunobenchError, match="does not match its identity"):
        store.read("0123456789abcdef")


@contextmanager
def disk_of(most: int) -> Iterator[None]:
    """No file may grow beyond ``most`` bytes: the kernel refuses the write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("most", [0, 100, 2000])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, most: int) -> None:
    store = Store(tmp_path)
    cell, items, transcripts = cell_tables(POINTS, {"seed": 1})
    with disk_of(most), pytest.raises(ImmunobenchError, match=r"cannot write .* free space") as caught:
        store.write(cell, items, transcripts)
    assert "\n" not in str(caught.value)
    assert store.read(cell.cell_id) is None
    assert not [name for name in files(tmp_path) if name.endswith((".tmp", "cell.json"))]
    assert store.write(cell, items, transcripts) == store.read(cell.cell_id)


def test_a_full_disk_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some disks say that they are full only when data is flushed."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    store, cell, items, transcripts = stored(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    monkeypatch.setattr(os, "fsync", full)
    other, *_ = cell_tables(POINTS, {"seed": 2})
    for attempt in (cell, other):
        with pytest.raises(ImmunobenchError, match="No space left on device"):
            store.write(attempt, items, transcripts)
    with pytest.raises(ImmunobenchError, match="No space left on device"):
        write_json(tmp_path / "study.json", {})
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "runs", Path("/proc/immunobench")):
        with pytest.raises(ImmunobenchError, match="choose another folder with --out"):
            Store(root)


def in_a_fork(body: Callable[[], None]) -> int:
    """The exit code of a child process that runs ``body``: 0, what it leaves with, or 1 where it raises."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_read_only_folder(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    stored(root)
    root.chmod(0o555)

    def body() -> None:
        if os.getuid() == 0:
            # Permissions do not bind root. Standing inside, a plain user needs no rights on the folders above.
            os.chdir(root)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        with pytest.raises(ImmunobenchError, match="Permission denied; free space or choose another folder"):
            Store(Path(".") if os.getuid() == 65534 else root)

    code = in_a_fork(body)
    root.chmod(0o755)
    assert code == 0


def test_what_a_crash_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    store, cell, *_ = stored(tmp_path)
    left = tmp_path / UNFINISHED / f".{cell.cell_id}.0123456789ab.tmp"
    left.mkdir()
    (left / "items.parquet").touch()
    Store(tmp_path)
    assert left.is_dir(), "another process may be writing it"
    os.utime(left, (0, 0))
    Store(tmp_path)
    assert not left.exists() and store.read(cell.cell_id) == cell


def test_a_done_cell_is_never_replaced_and_a_failed_one_is(tmp_path: Path) -> None:
    store, cell, items, transcripts = stored(tmp_path)
    other = cell.model_copy(update={"environment": {"seconds": 1.0}})
    assert store.write(other, items, transcripts) == cell == store.read(cell.cell_id)
    failed, *_ = cell_tables(POINTS, {"seed": 2})
    failure = Failure(type="E", message="m", traceback="t")
    stored_failure = store.write(
        failed.model_copy(update={"status": "error", "error": failure}), items.slice(0, 0), transcripts.slice(0, 0)
    )
    assert store.read(failed.cell_id) == stored_failure
    assert store.write(failed, items, transcripts).status == "done"
    assert store.size(failed.cell_id) > 0


def test_json_is_finite(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1.5})
    assert json.loads(path.read_text()) == {"a": 1.5}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"a": float("nan")})
