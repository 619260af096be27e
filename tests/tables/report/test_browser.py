"""The report in Chromium, the one that `$CHROMIUM` names or that is on PATH."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.tables.conftest import NO_BENCHMARK_NUMBERS
from tests.tables.report.conftest import HOSTILE, ITEMS, render, write_run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: install it (on Debian: apt-get install chromium), or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        # Containers run as root, where Chromium has no sandbox; the page is our own and has no network.
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on four backbones, each on every task; all but the first are no benchmark numbers."""
    folder = tmp_path_factory.mktemp("report")
    for number, standing in enumerate(({}, *NO_BENCHMARK_NUMBERS.values())):
        for task in ITEMS:
            values = {"J&F-Mean": 9.5 + number} if task == "davis" else {}
            write_run(folder, f"backbone-{number}", task, number, values=values, **standing)
    path = folder / "report.html"
    path.write_text(render(folder), encoding="utf-8")
    return path


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Open]:
    """Open the report, or another page; fail at the end if the page logged an error or requested anything but itself."""
    complaints: list[str] = []

    def visit_one(path: Path = report) -> Page:
        own = ("data:", path.as_uri())
        context = browser.new_context()
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith(own) or complaints.append(f"asked for {request.url}"))
        page.goto(path.as_uri())
        return page

    yield visit_one
    for context in browser.contexts:
        context.close()
    assert complaints == []


def test_the_keyboard_sorts_numbers_as_numbers_and_missing_ones_stay_last(visit: Open) -> None:
    table = visit().locator("#table-main table")
    heading = table.locator("thead tr:last-child th").filter(has_text="(J&F)m")
    column = table.locator(f"tbody tr > :nth-child({heading.evaluate('cell => cell.cellIndex') + 1})")

    def values() -> list[str]:
        return column.evaluate_all("cells => cells.map(cell => cell.dataset.sort || '')")

    before = values()
    present = sorted(filter(None, before), key=float)
    assert "9.5" in present  # which as text would come after 10.5
    missing = [""] * (len(before) - len(present))
    found = []
    for key in ("Enter", "Space", "Enter"):
        heading.get_by_role("button").press(key)
        found.append((heading.get_attribute("aria-sort"), values()))
    assert found == [("descending", present[::-1] + missing), ("ascending", present + missing), ("none", before)]


def test_a_number_opens_its_provenance_and_gives_the_focus_back(visit: Open) -> None:
    page = visit()
    dialog = page.locator("dialog")
    value = page.locator("#table-main a.value.measured[href^='#r']").first
    value.press("Enter")
    shown = ("backbone-0 · ", "COCO box AP: 10.0", "Result file", "run0/detection/result.json", "python -m eval detection")
    assert [text for text in shown if text not in dialog.inner_text()] == []
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert value.evaluate("node => node === document.activeElement")
    page.locator("#table-main a.value.published").first.click()
    assert "SelfPatch (Yun et al., CVPR 2022)" in dialog.inner_text()


def test_every_picture_decodes_a_film_plays_and_a_chart_shows_the_ticked_backbones(visit: Open) -> None:
    page = visit()
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert page.locator(".gallery img").count() == 2 * 2 * 4
    assert page.evaluate("Promise.all([...document.images].map(image => image.decode())).then(() => 'decoded')") == "decoded"
    film = page.locator("figure.film").first
    film.get_by_role("button", name="Play").click()
    page.wait_for_function("film => film.querySelector('input').value !== '0'", arg=film.element_handle())
    film.get_by_role("button", name="Pause").click()
    film.locator("input").fill("3")
    assert film.locator("output").inner_text() == "003"
    assert film.locator("image").first.get_attribute("y") == "-540"
    chart = page.locator("figure.compare").first
    dot, tick = chart.locator("g.series[data-series='0']").first, chart.locator(".legend input").first
    assert dot.is_visible()
    tick.uncheck()
    assert not dot.is_visible()


def test_hostile_names_run_nothing(visit: Open, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", HOSTILE, "davis", breakdown={f"{HOSTILE}_1": {"J&F-Mean": 5.0}}, settings={HOSTILE: HOSTILE})
    path = tmp_path / "report.html"
    path.write_text(render(tmp_path / "runs"), encoding="utf-8")
    page = visit(path)
    page.locator("a.value.measured").first.click()
    assert HOSTILE in page.locator("dialog").inner_text()
    assert page.evaluate("typeof hacked") == "undefined"


def test_the_first_screen_shows_numbers_and_every_column_of_the_main_table_is_visible(visit: Open) -> None:
    page = visit()
    for width, height in ((390, 844), (768, 1000), (1400, 900), (1920, 1000)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator(".headline .row-measured td").first.bounding_box()
        assert box is not None
        assert (box["y"] + box["height"] < height, box["x"] + box["width"] < width) == (True, True)
        table = page.locator("#table-main .scroll")
        if width >= 1400:
            assert table.evaluate("region => region.scrollWidth - region.clientWidth") <= 0
    captions = page.locator("figcaption, h2 + p, .note")
    sizes = captions.evaluate_all("all => all.map(one => parseFloat(getComputedStyle(one).fontSize))")
    assert min(sizes) >= 14
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 1031, "height": 700})  # A4, landscape, between its margins
    assert page.locator("#table-main table").evaluate("table => table.scrollWidth") <= 1031


def test_a_page_of_sixty_results_opens_at_once_and_is_small(visit: Open, tmp_path: Path) -> None:
    for number in range(15):
        for task in ITEMS:
            write_run(tmp_path / "runs", f"backbone-{number}", task, number)
    path = tmp_path / "report.html"
    path.write_text(render(tmp_path / "runs"), encoding="utf-8")
    assert path.stat().st_size < 10e6
    page = visit(path)
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert 0 < loaded < 4000  # milliseconds; below 500 on an idle machine
