"""Take the two pictures of the report that the documentation shows, of a study that was run.

python docs/screenshots.py [STUDY [FOLDER]]

STUDY is runs/quickstart by default, as 'make quickstart' leaves it, and FOLDER docs/images. Needs Chromium.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from immunobench.report.html import write_page
from immunobench.report.reading import read_studies

ROOT = Path(__file__).parent.parent
PICTURES = {
    "desktop": (1280, 1500, 0.75, "h1"),
    "phone": (390, 1200, 1.0, ".subject:not([hidden]) .tools"),
}
"""Width and height in CSS pixels, scale, and what is scrolled to: the verdicts, and the attacks as cards."""


def main(study: Path, folder: Path) -> None:
    """Write both, as a reader with a light screen sees them."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no chromium: run 'make browser'.")
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        file = write_page(read_studies([study]), Path(work) / "report.html")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (width, height, scale, top) in PICTURES.items():
            page = browser.new_page(
                viewport={"width": width, "height": height},
                device_scale_factor=scale,
                color_scheme="light",
                reduced_motion="reduce",
            )
            page.set_default_timeout(300_000)  # milliseconds: a busy machine may take its time
            page.goto(file.as_uri())
            page.wait_for_selector(".chart .main-svg")
            page.eval_on_selector(top, "place => place.scrollIntoView()")
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            picture.quantize(256).save(folder / f"report-{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    defaults = ROOT / "runs" / "quickstart", ROOT / "docs" / "images"
    main(*map(Path, (*sys.argv[1:], *defaults[len(sys.argv) - 1 :])))
