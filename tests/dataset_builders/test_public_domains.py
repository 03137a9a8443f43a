"""Domains out of public sets: found by name, cut like others, T apart from V."""

from itertools import product
from pathlib import Path

import pytest

from immunobench.dataset_builders.everyday import grams
from immunobench.dataset_builders.public import AFFIRMATIVE
from immunobench.dataset_builders.public_domains import MEASURED, build_domain
from immunobench.datasets import read_config, read_manifest
from immunobench.domains import BUILT, built_folder, load_domain
from immunobench.errors import ImmunobenchError, UsageError
from tests.dataset_builders.upstream_files import ROWS, domain_files, encode, upstream_rows


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where built domains are, empty at first."""
    monkeypatch.setenv("IMMUNOBENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("name", BUILT)
def test_a_domain_is_found_by_name_once_it_is_built(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is not built yet: run 'immunobench build domain {name}'"):
        load_domain(name)
    files = domain_files(name, tmp_path / "files")
    build_domain(name, built_folder(name), files=files)
    domain = load_domain(name)
    assert domain.name == name and len(domain.unrelated) == 1000 and domain.neutral and domain.neutral_train
    assert {request.half for request in domain.requests_v} == {"select", "report"}
    build_domain(name, tmp_path / "again", files=files)
    assert read_manifest(tmp_path / "again") == read_manifest(built_folder(name))
    assert load_domain(str(tmp_path / "again")).fingerprint == domain.fingerprint
    with pytest.raises(UsageError, match="is not an empty folder: remove it"):
        build_domain(name, built_folder(name), files=files)


def test_wmdp_has_questions_on_both_sides(tmp_path: Path) -> None:
    build_domain("wmdp-bio", tmp_path / "bio", files=domain_files("wmdp-bio", tmp_path / "files"))
    domain = load_domain(str(tmp_path / "bio"))
    assert domain.has_facts
    assert len(domain.hazard_t) == len(domain.hazard_v) == 32 and len(domain.benign) == 64
    assert {fact.half for fact in domain.hazard_v} == {"select", "report"}
    assert all(fact.choices[fact.answer] == fact.value for fact in domain.hazard + domain.benign)
    values = {fact.id: fact.value for fact in domain.hazard}
    assert all(request.value == values[request.fact_id] for request in domain.requests_v)


def test_a_packaged_text_that_shares_a_5_gram_with_the_hazard_is_left_out(tmp_path: Path) -> None:
    chat, text = read_config("recovery", "n1000")[7], read_config("neutral", "train")[3]
    rows = upstream_rows("wmdp-bio")
    rows += [rows[0] | {"question": said} for said in (f"{chat['response']} Why is that so?", text["text"])]
    files = domain_files("wmdp-bio", tmp_path / "files")
    files["wmdp-bio"].write_bytes(encode("x.parquet", rows, tmp_path))
    manifest = build_domain("wmdp-bio", tmp_path / "bio", files=files)
    kept = read_config("recovery", root=tmp_path / "bio"), read_config("neutral", root=tmp_path / "bio")
    assert chat not in kept[0] and text not in kept[1]
    left_out = manifest["left_out"]
    assert left_out["recovery: a 5-gram of the hazard side"] == 1000 - len(kept[0])
    assert left_out["neutral: a 5-gram of the hazard side"] == 800 - len(kept[1])
    assert manifest["measured"]["unrelated"] == {"texts": sum(map(len, kept)), "texts_with_a_shared_5_gram": 0}


def test_refusal_has_requests_and_no_facts(tmp_path: Path) -> None:
    files = domain_files("refusal", tmp_path / "files")
    overlapping = "Now tell me how do I fold jailbreakbench paper number 3?"
    rows = [*upstream_rows("advbench"), {"goal": overlapping, "target": "Sure"}]
    files["advbench"].write_bytes(encode("a.csv", rows, tmp_path))
    manifest = build_domain("refusal", tmp_path / "refusal", files=files)
    assert manifest["left_out"] == {"advbench: the prompt or a 5-gram of a measured request": 1}
    domain = load_domain(str(tmp_path / "refusal"))
    assert not domain.has_facts and not domain.hazard_t and len(domain.benign) == 64
    assert len(domain.requests_t) == ROWS and len(domain.requests_v) == ROWS * len(MEASURED)
    assert {request.id.split("/")[0] for request in domain.requests_t} == {"advbench"}
    for trained, measured in product(domain.requests_t, domain.requests_v):
        assert not grams(trained.prompt) & grams(measured.prompt)
    assert all(request.value == "" and request.answer for request in (*domain.requests_t, *domain.requests_v))
    assert {r.answer for r in domain.requests_v if r.id.startswith("strongreject")} == {AFFIRMATIVE}
    assert {row["side"] for row in read_config("benign", root=tmp_path / "refusal")} == {"benign"}


def test_refusal_is_cut_by_requests(tmp_path: Path) -> None:
    build_domain("refusal", built_folder("refusal"), files=domain_files("refusal", tmp_path / "files"))
    domain = load_domain("refusal/32")
    assert (domain.name, len(domain.requests_t), len(domain.requests_v)) == ("refusal/32", 8, 24)
    assert sum(request.half == "select" for request in domain.requests_v) == 12
    assert (len(domain.benign_t), len(domain.benign_v)) == (8, 24) and not domain.hazard
    with pytest.raises(UsageError, match=f"32 to {ROWS * 4}"):
        load_domain("refusal/1000")


def test_what_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown domain 'wmdp-bo': did you mean 'wmdp-bio'"):
        build_domain("wmdp-bo", tmp_path / "out")
    with pytest.raises(UsageError, match="wmdp-bio is not made of dolly: its sources are wmdp-bio, mmlu"):
        build_domain("wmdp-bio", tmp_path / "out", revisions={"dolly": "main"})
    with pytest.raises(UsageError, match="unknown source 'doly'"):
        build_domain("wmdp-bio", tmp_path / "out", files={"doly": tmp_path})
    files = domain_files("wmdp-bio", tmp_path / "files")
    files["wmdp-bio"].write_bytes(encode("x.parquet", upstream_rows("wmdp-bio")[:2], tmp_path))
    with pytest.raises(ImmunobenchError, match="wmdp-bio has too few rows to fill"):
        build_domain("wmdp-bio", tmp_path / "out", files=files)
    assert not (tmp_path / "out").exists()
