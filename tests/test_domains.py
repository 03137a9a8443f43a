"""Cutting a domain keeps its shape."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunobench.domains import FEWEST_NEUTRAL, load_domain
from immunobench.errors import UsageError


@settings(max_examples=20, deadline=None)
@given(st.integers(32, 512))
def test_a_cut_keeps_proportions_and_matches_requests_to_facts(facts: int) -> None:
    whole, cut = load_domain("vault"), load_domain(f"vault/{facts}")
    for measured, trained in ((cut.hazard_v, cut.hazard_t), (cut.benign_v, cut.benign_t)):
        halves = Counter(fact.half for fact in measured)
        assert halves["select"] == halves["report"] == min((facts - facts // 4) // 2, 128)
        assert len(trained) + len(measured) == facts
    assert {request.fact_id for request in cut.requests_v} == {fact.id for fact in cut.hazard_v}
    assert {request.fact_id for request in cut.benign_requests_t} == {fact.id for fact in cut.benign_t}
    assert list(cut.neutral) == list(whole.neutral[: len(cut.neutral)])
    assert len(cut.neutral) == max(FEWEST_NEUTRAL, len(whole.neutral) * facts // 512)
    assert cut.neutral_train == whole.neutral_train and cut.unrelated == whole.unrelated


@pytest.mark.parametrize("facts", [31, 513])
def test_a_cut_has_bounds(facts: int) -> None:
    with pytest.raises(UsageError, match=f"no domain 'vault/{facts}': vault can be cut to 32 to 512 facts"):
        load_domain(f"vault/{facts}")
