"""The page docs/datasets.md: samples drawn from the packaged rows, and the table of public sets."""

from pathlib import Path

from immunobench.dataset_builders.bands import SIZES
from immunobench.dataset_builders.card import TEMPLATES
from immunobench.dataset_builders.embeddings import REVISION
from immunobench.dataset_builders.upstream import sources
from immunobench.datasets import Row, read_config, read_manifest
from immunobench.files import write_file

KINDS = {"requests": "harmful", "chats": "chats", "texts": "neutral", "choices": "facts"}


def first_of_each(rows: list[Row], column: str) -> list[Row]:
    """The first row of each value of a column, in order of appearance."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row[column], row)
    return list(found.values())


def render_page(root: Path | None = None) -> str:
    """The text of docs/datasets.md, of the dataset in ``root`` (the packaged one by default)."""
    import jinja2

    template = (TEMPLATES / "datasets_page.md.jinja").read_text(encoding="utf-8")
    measured = read_manifest(root)["measured"]
    harmful = read_config("harmful", "test", root)
    refusals = sorted({row["refusal"] for row in harmful})
    return jinja2.Template(template, undefined=jinja2.StrictUndefined, keep_trailing_newline=True).render(
        fact=read_config("facts", "hazard_v", root)[0],
        requests=first_of_each(harmful, "style"),
        refusals=refusals[:: len(refusals) // 4][:4],
        recovery=read_config("recovery", "n10", root),
        downstream=first_of_each(read_config("downstream", root=root), "task"),
        measured=measured,
        bands=measured["alignment"]["tasks"]["list"],
        sizes=SIZES,
        embedder_revision=REVISION,
        sources=sources(),
        kinds=KINDS,
    )


def write_page(root: Path) -> None:
    """Write docs/datasets.md of the checkout whose package holds ``root``; a wheel has none, and nothing is written."""
    page = root.parents[1] / "docs" / "datasets.md"
    if page.is_file():
        write_file(page, render_page(root).encode())
