"""Where the browser is that the report is tested in."""

import os
import shutil

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
MISSING = "no chromium: run 'make browser' or apt-get install chromium, or name one in $CHROMIUM"


def wanted(environment: dict[str, str], installer: str | None) -> bool:
    """Whether its tests may not be skipped: in CI, on a machine on which it could be installed."""
    return environment.get("CI") == "true" and installer is not None
