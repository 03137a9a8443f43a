"""The journal of a search under fire: what is damaged is named, and what is cut off is done again."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from immunobench.errors import ImmunobenchError
from immunobench.protocol.adversary import Adversary
from immunobench.protocol.journal import CheckedJournal, JournalError
from immunobench.protocol.search import Plan, Reading, counted, found, open_study, search
from tests.protocol.test_search import curve

PLAN = Plan(trials=3, steps=20)


def drawn_again(adversary: Adversary, seed: int) -> Iterator[Reading]:
    """The curve under this plan, whose seed is that of the other tests."""
    return curve(adversary, seed)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A finished search."""
    path = tmp_path / "a.journal"
    search(PLAN, path, drawn_again)
    return path


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    entries = [{"op": number, "text": "ü\n"} for number in range(3)]
    CheckedJournal(tmp_path / "a").append_logs(entries[:1])
    again = CheckedJournal(tmp_path / "a")
    again.append_logs(entries[1:])
    assert list(again.read_logs(0)) == list(CheckedJournal(tmp_path / "a").read_logs(0)) == entries
    assert list(again.read_logs(2)) == entries[2:]


def test_every_flipped_bit_is_seen(journal: Path) -> None:
    """Save in the last line feed: without it the last entry is one that a crash cut off."""
    content = journal.read_bytes()
    for at in range(0, len(content) - 1, 7):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        journal.write_bytes(damaged)
        with pytest.raises(JournalError, match=r"a\.journal' is damaged in line \d+: remove the file and run"):
            CheckedJournal(journal)
    with pytest.raises(ImmunobenchError, match="is damaged in line"):
        found(PLAN, journal, 0.0)


def test_lines_that_are_gone_or_change_places_are_seen(journal: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    for changed in (lines[1:], lines[:3] + lines[4:], [lines[0], lines[2], lines[1], *lines[3:]], [*lines, lines[-1]]):
        journal.write_bytes(b"".join(changed))
        with pytest.raises(JournalError, match="is damaged in line"):
            CheckedJournal(journal)


def test_a_search_that_was_cut_off_anywhere_ends_the_same(journal: Path, tmp_path: Path) -> None:
    content = journal.read_bytes()
    whole = [(t.params, t.value) for t in counted(open_study(journal))]
    for share in (0.0, 0.03, 0.2, 0.5, 0.77, 0.99):
        cut = tmp_path / "cut.journal"
        cut.write_bytes(content[: int(share * len(content))])
        search(PLAN, cut, drawn_again)
        assert [(t.params, t.value) for t in counted(open_study(cut))] == whole, share


def test_a_full_disk_is_told_and_leaves_the_journal_whole(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = journal.read_bytes()
    more = Plan(trials=5, steps=20)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ImmunobenchError, match=r"cannot write .*a\.journal: No space left on device; free space"):
            search(more, journal, drawn_again)
    assert journal.read_bytes() == before
    search(more, journal, drawn_again)
    assert len(counted(open_study(journal))) == 5


def test_a_disk_that_fills_up_in_a_trial_does_not_pass_for_an_attack_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, real = tmp_path / "b.journal", os.fsync

    def filling(adversary: Adversary, seed: int) -> Iterator[Reading]:
        yield next(iter(drawn_again(adversary, seed)))
        monkeypatch.setattr(os, "fsync", full_once)
        yield from drawn_again(adversary, seed)

    def full_once(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(JournalError, match="No space left"):
        search(PLAN, journal, filling)
    assert not [t for t in counted(open_study(journal)) if "error" in t.user_attrs]
