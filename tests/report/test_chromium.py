"""The browser's tests may be skipped on a reader's machine, and never unseen in CI."""

import os
import shutil

import pytest

from tests.report.chromium import CHROMIUM, MISSING, wanted


def test_ci_does_not_skip_the_browser_s_tests() -> None:
    if wanted(dict(os.environ), shutil.which("apt-get")):
        assert CHROMIUM, MISSING


@pytest.mark.parametrize(
    ("environment", "installer", "answer"),
    [({"CI": "true"}, "/usr/bin/apt-get", True), ({"CI": "true"}, None, False), ({}, "/usr/bin/apt-get", False)],
)
def test_where_it_is_wanted(environment: dict[str, str], installer: str | None, answer: bool) -> None:
    assert wanted(environment, installer) == answer
