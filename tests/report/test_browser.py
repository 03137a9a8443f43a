"""The page in a real browser: it renders, filters and sorts by keyboard and pointer, says nothing on the console."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from immunobench.report.html import write_page
from immunobench.report.reading import StudyReport
from tests.report.chromium import CHROMIUM, MISSING
from tests.report.stored import ANSWER, FLAT, WORST_FIRST

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=MISSING),
]
WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'immunobench[dev]'")
    with sync.sync_playwright() as playwright:
        folder = tmp_path_factory.mktemp("profile")
        context = playwright.chromium.launch_persistent_context(folder, executable_path=CHROMIUM, args=QUIET)
        yield context
        context.close()


@pytest.fixture(scope="module")
def files(studies: list[StudyReport], two_studies: list[StudyReport], tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("pages")
    return {
        "one": write_page(studies, root / "one.html"),
        "two": write_page(two_studies, root / "two.html", transcripts=True),
    }


@pytest.fixture(params=WIDTHS)
def opened(request: pytest.FixtureRequest, browser: Any, files: dict[str, Path]) -> Iterator[Any]:
    """The page of one study at either width. Fails where the console says anything or a byte is fetched."""
    yield from show(browser, files["one"], WIDTHS[request.param])


def show(browser: Any, file: Path, width: int) -> Iterator[Any]:
    page = browser.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda r: said.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    page.goto(file.as_uri())
    page.wait_for_selector(".chart .main-svg")
    yield page
    assert said == []
    page.close()


def shown_rows(page: Any) -> list[str]:
    """Names of the attacks in the order they are shown."""
    names: list[str] = page.eval_on_selector_all(
        ".subject:not([hidden]) .attacks tbody tr",
        "rows => rows.filter(r => !r.hidden).map(r => r.cells[0].dataset.sort)",
    )
    return names


def test_it_renders_without_spilling_over(opened: Any) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "is broken" in opened.text_content("#verdict .sentence")
    assert opened.locator(".modes > li").count() == 5
    drawn = opened.eval_on_selector_all(
        ".chart", "all => all.filter(c => c.querySelector('.point')).map(c => c.dataset.chart)"
    )
    assert drawn == ["cost", "behaviour", "utility"]


def test_rows_sort_and_filter(opened: Any) -> None:
    assert shown_rows(opened) == WORST_FIRST
    opened.select_option("[data-sorter]", label="R")
    by_recovery = shown_rows(opened)
    assert by_recovery[0] == "t-facts" and set(by_recovery) == set(FLAT)
    opened.fill('[data-filter="text"]', "facts")
    assert shown_rows(opened) == ["t-facts"]
    assert opened.text_content(".subject [aria-live]") == "1 of 5 shown"
    opened.fill('[data-filter="text"]', "")
    opened.select_option('[data-filter="family"]', "training")
    assert set(shown_rows(opened)) == {"unrelated-10", "t-facts"}
    opened.select_option('[data-filter="family"]', "")
    opened.uncheck('[data-filter="outcome"][value="broken"]')
    assert "t-facts" not in shown_rows(opened) and len(shown_rows(opened)) == 4


def test_the_cost_chart_changes_its_unit_and_its_measure(opened: Any) -> None:
    title = ".chart[data-chart=cost] .xtitle"
    assert opened.text_content(title) == "optimizer steps"
    opened.select_option("[data-cost]", "tokens")
    assert opened.text_content(title) == "tokens"
    opened.select_option("[data-show]", "t-facts")
    legend = opened.eval_on_selector_all(".chart[data-chart=cost] .legendtext", "all => all.map(t => t.textContent)")
    assert [name.split(",")[0] for name in legend] == ["subject", "exposed", "never-exposed"]


def test_samples_filter_and_stay_redacted(opened: Any) -> None:
    opened.select_option("[data-attack]", "t-facts")
    assert opened.text_content('[data-name="samples"] output') == "80 of 80 requests"
    opened.select_option("select[data-label]", "refused")
    assert opened.text_content('[data-name="samples"] output') == "0 of 80 requests"
    opened.select_option("select[data-label]", "right")
    assert opened.locator(".samples li").count() == 16 and ANSWER not in opened.content()


def test_the_keyboard_sorts_a_column(browser: Any, files: dict[str, Path]) -> None:
    for page in show(browser, files["one"], 1280):
        head = page.locator(".attacks thead th").nth(1)
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending" and shown_rows(page)[0] == "t-facts"
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending" and shown_rows(page)[-1] == "t-facts"


def test_tabs_show_one_subject_at_a_time_by_keyboard(browser: Any, files: dict[str, Path]) -> None:
    for page in show(browser, files["two"], 1280):
        visible = "all => all.filter(p => !p.hidden).map(p => p.id)"
        first = page.eval_on_selector_all(".subject", visible)
        page.focus("[role=tab][aria-selected=true]")
        page.keyboard.press("ArrowRight")
        second = page.eval_on_selector_all(".subject", visible)
        assert len(first) == len(second) == 1 and first != second
        assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
        assert page.title() != "owned" and "onerror" in page.text_content(".subject:not([hidden]) .samples")


def test_dark_scheme_turns_the_page_and_its_charts_dark(browser: Any, files: dict[str, Path]) -> None:
    for page in show(browser, files["one"], 1280):
        page.emulate_media(color_scheme="dark")
        page.wait_for_timeout(500)
        ink = page.eval_on_selector(".chart[data-chart=cost] .xtitle", "text => text.style.fill")
        assert ink == "rgb(232, 237, 242)"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"


def test_paper_holds_what_the_screen_folds_away(
    browser: Any, files: dict[str, Path], two_studies: list[StudyReport]
) -> None:
    """Both subjects, every hash, every command, the figures of the curves and the samples; then all is as before."""
    folded = "[...document.querySelectorAll('details')].map(d => d.open)"
    for page in show(browser, files["two"], 1280):
        before = page.evaluate(folded)
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator(".bar").is_hidden() and page.locator("#limits").is_visible()
        text = " ".join(page.inner_text("body").split())
        for study in two_studies:
            for record in study.cells:
                hashes = [value for key, value in record.cell.identity["subject"].items() if key.endswith("_sha256")]
                for said in (record.cell.cell_id, record.command, *hashes):
                    assert " ".join(said.split()) in text, said
        assert page.locator(".subject").count() == 2 == page.locator(".subject:visible").count()
        for inside in (".immunity table", "section[data-name=curves] table", "section[data-name=samples] .samples li"):
            shown = page.eval_on_selector_all(
                ".subject", f"all => all.map(s => !!s.querySelector('{inside}').offsetHeight)"
            )
            assert shown == [True, True], inside
        assert page.locator(".subject").first.locator(".samples li").count() == 80
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        page.emulate_media(media="screen")
        assert page.evaluate(folded) == before and page.locator(".subject:visible").count() == 1
        assert page.locator(".subject:visible .samples li").count() < 80
        assert page.pdf().startswith(b"%PDF")


def test_the_comparison_on_a_phone(browser: Any, files: dict[str, Path]) -> None:
    for page in show(browser, files["two"], WIDTHS["phone"]):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("#comparison .matrix").is_visible() and page.locator("#comparison .note").is_visible()
        cards = page.locator("a.verdict")
        assert cards.count() == 2
        cards.nth(1).click()
        assert page.eval_on_selector_all(".subject", "all => all.map(s => s.hidden)") == [True, False]


def test_a_row_stays_a_row_to_a_screen_reader(opened: Any) -> None:
    """At either width, though the phone lays the table out as cards."""
    nodes = opened.context.new_cdp_session(opened).send("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}
    roles = {key: node.get("role", {}).get("value") for key, node in by_id.items()}

    def within(key: str) -> list[str]:
        return [key, *(inner for child in by_id[key].get("childIds", []) if child in by_id for inner in within(child))]

    named = {key for key, node in by_id.items() if "Adversaries of" in node.get("name", {}).get("value", "")}
    found = [roles[key] for key in within(next(key for key in named if roles[key] == "table"))]
    cells = opened.locator(".attacks td:visible").count()  # on the phone an empty t* has no place
    assert found.count("rowheader") == len(FLAT) and found.count("cell") == cells >= 6 * len(FLAT)


CONTRAST = """
() => {
  const parse = (text) => { const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a ?? 1]; };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = (c) => c.reduce((sum, v, i) => sum + [0.2126, 0.7152, 0.0722][i] * linear(v / 255), 0);
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const place = node.parentElement, words = node.data.trim();
    if (!words || place.closest("script, style, .hidden, .skip, svg, option")) continue;
    if (!place.checkVisibility({ visibilityProperty: true })) continue;
    const chain = [];
    for (let at = place; at; at = at.parentElement) chain.unshift(getComputedStyle(at));
    const ground = chain.reduce((below, style) => over(parse(style.backgroundColor), below), [255, 255, 255]);
    const own = chain[chain.length - 1], [r, g, b, a] = parse(own.color);
    const opacity = chain.reduce((product, style) => product * Number(style.opacity), a);
    const [one, other] = [luminance(over([r, g, b, opacity], ground)), luminance(ground)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const size = parseFloat(own.fontSize), large = size >= 24 || (size >= 18.66 && Number(own.fontWeight) >= 700);
    const name = place.className || place.tagName;
    if (ratio < (large ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${name}: ${words.slice(0, 30)}`);
  }
  return [...new Set(poor)];
}
"""
"""Text whose contrast with what lies behind it is below that of WCAG 2.2, level AA (success criterion 1.4.3)."""


def test_the_pictures_of_the_documentation_are_taken(study_folder: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "docs" / "screenshots.py"
    subprocess.run([sys.executable, script, study_folder, tmp_path], check=True)
    sizes = {file.name: Image.open(file).size for file in tmp_path.iterdir()}
    assert sizes == {"report-desktop.png": (960, 1125), "report-phone.png": (390, 1200)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_stands_out_from_its_ground(browser: Any, files: dict[str, Path], scheme: str) -> None:
    for name, width in (("one", 1280), ("two", 390)):
        for page in show(browser, files[name], width):
            page.emulate_media(color_scheme=scheme)
            page.eval_on_selector_all("details", "all => all.forEach(d => { d.open = true; })")
            page.wait_for_timeout(300)
            assert page.evaluate(CONTRAST) == []


def test_the_measure_of_contrast_finds_pale_words(browser: Any, files: dict[str, Path]) -> None:
    for page in show(browser, files["one"], 1280):
        page.eval_on_selector(".lead", "p => { p.style.color = '#bbbbbb'; }")
        assert any("lead" in line for line in page.evaluate(CONTRAST))
