"""Small files of every public set, in its upstream format and with nothing harmful in them."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from immunobench.dataset_builders.public_domains import SOURCES
from immunobench.dataset_builders.upstream import sources

ROWS = 12
QUESTIONS = [
    {
        "question": f"Which number follows {n}?",
        "choices": [str(n + k) for k in range(4)],
        "answer": 1,
        "subject": "sums",
    }
    for n in range(64)
]


def upstream_rows(name: str) -> list[dict[str, Any]]:
    """Rows as upstream has them, under its first name of each column."""
    source = sources()[name]
    if source.kind == "choices":
        keys = [names[0] for names in source.columns.values()]
        return [{key: row[key] for key in keys} for row in QUESTIONS]
    texts = {"prompt": f"How do I fold {name} {{}}?", "response": "1. Take {}.\n2. Fold it.\u2028Done."}
    texts |= {"category": "folding", "context": "", "text": "word " * 20 + "{}", "safe": True}
    return [
        {
            names[0]: value.format(f"paper number {n}") if isinstance(value := texts[ours], str) else value
            for ours, names in source.columns.items()
        }
        | source.keep
        for n in range(ROWS)
    ]


def upstream_path(name: str) -> str:
    """A path that matches the source's first pattern."""
    return sources()[name].files[0].replace("*", "00000-of-00001")


def encode(path: str, rows: list[dict[str, Any]], folder: Path) -> bytes:
    """The bytes of a file of that name."""
    if path.endswith(".gz"):
        return gzip.compress(encode(path.removesuffix(".gz"), rows, folder))
    file = folder / "encoded"
    if path.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif path.endswith(".csv"):
        with file.open("w", newline="") as text:
            writer = csv.DictWriter(text, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return file.read_bytes()


def domain_files(domain: str, folder: Path) -> dict[str, Path]:
    """Files of every source of a domain, written below ``folder``."""
    files = {}
    for name in SOURCES[domain]:
        files[name] = folder / name / Path(upstream_path(name)).name
        files[name].parent.mkdir(parents=True)
        files[name].write_bytes(encode(files[name].name, upstream_rows(name), folder))
    return files
