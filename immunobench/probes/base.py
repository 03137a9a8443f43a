"""What every probe returns: rows with an item id, so that two models are compared item by item."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Transcript:
    """What was asked and answered, and why the answer ended."""

    request: str
    answer: str
    finish: Literal["stop", "length"]
    answer_ids: list[int]
    """The answer as token ids, without what was put into its mouth or the token that ended it."""


@dataclass(frozen=True)
class Row:
    """One measured item."""

    probe: str
    """'knowledge', 'behaviour', 'utility' or 'collapse'."""
    item: str
    """Id of the fact, request or text."""
    cluster: str
    """What items share that makes them depend on one another: the entity."""
    half: str
    """'select' or 'report'."""
    values: dict[str, float]
    """Measures by name."""
    transcript: Transcript | None = field(default=None, repr=False)
    """Where there is text; kept apart from the numbers."""
