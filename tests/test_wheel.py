"""The built wheel is complete: installed alone, away from the checkout and without a network, it does the main job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLOSED = "http://127.0.0.1:9"
"""The port of discard, where nothing listens."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_wheel_alone_runs_the_smoke_tier(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    wheel = next(tmp_path.glob("immunobench-*.whl"))
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*install, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "HF_"))}
    # Whoever asks for data all the same finds the door shut.
    clean |= {f"{scheme}_proxy": CLOSED for scheme in ("http", "https", "all", "HTTP", "HTTPS", "ALL")}
    clean |= {
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": CLOSED,
        "HF_HOME": str(tmp_path / "hf"),
        "no_proxy": "",
        "NO_PROXY": "",
    }
    command = [str(environment / "bin" / "immunobench"), "run", "organism:refusal", "--tier", "smoke", "--out", "study"]
    done = subprocess.run(command, cwd=elsewhere, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "broken" in done.stdout
    assert (elsewhere / "study" / "study.json").is_file()
    assert not list((tmp_path / "hf").rglob("*.parquet")), "the data came with the package"
