"""The page in a real browser: it loads nothing, fits a phone, shows its images, sorts, prints, has a dark mode."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from browser import CONTRAST, violations
from report_artifacts import BINARY, TRANSFERRED, Scene, settings_values, write_artifacts
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Quarantined
from retinue.pipeline.files import read_json
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages import report

LONG = "a_class_name_without_any_place_to_break_" * 5
SCENES = {
    "ten": Scene(),
    "two": BINARY,
    "transferred": TRANSFERRED,
    "hostile": Scene(
        classes=(
            "<b>ä</b>",
            '"><img src=x onerror=alert(1)>',
            LONG,
            "<script>document.title = 'taken'</script>",
            *"56789",
        ),
        skill=1.5,
        per_class=15,
        prefix=LONG + "/",
        quarantine=[Quarantined(LONG * 2, LONG, LONG)],
        sections={"report": {"title": LONG}},
    ),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name of a scene -> the folder of its run."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, scene in SCENES.items():
            folders[name] = tmp_path_factory.mktemp(name)
            patch.chdir(folders[name])
            write_artifacts(scene)
            report.run(Settings(settings_values(scene), report.SECTIONS), Tracker(None))
    return folders


class Visit:
    """A page opened without a network, and what went wrong on it.

    Attributes:
        page: open.
        complaints: console messages, errors, dialogs and requests other than for the file itself.
    """

    def __init__(self, browser: Browser, folder: Path, *, width: int = 1280, scheme: str = "light"):
        self.complaints: list[str] = []
        self._context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
        self.page: Page = self._context.new_page()
        address = (folder / artifacts.REPORT).as_uri()
        self.page.on("console", lambda message: self.complaints.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.goto(address)

    def _note(self, url: str, address: str) -> None:
        if url != address and not url.startswith("data:"):
            self.complaints.append(f"request: {url}")

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()


@pytest.mark.parametrize("name", SCENES)
def test_it_opens_without_a_network_and_without_a_complaint(browser, pages, name):
    with Visit(browser, pages[name]) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert visit.complaints == []
        title = (SCENES[name].sections or {}).get("report", {}).get("title", "Image classification report")
        assert visit.page.title() == title
        assert visit.page.locator("h1").inner_text() == title
        assert visit.page.locator("h2").count() == 3 + 11  # the cards of the opening, then the sections
        assert (
            visit.page.evaluate("performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:'))")
            == []
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(browser, pages, name, width):
    with Visit(browser, pages[name], width=width) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        outside = visit.page.evaluate(
            """() => [...document.querySelectorAll('main *, header *')]
                .filter((e) => !e.closest('.scroll') && !e.closest('svg') && !e.closest('summary') && !e.closest('pre'))
                .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5)
                .map((e) => e.outerHTML.slice(0, 80))"""
        )
        assert outside == []


@pytest.mark.slow
def test_wide_tables_scroll_inside_their_box(browser, pages):
    with Visit(browser, pages["ten"], width=375) as visit:
        wide = visit.page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
        )
        assert wide >= 2
        box = visit.page.locator(".scroll", has_text="Metrics of each class").first
        box.evaluate("(e) => { e.scrollLeft = 10000; }")
        assert box.evaluate("(e) => e.scrollLeft") > 0
        assert box.get_attribute("tabindex") == "0"


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_every_image_is_loaded(browser, pages, name):
    with Visit(browser, pages[name]) as visit:
        visit.page.add_style_tag(content=".cell { display: block !important }")
        sizes = visit.page.evaluate(
            "Promise.all([...document.images].map((i) => i.decode().then(() => [i.naturalWidth, i.clientWidth])))"
        )
        gallery = read_json(pages[name] / artifacts.EXPLANATIONS / "gallery.json")["images"]
        assert len(sizes) >= 2 * len(gallery) > 0
        assert all(natural > 0 and shown > 0 for natural, shown in sizes)
        charts = visit.page.locator("svg.chart").evaluate_all(
            "(all) => all.map((e) => e.getBoundingClientRect().width)"
        )
        assert len(charts) in (9, 10)
        assert min(charts) > 250


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ten", "two"])
def test_the_figures_that_are_seen_are_those_of_the_metrics(browser, pages, name):
    metrics = artifacts.read_metrics(pages[name])
    with Visit(browser, pages[name], width=375) as visit:
        for key in ("accuracy_score", "auc_score", "calibration_error"):
            tile = visit.page.locator(f"[data-figure={key}]")
            assert tile.is_visible()
            assert tile.inner_text() == figure(metrics[key])
        assert visit.page.locator("[data-figure=num_images]").inner_text() == str(metrics["num_images"])


@pytest.mark.slow
def test_a_click_on_a_heading_sorts(browser, pages):
    with Visit(browser, pages["ten"]) as visit:
        table = visit.page.locator("table.sortable", has_text="Metrics of each class")
        metrics = artifacts.read_metrics(pages["ten"])["per_class"]
        first = lambda: table.locator("tbody th").all_inner_texts()  # noqa: E731
        column = lambda i: [float(text) for text in table.locator(f"tbody td:nth-child({i})").all_inner_texts()]  # noqa: E731
        heads = table.locator("thead th").all_inner_texts()
        recall = next(i for i, head in enumerate(heads) if head.startswith("recall_score"))
        assert len(set(column(recall + 1))) > 2
        heading = table.locator("thead th").nth(recall)
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == "descending"
        assert column(recall + 1) == sorted(column(recall + 1), reverse=True)
        heading.get_by_role("button").press("Enter")
        assert heading.get_attribute("aria-sort") == "ascending"
        assert column(recall + 1) == sorted(column(recall + 1))
        assert {c: figure(metrics[c]["recall_score"]) for c in first()} == dict(
            zip(first(), table.locator(f"tbody td:nth-child({recall + 1})").all_inner_texts(), strict=True)
        )
        table.locator("thead th").first.get_by_role("button").click()
        assert first() == list("0123456789")
        assert visit.page.locator("thead th[aria-sort]").count() == 1
        assert visit.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("scripts", [True, False])
def test_a_cell_of_the_matrix_shows_its_images_and_the_way_back(browser, pages, scripts):
    """By the keyboard, with and without the script; what is shown has the focus, and so has the cell afterwards."""
    context = browser.new_context(java_script_enabled=scripts, offline=True)
    page = context.new_page()
    page.goto((pages["ten"] / artifacts.REPORT).as_uri())
    assert page.locator(".cell:visible").count() == 0
    link = page.locator(".confusion td.off a").first
    link.focus()
    page.keyboard.press("Enter")
    panel = page.locator(".cell:visible")
    assert panel.count() == 1
    assert panel.get_attribute("aria-label") == link.get_attribute("aria-label")
    assert page.locator(".cell:focus").count() == 1
    assert panel.locator("img").count() % 2 == 0
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".cell:visible").count() == 0
    assert link.evaluate("(e) => e.matches(':focus')")
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheme"), [("ten", "light"), ("two", "dark"), ("hostile", "light")])
@pytest.mark.parametrize("width", [390, 1280])
def test_wcag_2_1_aa_has_nothing_against_it(browser, pages, name, width, scheme):
    with Visit(browser, pages[name], width=width, scheme=scheme) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        visit.page.locator(".confusion td a").first.click()
        assert violations(visit.page) == []


@pytest.mark.slow
def test_settings_open_on_a_click(browser, pages):
    with Visit(browser, pages["ten"], width=375) as visit:
        optimizer = visit.page.locator("details", has_text="weight_decay").first
        assert not optimizer.get_by_text("weight_decay", exact=True).is_visible()
        optimizer.locator("summary").click()
        assert optimizer.get_by_text("weight_decay", exact=True).is_visible()


@pytest.mark.slow
def test_the_keyboard_reaches_the_results_first(browser, pages):
    with Visit(browser, pages["ten"]) as visit:
        skip = visit.page.locator("a.skip")
        assert skip.evaluate("(e) => e.getBoundingClientRect().right") < 0
        visit.page.keyboard.press("Tab")
        assert skip.evaluate("(e) => e === document.activeElement && e.getBoundingClientRect().left >= 0")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheme"), [("ten", "light"), ("ten", "dark"), ("hostile", "dark")])
def test_text_stands_out_in_light_and_dark(browser, pages, name, scheme):
    """WCAG 2.1, success criterion 1.4.3: contrast of at least 4.5, over the colours that really lie behind."""
    with Visit(browser, pages[name], scheme=scheme) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        page_colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", page_colour)[:3])) < 150) == (scheme == "dark")
        weak = visit.page.evaluate(CONTRAST)
        assert weak == []


@pytest.mark.slow
def test_a_print_shows_everything_and_no_dark_page(browser, pages):
    with Visit(browser, pages["ten"], scheme="dark") as visit:
        visit.page.emulate_media(media="print", color_scheme="dark")
        assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert visit.page.locator("details:not([open])").count() == 0
        cut = visit.page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollHeight > e.clientHeight + 1).length"
        )
        assert cut == 0


@pytest.mark.slow
def test_the_page_is_whole_without_its_script(browser, pages):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((pages["ten"] / artifacts.REPORT).as_uri())
    assert page.locator("th button").count() == 0
    assert page.locator("table").count() > 8
    page.locator("summary", has_text="optimizer").click()
    assert page.get_by_text("weight_decay", exact=True).first.is_visible()
    context.close()
