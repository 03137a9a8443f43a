"""Every command of the documentation is run, or titled as not run and checked against the command line."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from immunobench.cli import app
from tests.docs.pages import LANGUAGES, NOT_RUN, ROOT, blocks, commands, invocations, pages, prose

RUN = [page for page in pages() if commands(page)]


class Workspace:
    """One folder and one shell in which the pages are followed, each after all that come before it."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env
        self._followed: list[str] = []

    def follow(self, page: str) -> None:
        """Write the files that a page shows and run its commands; earlier pages first."""
        for each in RUN[: RUN.index(page) + 1]:
            if each in self._followed:
                continue
            self._followed.append(each)
            for block in blocks(each):
                if block.language == "python" and block.title:
                    (self.folder / block.title).write_text(block.text)
            for command in commands(each):
                self._run(command)

    def _run(self, command: str) -> None:
        """Run it, and keep what it set in the shell for the next one."""
        kept = self.folder.parent / "environment"
        shell = ["bash", "-euo", "pipefail", "-c", f"{command}\nenv -0 > '{kept}'"]
        done = subprocess.run(shell, cwd=self.folder, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        self.env = dict(pair.split("=", 1) for pair in kept.read_text().split("\0") if pair)
        assert self.env.get("HF_TOKEN", "no token yet") not in done.stdout + done.stderr


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """An empty folder that stands for the clone: python finds the Hub among its tests. Nobody is signed in yet."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "work").mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LOCAL_HUB"))}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    reader = Workspace(folder / "work", {**env, "HF_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)})
    yield reader
    if pid := reader.env.get("LOCAL_HUB_PID"):
        with contextlib.suppress(ProcessLookupError):  # the last command of its page has ended it already
            os.kill(int(pid), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_every_command_of_a_page_runs(page: str, workspace: Workspace) -> None:
    workspace.follow(page)


@pytest.mark.parametrize("page", [page for page in pages() if invocations(page)])
def test_commands_and_options_exist(page: str) -> None:
    """Those that are not run too."""
    group = typer.main.get_command(app)
    for words in invocations(page):
        if words[0] == "--help":
            continue
        command = group.get_command(None, words[0])  # type: ignore[attr-defined, arg-type]
        assert command is not None, f"{page}: immunobench {words[0]}"
        known = {name for option in command.params for name in option.opts} | {"--help"}
        used = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
        assert used <= known, f"{page}: {words}"


def test_blocks_are_run_or_say_that_they_are_not() -> None:
    for page in pages():
        found = blocks(page)
        text = (ROOT / "docs" / page).read_text()
        assert len(found) * 2 == text.count("\n```") + text.startswith("```"), f"{page}: a fence is not understood"
        bare = re.findall(r"^(?: {4}|\t)\s*(?:\$ )?(?:immunobench|python) .*", prose(page), re.MULTILINE)
        assert bare == [], f"{page}: a command that stands in no block of the kind console"
        for block in found:
            assert block.language in LANGUAGES, f"{page}: a block of the kind '{block.language}': {block.text[:60]}"
            if block.language == "console":
                assert block.title in ("", NOT_RUN), f"{page}: {block.title}"
                assert block.commands, f"{page}: a console without a prompt"
        if any(block.language == "sh" for block in found):
            assert "Not run by a test" in text, page
    assert any(commands(page) for page in pages())


def test_every_page_is_in_the_navigation() -> None:
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert set(pages()) == written


@pytest.mark.parametrize("package", ["defenses", "diagnostics", "probes", "hub", "report", "study/executors"])
def test_every_module_of_a_package_is_in_the_reference(package: str) -> None:
    text = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(listed) == len(set(listed)), "a module stands there twice"
    names = {path.stem for path in (ROOT / "immunobench" / package).glob("*.py")} - {"__init__"}
    assert {f"immunobench.{package.replace('/', '.')}.{name}" for name in names} <= set(listed)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "reference" / "metrics" / "index.html").read_text()
    assert "recovery_change" in reference, "the reference is written from docstrings"
    pages_written = list((tmp_path / "site").rglob("*.html"))
    outside = [p for p in pages_written if "fonts.googleapis" in p.read_text()]
    assert outside == [], "nothing is fetched from elsewhere"
