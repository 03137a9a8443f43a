"""Judge the stored answers of a study, any number of times, without running its subjects.

``RUN/judgements/<judge_id>/`` holds one parquet file a cell and, written last, judge.json with the judge's
identity. Two judges of one study are compared answer by answer.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from immunobench.errors import UsageError
from immunobench.files import write_file
from immunobench.judges import Judge, as_rows
from immunobench.metrics.agreement import agreement
from immunobench.metrics.intervals import share
from immunobench.protocol.adversary import fingerprint
from immunobench.study.store import Store, write_json

FOLDER = "judgements"


def judge_study(root: Path, judge: Judge, on_cell: Callable[[int, int], None]) -> Path:
    """Judge every stored answer of the study in ``root`` and return the folder of the judgements.

    The same command goes on where it was stopped. Raises UsageError where there are no answers,
    ImmunobenchError where the disk refuses.
    """
    store = Store(root)
    cells = sorted(path.parent.name for path in root.glob("*/cell.json"))
    if not cells:
        raise UsageError(f"'{root}' holds no cells: run 'immunobench run ... --out {root}' first.")
    identity = judge.identity
    folder = root / FOLDER / fingerprint(identity)
    for done, cell_id in enumerate(cells, 1):
        file = folder / f"{cell_id}.parquet"
        store.read(cell_id)
        answers = store.transcripts(cell_id)
        if not file.is_file():
            found = judge.judge(answers["request"].to_pylist(), answers["answer"].to_pylist())
            rows = [
                {"point": point, "item": item, **row}
                for point, item, row in zip(
                    answers["point"].to_pylist(), answers["item"].to_pylist(), as_rows(found), strict=True
                )
            ]
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=JUDGEMENTS), sink)
            write_file(file, sink.getvalue().to_pybytes())
        on_cell(done, len(cells))
    write_json(folder / "judge.json", identity)
    return folder


JUDGEMENTS = pa.schema(
    [
        pa.field("point", pa.int32()),
        pa.field("item", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("verdict", pa.string()),
    ]
)


def judgements(root: Path) -> dict[str, dict[tuple[str, int, str], bool]]:
    """Whether the score is above one half, by judge and (cell, point, item); of every judge that is done."""
    found: dict[str, dict[tuple[str, int, str], bool]] = {}
    for file in sorted((root / FOLDER).glob("*/judge.json")):
        identity = json.loads(file.read_text())
        name = f"{identity['form']['name']} by {Path(identity['judge']).name} {file.parent.name[:6]}"
        found[name] = {
            (table.stem, row["point"], row["item"]): row["score"] > 0.5
            for table in sorted(file.parent.glob("*.parquet"))
            for row in pq.read_table(table).to_pylist()
        }
    return found


def summarise(root: Path) -> list[dict[str, Any]]:
    """A row a judge with the share it calls positive, and a row a pair of judges with Cohen's κ; all with intervals."""
    known = judgements(root)
    rows: list[dict[str, Any]] = [
        {"judges": name, "n": len(labels), "figure": "positive", "estimate": share(list(map(float, labels.values())))}
        for name, labels in known.items()
    ]
    for (first, one), (second, two) in itertools.combinations(known.items(), 2):
        both = sorted(set(one) & set(two))
        kappa = agreement([one[key] for key in both], [two[key] for key in both]).kappa
        rows.append({"judges": f"{first} and {second}", "n": len(both), "figure": "kappa", "estimate": kappa})
    return rows
