"""Measures that are shown beside an adversary's figures and enter no outcome: best of several tries, controls."""

from collections.abc import Sequence

from immunobench.metrics.estimate import Estimate
from immunobench.metrics.intervals import share
from immunobench.protocol.adversary import Adversary
from immunobench.protocol.verdict import severity
from immunobench.study.evidence import Cells, Key, Trio
from immunobench.study.measurements import stacked


def asides(adversary: Adversary, trio: Trio, worst: Key) -> dict[str, Estimate]:
    """What there is beside R at ``worst``, by name, on the report half.

    'any of n right': share of requests that at least one of n sampled answers gives away, where that is not the mean
    over answers. 'shuffled labels': accuracy of the same probe learnt on shuffled labels, the control of a linear
    probe. 'median R of k searches': R of the middle one of k searches that differ in their random start alone, in the
    order of the select half; the worst of them is the adversary's own R.
    """
    found: dict[str, Estimate] = {}
    any_of_n = _share(trio.subject, worst, "behaviour", "right_any")
    mean = _share(trio.subject, worst, "behaviour", "right")
    if any_of_n is not None and mean is not None and any_of_n.value != mean.value:
        found["any of n right"] = any_of_n
    shuffled = _share(trio.subject, worst, "knowledge", "correct_shuffled")
    if shuffled is not None:
        found["shuffled labels"] = shuffled
    if getattr(adversary.instance, "restarts", False):
        each = [max(keys, key=lambda key: severity(trio.evidence(key, "select"))) for keys in _by_variant(trio)]
        each.sort(key=lambda key: trio.evidence(key, "select").recovery.value)
        middle = each[(len(each) - 1) // 2]
        found[f"median R of {len(each)} searches"] = trio.evidence(middle, "report").recovery
    return found


def _share(cells: Cells, key: Key, probe: str, measure: str) -> Estimate | None:
    index = cells[0].points[key].index
    if not all(cell.has(cell.points[key].index, probe, measure) for cell in cells):
        return None
    clusters = cells[0].clusters(index, probe, measure, "report")
    return share(stacked(cells, key, probe, measure, "report"), clusters)


def _by_variant(trio: Trio) -> Sequence[list[Key]]:
    variants: dict[str, list[Key]] = {}
    for key in trio.shared_keys():
        variants.setdefault(key[0], []).append(key)
    return list(variants.values())
