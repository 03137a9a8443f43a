"""One stored study, read once, for every report."""

from pathlib import Path

import pytest

from immunobench.report.reading import StudyReport, read_studies
from tests.report.stored import KNOWS, write_study


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A locked subject. Nobody may change it."""
    return write_study(tmp_path_factory.mktemp("stored") / "locked")


@pytest.fixture(scope="session")
def studies(study_folder: Path) -> list[StudyReport]:
    """That study, read."""
    return read_studies([study_folder])


@pytest.fixture(scope="session")
def mixed_study(tmp_path_factory: pytest.TempPathFactory) -> list[StudyReport]:
    """The same study on vllm, but for one adversary, which hf took."""
    return read_studies([write_study(tmp_path_factory.mktemp("mixed") / "locked", fallback=["quantise"])])


@pytest.fixture(scope="session")
def two_studies(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[StudyReport]:
    """The same study beside one of another subject, which needs no attack, with shorter answers."""
    other = write_study(tmp_path_factory.mktemp("other") / "open", {"none": {("format=chat", 0): KNOWS}}, tokens=32)
    return read_studies([study_folder, other])
