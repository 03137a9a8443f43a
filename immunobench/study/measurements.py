"""Arrays of one cell's measurements, in one order of items for every model."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from immunobench.study.cell import Cell, Point


class Measurements:
    """A done cell with its items."""

    def __init__(self, cell: Cell, items: pa.Table) -> None:
        self.cell = cell
        self._items = items

    @property
    def engine(self) -> str:
        """Name of the engine that served it."""
        return str(self.cell.identity["engine"]["name"])

    @cached_property
    def points(self) -> dict[tuple[str, int], Point]:
        """Points by what they share across models attacked alike: variant and steps."""
        return {(point.variant, point.steps): point for point in self.cell.points}

    @cached_property
    def _columns(
        self,
    ) -> dict[tuple[int, str, str], tuple[list[str], list[str], list[str], NDArray[np.float64]]]:
        keys = ("point", "probe", "measure")
        ordered = self._items.sort_by([(key, "ascending") for key in (*keys, "item")])
        columns = {}
        groups = ordered.group_by(list(keys)).aggregate([("item", "count")]).to_pylist()
        for group in groups:
            mask = pc.and_(
                pc.and_(pc.equal(ordered["point"], group["point"]), pc.equal(ordered["probe"], group["probe"])),
                pc.equal(ordered["measure"], group["measure"]),
            )
            part = ordered.filter(mask)
            columns[group["point"], group["probe"], group["measure"]] = (
                part["item"].to_pylist(),
                part["cluster"].to_pylist(),
                part["half"].to_pylist(),
                part["value"].to_numpy(),
            )
        return columns

    def has(self, point: int, probe: str, measure: str) -> bool:
        """Whether that was measured there."""
        return (point, probe, measure) in self._columns

    def values(self, point: int, probe: str, measure: str, half: str | None = None) -> NDArray[np.float64]:
        """Values over items in the order of their ids, all or of one half, shape (items,)."""
        _, _, halves, values = self._columns[point, probe, measure]
        return values if half is None else values[np.array(halves) == half]

    def clusters(self, point: int, probe: str, measure: str, half: str | None = None) -> list[str]:
        """Clusters of the items that :meth:`values` returns."""
        _, clusters, halves, _ = self._columns[point, probe, measure]
        return [c for c, h in zip(clusters, halves, strict=True) if half is None or h == half]


def stacked(
    cells: Sequence[Measurements], key: tuple[str, int], probe: str, measure: str, half: str | None = None
) -> NDArray[np.float64]:
    """Values of the point ``key`` in the cells of several seeds, shape (seeds, items)."""
    return np.stack([cell.values(cell.points[key].index, probe, measure, half) for cell in cells])
