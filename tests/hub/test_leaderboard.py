"""The page of published results: computed from the items, sorted, and safe to show."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from immunobench.errors import ImmunobenchError, UsageError
from immunobench.hub.leaderboard import Group, Leaderboard, Row, Terms, collect, rank, render
from immunobench.hub.submit import prepare, send
from immunobench.metrics.estimate import Estimate
from immunobench.metrics.immunity import Immunity
from immunobench.study.reread import reread
from tests.hub.conftest import MODEL, Hub, push_model, upload


def test_published_models_stand_there_with_their_base(
    hub: Hub, whole_study: Path, model_folders: dict[str, Path]
) -> None:
    push_model(hub.api, "tester/unmeasured", model_folders["never"])
    send(prepare(whole_study, MODEL, api=hub.api), hub.api)
    assert [name for name, _ in collect([MODEL], hub.api).left_out] == [MODEL], "a proposal is no publication"
    hub.api.merge_pull_request(MODEL, 1)
    board = collect(["tester", MODEL], hub.api)
    [group] = board.groups
    [row] = group.rows
    assert (row.model, row.base_models) == (MODEL, ("someone/base",))
    assert (group.terms.tier, group.terms.domain, group.terms.protocol) == ("smoke", "vault/32", "1")
    assert (group.terms.max_new_tokens, group.terms.implanted) == (8, False)
    assert len({group.terms.exposed, group.terms.never_exposed}) == 2
    assert board.left_out == [("tester/unmeasured", "it has no published study.")]
    page = render(board)
    assert page.count(f">{MODEL}</a>") == 1 and "someone/base" in page and "tester/unmeasured" in page
    assert "<script" not in page and "http://" not in page


def test_what_is_claimed_is_not_copied(hub: Hub, whole_study: Path) -> None:
    send(prepare(whole_study, MODEL, api=hub.api), hub.api)
    hub.api.merge_pull_request(MODEL, 1)
    record = json.loads(hub.text("immunobench/study.json"))
    honest = record["subjects"][0]["result"]["verdict"]["name"]
    record["subjects"][0]["result"]["verdict"]["name"] = "held"
    claim = json.dumps(record).encode()
    hub.api.upload_file(path_or_fileobj=claim, path_in_repo="immunobench/study.json", repo_id=MODEL)
    assert collect([MODEL], hub.api).groups[0].rows[0].result.verdict.name == honest != "held"
    path = next(path for path in sorted(hub.paths()) if path.endswith("items.parquet"))
    hub.api.upload_file(path_or_fileobj=b"PAR1", path_in_repo=path, repo_id=MODEL)
    [(name, why)] = collect([MODEL], hub.api).left_out
    assert name == MODEL and "items.parquet does not match its hash" in why


def published(hub: Hub, study: Path) -> dict[str, bytes]:
    """The files of a submission, merged."""
    submission = prepare(study, MODEL, api=hub.api)
    send(submission, hub.api)
    hub.api.merge_pull_request(MODEL, 1)
    return submission.files


def test_a_stolen_publication_is_left_out(hub: Hub, whole_study: Path, model_folders: dict[str, Path]) -> None:
    """As it is, and with the thief's name in it over another model."""
    files = published(hub, whole_study)
    push_model(hub.api, "tester/thief", model_folders["never"])
    upload(hub.api, "tester/thief", files)
    assert f"the record is of {MODEL}" in dict(collect(["tester"], hub.api).left_out)["tester/thief"]
    renamed = files["immunobench/study.json"].replace(MODEL.encode(), b"tester/thief")
    upload(hub.api, "tester/thief", {"immunobench/study.json": renamed})
    board = collect(["tester"], hub.api)
    assert [row.model for group in board.groups for row in group.rows] == [MODEL]
    assert "weights_sha256 is" in dict(board.left_out)["tester/thief"]
    assert len(collect(["tester"], hub.api, weights=False).groups[0].rows) == 2, "nothing but the weights tells"


def drop_prefill(record: dict[str, Any]) -> None:
    """Leave an adversary out, as if it had never been run."""
    del record["adversaries"]["prefill"]
    record["cells"] = [entry for entry in record["cells"] if entry["adversary"] != "prefill"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (drop_prefill, "prefill against tester/model"),
        (lambda record: record["subjects"][0].update(domain="vault"), "subjects.0.domain"),
        (lambda record: record.update(searches=[1]), "searches"),
        (lambda record: record.update(cells=[]), "the publication does not read"),
        (lambda record: record["request"].update(tier="full"), "full takes 3 seeds"),
        (lambda record: record["request"].update(seeds=10**12), "has 1 of 1000000000000 seeds"),
        (lambda record: record["adversaries"]["none"].update(settings={"no": 1}), "is not the one of the record"),
    ],
)
def test_a_hostile_record_is_left_out_and_the_others_stay(
    hub: Hub, whole_study: Path, change: Any, why: str, model_folders: dict[str, Path]
) -> None:
    files = published(hub, whole_study)
    record = json.loads(files["immunobench/study.json"])
    change(record)
    push_model(hub.api, "tester/other", model_folders["subject"])
    hostile = json.dumps(record).replace(MODEL, "tester/other").encode()
    upload(hub.api, "tester/other", {**files, "immunobench/study.json": hostile})
    board = collect(["tester"], hub.api)
    [(name, found)] = board.left_out
    assert [row.model for row in board.groups[0].rows] == [MODEL] and name == "tester/other"
    assert why.replace(MODEL, "tester/other") in found and found.endswith(".") and "\n" not in found


def test_order_and_escaping(finished_study: Path) -> None:
    [result], _ = reread(finished_study)

    def row(model: str, low: float | None) -> Row:
        estimate = Estimate(0.5, 9, low, 0.9, "m") if low is not None else Estimate.undefined(0, "none")
        immunity = Immunity(estimate, "<b>adversary</b>", (), result.immunity.expected_maximum)
        return Row(model, "0" * 40, (), replace(result, immunity=immunity), 1)

    rows = [row("o/none", None), row("o/low", 0.1), row("o/<i>high", 0.4)]
    terms = Terms("vault", "1.0.0", "f" * 64, "smoke", "1", "a" * 64, "", 64, False)
    group = Group(terms, sorted(rows, key=rank))
    assert [one.model for one in group.rows] == ["o/<i>high", "o/low", "o/none"]
    page = render(Leaderboard([group], [("x", "<script>alert(1)</script>")]))
    assert "the unattacked model stands in" in page and "Each model was fetched" in page
    assert "the weights were not fetched" in render(Leaderboard(weights=False)).lower()
    assert "<i>" not in page and "<script" not in page and "<b>" not in page and "&lt;i&gt;high" in page


def test_what_cannot_be_read(hub: Hub) -> None:
    with pytest.raises(UsageError, match="is no repository"):
        collect(["a/b/c"], hub.api)
    assert collect(["nobody"], hub.api) == Leaderboard()
    [(name, why)] = collect(["tester/nothing"], hub.api).left_out
    assert name == "tester/nothing" and "no such repository" in why
    assert "There are no published results here." in render(Leaderboard())
    with pytest.raises(ImmunobenchError, match="cannot be reached"):
        collect(["tester"], type(hub.api)(endpoint="http://127.0.0.1:9"))
