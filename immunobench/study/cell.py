"""A cell: one adversary against one subject, with everything measured on it."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from immunobench.attacks.base import Checkpoint
from immunobench.probes.base import Row

IDENTITY_VERSION = 1


class Compared(BaseModel):
    """What an engine may have compared with the reference. It is not written where nothing was compared."""

    model_config = ConfigDict(extra="forbid")

    parity: dict[str, Any] | None = None
    """What the engine's canary found: 'passed', and 'reason' where it did not. None where the engine runs the very
    model that the attack changed, so that there is nothing to compare."""

    @model_serializer(mode="wrap")
    def _serialized(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in plain(self).items() if name != "parity" or value is not None}


class Point(Compared):
    """One checkpoint of the attack's cost curve, with the canary's word on what was served there."""

    index: int
    """Number of the point within its cell."""
    variant: str
    """Which of the attack's own alternatives, such as 'learning_rate=0.001'."""
    steps: int
    examples: int
    tokens: int
    flops: float
    artifact: str
    """Kind of artifact: 'none', 'adapter', 'weights', 'hooks' or 'soft_prompt'."""
    last: bool
    """Whether it is the last of its variant, where behaviour is measured too."""
    detail: str = ""
    """What the attack chose for this subject."""

    @classmethod
    def of(cls, index: int, checkpoint: Checkpoint, parity: dict[str, Any] | None = None) -> "Point":
        """The record of ``checkpoint``."""
        return cls(
            parity=parity,
            index=index,
            variant=checkpoint.variant,
            artifact=checkpoint.artifact.kind,
            last=checkpoint.last,
            detail=checkpoint.detail,
            **asdict(checkpoint.cost),
        )


class Failure(BaseModel):
    """Why a cell has no measurements."""

    type: str
    message: str
    traceback: str


class Cell(Compared):
    """What is stored as ``cell.json``, with the canary's word on the untouched subject. Items stand beside it."""

    cell_id: str
    """First 16 hex digits of the SHA-256 of ``identity``."""
    identity: dict[str, Any]
    """All that can change the outcome."""
    status: Literal["done", "error"] = "done"
    points: list[Point] = Field(default_factory=list)
    items_sha256: str = ""
    """Hash of items.parquet."""
    transcripts_sha256: str = ""
    """Hash of transcripts.parquet."""
    error: Failure | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    """What cannot change the outcome: host, versions, time taken."""
    sha256: str = ""
    """Hash of everything else here, set when the cell is stored."""

    def content_sha256(self) -> str:
        """What ``sha256`` must be."""
        return hashlib.sha256(self.model_dump_json(exclude={"sha256"}).encode()).hexdigest()


ITEMS = pa.schema(
    [
        pa.field("point", pa.int32()),
        pa.field("probe", pa.string()),
        pa.field("item", pa.string()),
        pa.field("cluster", pa.string()),
        pa.field("half", pa.string()),
        pa.field("measure", pa.string()),
        pa.field("value", pa.float64()),
    ]
)
TRANSCRIPTS = pa.schema(
    [
        pa.field("point", pa.int32()),
        pa.field("item", pa.string()),
        pa.field("request", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("finish", pa.string()),
        pa.field("answer_ids", pa.list_(pa.int32())),
    ]
)


def tables(measured: Sequence[tuple[int, Row]]) -> tuple[pa.Table, pa.Table]:
    """Items in long form and transcripts apart from them, from (point index, row) pairs."""
    items = [
        {
            "point": point,
            "probe": row.probe,
            "item": row.item,
            "cluster": row.cluster,
            "half": row.half,
            "measure": measure,
            "value": value,
        }
        for point, row in measured
        for measure, value in row.values.items()
    ]
    transcripts = [
        {"point": point, "item": row.item, **vars(row.transcript)} for point, row in measured if row.transcript
    ]
    return pa.Table.from_pylist(items, schema=ITEMS), pa.Table.from_pylist(transcripts, schema=TRANSCRIPTS)
