"""The pages of the documentation and the blocks in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LANGUAGES = ("console", "sh", "python", "bibtex", "text")
"""What a fence may name: a command stands in a console or a script, where it is checked, and in no other."""
INLINE = re.compile(r"`(immunobench [^`]+)`")
NOT_RUN = "not run"


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What stands behind the prompts of a console."""
        return [line[2:] for line in self.text.splitlines() if self.language == "console" and line.startswith("$ ")]


def pages() -> list[str]:
    """Every page, in the order of the navigation."""

    def flat(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in flat(part)]

    return flat(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(*found.groups(default="")) for found in FENCE.finditer((ROOT / "docs" / page).read_text())]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", (ROOT / "docs" / page).read_text())


def commands(page: str) -> list[str]:
    """The commands of a page that are run."""
    return [command for block in blocks(page) if block.title != NOT_RUN for command in block.commands]


def invocations(page: str) -> list[list[str]]:
    """The words after ``immunobench`` of every command of a page, run or not, scripts and running text among them."""
    inline = [" ".join(text.split()) for text in INLINE.findall(prose(page))]
    found = [words[1:] for text in inline if (words := text.split())[1].islower()]
    for block in blocks(page):
        if block.language in ("console", "sh"):
            text = block.text.replace("\\\n", " ")
            lines = [line.removeprefix("$ ") for line in text.splitlines() if "immunobench " in line]
            words = [shlex.split(line.split("||")[0]) for line in lines if not line.startswith(("python", "#"))]
            found += [each[each.index("immunobench") + 1 :] for each in words]
    return found
