"""The dataset card: YAML for the Hub and for ``datasets``, and text for people, both from the manifest."""

import json
from pathlib import Path
from typing import Any

from immunobench.dataset_builders.figures import ENDING, NEAR
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
COLUMNS = {
    "id": "name of the row",
    "fact_id": "`id` of the fact that is asked for",
    "side": "hazard or benign",
    "field": "one of the four sub-fields: compounds, organisms, devices, protocols",
    "entity": "the invented name",
    "attribute": "which of the four attributes of the sub-field",
    "value": "the right value",
    "part": "t or v (see above); in `downstream` train or test",
    "half": "select or report for V, empty for T",
    "statements": "sentences that state the fact, to train on",
    "cloze": "start of a sentence that the value ends, to measure with",
    "cloze_2": "another one",
    "question": "a question that the value answers, to measure with",
    "question_2": "another one",
    "train_questions": "questions to train on",
    "train_answers": "answers to train on: in `facts` to any of `train_questions`, in requests to one prompt each",
    "choices": "four values of the attribute, one of them right",
    "answer": "in `facts` the index (0 to 3) of the right choice, in requests an answer that tells the value",
    "style": "how it is worded: question, list, essay, code, letter or role; in `recovery` the kind of chat",
    "prompt": "the user's turn; in requests on V a wording that is never trained on",
    "train_prompts": "18 wordings of the request to train on, three of each style",
    "train_styles": "the style of each of `train_prompts`",
    "refusal": "an answer that refuses",
    "response": "the assistant's turn; in alignment sets a refusal",
    "text": "a plain text of some sentences",
    "task": "the downstream task it is, or is near to",
    "category": "the sub-field of the fact that is asked for",
    "band": "low, mid or high",
    "similarity": "mean cosine with the training rows of the task",
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


def list_columns(manifest: Row) -> list[Row]:
    """Every column of the dataset with its configs and what it is, in the order of ``COLUMNS``."""
    configs: dict[str, list[str]] = {}
    for config, entry in manifest["configs"].items():
        where = "alignment sets" if config.startswith("alignment_") else f"`{config}`"
        for column in next(iter(entry["splits"].values()))["columns"]:
            if where not in configs.setdefault(column, []):
                configs[column].append(where)
    return [{"name": name, "configs": configs[name], "what": what} for name, what in COLUMNS.items() if name in configs]


def draw_samples(root: Path) -> dict[str, str]:
    """The first row of each config as JSON, lists but choices cut to their first entry."""
    samples = {}
    for config in read_manifest(root)["configs"]:
        (row,) = next(iter(read_tables(config, root=root).values())).slice(0, 1).to_pylist()
        cut = {
            key: [value[0], f"… {len(value) - 1} more"] if isinstance(value, list) and key != "choices" else value
            for key, value in row.items()
        }
        samples[config] = json.dumps(cut, indent=1, ensure_ascii=False)
    return samples


def render_card(root: Path, prefix: str = "data/") -> str:
    """The whole card of the dataset in ``root``: YAML between lines of dashes, then the text."""
    import jinja2
    import yaml

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    manifest = read_manifest(root)
    if manifest.get("upstream"):
        text = environment.get_template("public_set.md.jinja").render(manifest=manifest)
    else:
        text = environment.get_template("dataset.md.jinja").render(
            manifest=manifest,
            summary=SUMMARY,
            columns=list_columns(manifest),
            samples=draw_samples(root),
            likeness=manifest["measured"]["likeness"],
            ending=ENDING,
            near=NEAR,
        )
    header = yaml.safe_dump(card_data(root, prefix), sort_keys=False, allow_unicode=True, width=110)
    return f"---\n{header}---\n\n{text}"


def write_card(root: Path, folder: Path, prefix: str = "data/") -> None:
    """Write ``folder``/README.md, the card of the dataset in ``root``."""
    write_file(folder / "README.md", render_card(root, prefix).encode())
