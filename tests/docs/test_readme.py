"""The README shows the commands that its script and the Makefile run."""

import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text()


def script() -> Any:
    """docs/transcripts.py as a module."""
    spec = importlib.util.spec_from_file_location("transcripts", ROOT / "docs" / "transcripts.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMANDS: dict[str, list[str]] = script().COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_transcript_is_of_the_commands_that_the_script_runs(name: str) -> None:
    block = re.search(rf"<!-- {name}:begin -->\n```\n(.*?)```.*?<!-- {name}:end -->", README, re.DOTALL)
    assert block
    assert [line[2:] for line in block[1].splitlines() if line.startswith("$ ")] == COMMANDS[name]


def test_make_quickstart_runs_the_command_that_is_shown() -> None:
    recipe = subprocess.run(
        ["make", "--dry-run", "--always-make", "--no-print-directory", "quickstart"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    last = " ".join(recipe.stdout.replace("\\\n", " ").rstrip().splitlines()[-1].split())
    assert [last] == [f".venv/bin/{command}" for command in COMMANDS["quickstart"]]


def test_the_script_writes_what_was_printed_and_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transcripts = script()
    page = tmp_path / "README.md"
    page.write_text("Before.\n<!-- short:begin -->\nold\n<!-- short:end -->\nAfter.\n")
    monkeypatch.setattr(transcripts, "README", page)
    commands = ["printf one\\ntwo\\n", "printf three"]
    monkeypatch.setattr(transcripts, "COMMANDS", {"short": commands})
    transcripts.main("short")
    shown = re.escape(f"$ {commands[0]}\none\ntwo\n$ {commands[1]}\nthree\n")
    expected = rf"Before\.\n<!-- short:begin -->\n```\n{shown}```\n\nTook 0 s, 0 s on \d+ cores?\."
    assert re.fullmatch(expected + r"\n<!-- short:end -->\nAfter\.\n", page.read_text())
    monkeypatch.setattr(transcripts, "CLOSING", {"short": 1})
    transcripts.main("short")
    assert "\ntwo\n" in page.read_text() and "\none\n" not in page.read_text()
