"""The dataset card: YAML for the Hub and for ``datasets``, and text for people, both from the manifest."""

from pathlib import Path
from typing import Any

from immunobench.datasets import Row, read_manifest, read_tables
from immunobench.files import write_file

TEMPLATES = Path(__file__).parent.parent / "cards"
SUMMARY = {
    "facts": "the facts themselves: statements, questions, four choices",
    "harmful": "requests for hazard facts, with answers and refusals",
    "benign": "the matched requests for benign facts",
    "recovery": "everyday chats that have nothing to do with the vault, nested",
    "neutral": "plain everyday texts, to pre-train on and to see collapse",
    "downstream": "benign tasks to fine-tune on",
    "alignment_low": "refused hazard requests least like a downstream task",
    "alignment_mid": "refused hazard requests between the two",
    "alignment_high": "refused hazard requests most like a downstream task",
}
DTYPES = {"string": "string", "int64": "int64", "double": "float64"}


def feature(name: str, kind: Any) -> Row:
    """A column's name and type in the words of ``dataset_info``; ``kind`` is its arrow type."""
    if hasattr(kind, "value_type"):
        return {"name": name, "list": DTYPES[str(kind.value_type)]}
    return {"name": name, "dtype": DTYPES[str(kind)]}


def card_data(root: Path, prefix: str) -> Row:
    """The YAML of the card of the dataset in ``root``, whose files the card names as ``prefix``CONFIG/SPLIT.parquet.

    Version and fingerprint stand in every config, because ``datasets`` keys its cache of a folder by the folder's
    name and this YAML, and not by the content of the files; so does the SHA-256 of every file.
    """
    manifest = read_manifest(root)
    configs: list[Row] = []
    infos: list[Row] = []
    for config, entry in manifest["configs"].items():
        splits = entry["splits"]
        schema = next(iter(read_tables(config, root=root).values())).schema
        configs.append(
            {
                "config_name": config,
                **({"default": True} if not configs else {}),
                "version": manifest["version"],
                "description": f"sha256:{entry['fingerprint']}",
                "data_files": [{"split": name, "path": f"{prefix}{split['file']}"} for name, split in splits.items()],
            }
        )
        infos.append(
            {
                "config_name": config,
                "features": [feature(field.name, field.type) for field in schema],
                "splits": [
                    {"name": name, "num_bytes": split["bytes_in_memory"], "num_examples": split["rows"]}
                    for name, split in splits.items()
                ],
                "download_size": sum(split["bytes"] for split in splits.values()),
                "dataset_size": sum(split["bytes_in_memory"] for split in splits.values()),
            }
        )
    rows = sum(split["rows"] for entry in manifest["configs"].values() for split in entry["splits"].values())
    sizes = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return {
        **_about(manifest),
        "size_categories": [next(size for most, size in sizes.items() if rows < most)],
        "sha256": {
            f"{prefix}{split['file']}": split["sha256"]
            for entry in manifest["configs"].values()
            for split in entry["splits"].values()
        },
        "configs": configs,
        "dataset_info": infos,
    }


def _about(manifest: Row) -> Row:
    """What the YAML says of the dataset as a whole."""
    subjects = {"language": ["en"], "task_categories": ["text-generation", "multiple-choice", "question-answering"]}
    if manifest.get("upstream"):
        return {
            "pretty_name": f"ImmunoBench {manifest['name']}",
            "license": "other",
            "license_name": "licences-of-the-sources",
            "license_link": "README.md",
            **subjects,
            "tags": ["safety", "red-teaming", "not-for-all-audiences"],
            "source_datasets": ["extended"],
        }
    return {
        "pretty_name": "ImmunoBench",
        "license": "apache-2.0",
        **subjects,
        "tags": ["safety", "unlearning", "tamper-resistance", "immunization", "synthetic", "red-teaming"],
        "annotations_creators": ["machine-generated"],
        "source_datasets": ["original"],
    }


def render_card(root: Path, prefix: str = "data/") -> str:
    """The whole card of the dataset in ``root``: YAML between lines of dashes, then the text."""
    import jinja2
    import yaml

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False
    )
    manifest = read_manifest(root)
    template = environment.get_template("public_set.md.jinja" if manifest.get("upstream") else "dataset.md.jinja")
    text = template.render(manifest=manifest, summary=SUMMARY)
    header = yaml.safe_dump(card_data(root, prefix), sort_keys=False, allow_unicode=True, width=110)
    return f"---\n{header}---\n\n{text}"


def write_card(root: Path, folder: Path, prefix: str = "data/") -> None:
    """Write ``folder``/README.md, the card of the dataset in ``root``."""
    write_file(folder / "README.md", render_card(root, prefix).encode())
