"""The dashboard in a real browser: sorts, filters, compares, keeps to its width and to itself."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Download, Locator, Page
from scipy import stats

from browser import CONTRAST, violations
from dashboard_outcomes import MadeUp, made_board
from retinue.dashboard.collect import Dashboard, collect
from retinue.dashboard.page import render_dashboard
from retinue.pipeline.numbers import figure

EVIL = "</script><script>document.title = 'taken'</script>" + "a_name_without_any_place_to_break_" * 4
OUTCOMES = [
    MadeUp("workspace", skill=3.0, parameters=4000),
    MadeUp("best", skill=3.0, parameters=4000, changes={"optimizer.lr": 0.01}),
    MadeUp("small", skill=2.8, noise=1, parameters=500, changes={"optimizer.lr": 0.1, "model.name": "mlp"}),
    MadeUp("poor", skill=0.6, noise=2, parameters=900, changes={"optimizer.lr": 0.003}),
    MadeUp("large", skill=2.6, noise=3, parameters=90_000, explained=5, changes={"train.monitor": EVIL}),
    *(
        MadeUp(f"run-s{n}", skill=2, noise=10 + n, parameters=700, changes={"seed": n + 1, "train.batch_size": 8})
        for n in range(3)
    ),
    MadeUp("gone", skill=1.5, noise=4, lacks=["evaluation/predictions/predictions.csv"]),
    MadeUp("elsewhere", skill=2.5, images=1),
]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Dashboard:
    return made_board(tmp_path_factory.mktemp("made"), OUTCOMES)


@pytest.fixture(scope="module")
def address(board: Dashboard, tmp_path_factory: pytest.TempPathFactory) -> str:
    page = tmp_path_factory.mktemp("page") / "index.html"
    page.write_text(render_dashboard(board, "Experiments"), "utf-8")
    return page.as_uri()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Page]:
    """The page, wide and light; fails when it says or asks anything."""
    yield from opened(browser, address)


def opened(browser: Browser, address: str, *, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    complaints: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, accept_downloads=True
    )
    page = context.new_page()
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: request.url.startswith(("data:", "blob:", address)) or complaints.append(request.url),
    )
    page.goto(address)
    yield page
    context.close()
    assert complaints == []


def names(page: Page) -> list[str]:
    """Of the rows that are seen, in their order."""
    return page.locator("#experiments tbody tr:visible th .name").all_inner_texts()


def choose(page: Page, *wanted: str) -> None:
    page.locator("#tray").get_by_role("button", name="Clear").click()
    for name in wanted:
        page.get_by_role("checkbox", name=f"Choose {name}").check()


def index(board: Dashboard, name: str) -> int:
    return next(i for i, result in enumerate(board.results) if result.name == name)


def heading(page: Page, key: str) -> Locator:
    return page.locator(f'#experiments th[data-key="{key}"]')


COMPARABLE = ["best", "gone", "large", "poor", "run-s0", "run-s1", "run-s2", "small", "workspace"]


def test_it_opens_with_the_leaders_chosen(visit: Page, board: Dashboard) -> None:
    assert visit.title() == "Experiments"
    assert sorted(names(visit)) == COMPARABLE
    assert visit.locator("#count").inner_text() == "9 of 9 scored on test images A shown"
    assert visit.locator("#tray li").count() == 2
    assert visit.locator("svg.plot").count() == 4 + 4  # cost, parallel and two of ROC; four learning curves
    sizes = visit.evaluate("Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth)))")
    assert len(sizes) >= 6
    assert min(sizes) > 0


@pytest.mark.slow
def test_a_click_sorts_by_the_full_number_and_a_key_turns_it(visit: Page, board: Dashboard) -> None:
    for key, falls in {"log_loss": False, "parameters": False, "optimizer.lr": True, "accuracy_score": True}.items():

        def value(name: str, key: str = key) -> float:
            result = board.results[index(board, name)]
            values = {**result.metrics, **result.cost}
            return values[key] if key in values else float(result.settings[key])

        button = heading(visit, key).get_by_role("button")
        button.click()
        assert heading(visit, key).get_attribute("aria-sort") == ("descending" if falls else "ascending")
        shown = [value(name) for name in names(visit)]
        assert len(set(shown)) > 3
        assert shown == sorted(shown, reverse=falls)
        button.press("Enter")
        assert heading(visit, key).get_attribute("aria-sort") == ("ascending" if falls else "descending")
        assert [value(name) for name in names(visit)] == sorted(shown, reverse=not falls)
        assert visit.locator("#experiments th[aria-sort]").count() == 1


@pytest.mark.slow
def test_every_column_sorts(visit: Page) -> None:
    columns = visit.locator("#experiments thead th[data-key]:visible")
    for n in range(columns.count()):
        column = columns.nth(n)
        before = column.get_attribute("aria-sort")
        column.get_by_role("button").click()
        assert column.get_attribute("aria-sort") not in (None, before)
        assert sorted(names(visit)) == COMPARABLE


@pytest.mark.slow
def test_the_text_filters(visit: Page) -> None:
    for text, expected in {
        "POO": ["poor"],
        "lr>0.005": ["best", "small"],
        "lr<0.005 run": ["run-s0", "run-s1", "run-s2"],
        "model=mlp": ["small"],
        "parameters<800 parameters>600": ["run-s0", "run-s1", "run-s2"],
        "parameters=90000": ["large"],
        "nothing_like_it": [],
    }.items():
        visit.get_by_label("Filter", exact=True).fill(text)
        assert sorted(names(visit)) == expected
        assert visit.locator("#count").inner_text().startswith(f"{len(expected)} of 9")
        visit.get_by_role("button", name="Clear filters").click()
        assert sorted(names(visit)) == COMPARABLE


@pytest.mark.slow
def test_a_changed_value_filters(visit: Page) -> None:
    visit.get_by_role("combobox", name="lr", exact=True).select_option("0.01")
    assert names(visit) == ["best"]
    assert visit.locator("#front").inner_text() == "best"


@pytest.mark.slow
def test_what_was_scored_on_other_images_is_apart(visit: Page, board: Dashboard) -> None:
    visit.get_by_label("Test images").select_option("B")
    assert names(visit) == ["elsewhere"]
    visit.get_by_label("Test images").select_option("")
    assert sorted(names(visit)) == sorted([*COMPARABLE, "elsewhere"])
    assert "not comparable" in visit.locator("#cost").inner_text()
    choose(visit, "best", "elsewhere")
    said = visit.locator("#difference").inner_text()
    assert said == "They are not comparable: best was scored on test images A, elsewhere on test images B."
    assert "interval" not in visit.locator("#scores tbody").inner_text()
    assert visit.locator("#scores tbody tr").first.locator("td").nth(2).inner_text() == "–"
    assert "not comparable" in visit.locator("#roc").inner_text()


@pytest.mark.slow
def test_who_cannot_be_told_apart_is_marked(visit: Page, board: Dashboard) -> None:
    column = heading(visit, "accuracy_score.leader").evaluate("(e) => e.cellIndex")
    for name in COMPARABLE:
        standing = board.groups[0].standings["accuracy_score"].get(index(board, name))
        cell = visit.locator(f'#experiments tr[data-row="{index(board, name)}"] > *').nth(column).inner_text()
        if standing is None:
            assert cell == "not tested"
        elif standing.p is None:
            assert cell.endswith("leader")
        else:
            assert ("cannot be told apart" in cell) == (standing.corrected > 0.05)
    together = [
        s for s in board.groups[0].standings["accuracy_score"].values() if s.p is not None and s.corrected > 0.05
    ]
    said = visit.locator(".verdict:visible .lede").first.inner_text()
    assert "best has the highest accuracy" in said
    assert f"{len(together)} of 7 others cannot be told apart from it" in said


@pytest.mark.slow
def test_two_chosen_are_compared(visit: Page, board: Dashboard) -> None:
    choose(visit, "small", "poor")
    a, b = (board.results[index(board, name)].scored for name in ("small", "poor"))
    assert a is not None
    assert b is not None
    only_a, only_b = int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())
    assert only_a > only_b > 0
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in visit.locator("#scores tbody tr").all_inner_texts()}
    left, right, difference, interval, _ = rows["accuracy"]
    assert (left, right) == tuple(
        figure(board.results[index(board, n)].metrics["accuracy_score"]) for n in ("small", "poor")
    )
    assert difference == f"+{figure((only_a - only_b) / 120)}"
    low, high = (float(end.replace("−", "-")) for end in interval.split(" to "))
    assert low < (only_a - only_b) / 120 < high
    exact = stats.binomtest(only_a, only_a + only_b).pvalue
    assert float(visit.locator("#scores tbody tr").first.locator("td").nth(4).get_attribute("title")) == pytest.approx(
        exact
    )
    assert "small is better, beyond chance" in visit.locator("#difference").inner_text()
    listed = visit.locator(f"#only-{index(board, 'small')} tbody th").all_inner_texts()
    assert listed == [
        name for name, mine, other in zip(a.image_ids, a.right, b.right, strict=True) if mine and not other
    ]
    assert len(visit.locator(f"#only-{index(board, 'poor')} tbody th").all_inner_texts()) == only_b
    settings = visit.locator("#settings-difference tbody tr").all_inner_texts()
    assert sorted(settings) == ["model.name\tmlp\tlenet5", "optimizer.lr\t0.1\t0.003"]


@pytest.mark.slow
def test_the_order_of_choosing_turns_the_difference(visit: Page) -> None:
    difference = lambda: visit.locator("#scores tbody tr").first.locator("td").nth(2).inner_text()  # noqa: E731
    choose(visit, "small", "poor")
    first = difference()
    choose(visit, "poor", "small")
    assert first.startswith("+")
    assert difference() == first.replace("+", "−")


@pytest.mark.slow
def test_three_chosen_share_curves_and_images(visit: Page, board: Dashboard) -> None:
    choose(visit, "best", "small", "large")
    assert "Choose two" in visit.locator("#compare").inner_text()
    assert visit.locator("#roc .plot").first.locator("polyline.curve").count() == 3
    said = visit.locator(".explained li").first.locator("figcaption").all_inner_texts()
    assert [text.split("\n")[0].strip() for text in said[1:]] == ["best", "small", "large"]
    assert all("✓" in text or "✗" in text for text in said[1:])
    chosen = [index(board, name) for name in ("best", "small", "large")]
    shown = [image for image in board.images if image.comparable == "A"]
    maps = sum(i in image.overlays for image in shown for i in chosen)
    assert 0 < maps < 3 * len(shown)
    assert visit.locator(".explained img").count() == len(shown) + maps
    assert visit.locator(".explained .missing").count() == 3 * len(shown) - maps


@pytest.mark.slow
def test_what_the_chosen_dispute_comes_first(visit: Page, board: Dashboard) -> None:
    choose(visit, "best", "poor")
    predicted = [board.results[index(board, name)].scored.predicted for name in ("best", "poor")]
    rows = [image.row for image in board.images if image.comparable == "A"]
    apart = [predicted[0][row] != predicted[1][row] for row in rows]
    assert sum(apart) > 0
    said = visit.locator("#disputed .quiet").first.inner_text()
    assert f"answer {sum(apart)} of these {len(rows)} images differently" in said
    tags = visit.locator(".explained li > figure:first-child figcaption").all_inner_texts()
    assert [" disputed\n" in tag for tag in tags] == sorted(apart, reverse=True)


@pytest.mark.slow
def test_confusion_matrices_stand_side_by_side(visit: Page, board: Dashboard) -> None:
    choose(visit, "small", "poor")
    tables = visit.locator("#confusion table")
    assert tables.count() == 2
    for n, name in enumerate(("small", "poor")):
        scored = board.results[index(board, name)].scored
        assert scored is not None
        counts = np.zeros((3, 3), int)
        np.add.at(counts, (scored.labels, scored.predicted), 1)
        shown = [row.split("\t")[1:] for row in tables.nth(n).locator("tbody tr").all_inner_texts()]
        assert np.array_equal(np.array(shown, int), counts)
    boxes = [tables.nth(n).bounding_box() for n in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"]


@pytest.mark.slow
def test_learning_curves_mark_the_epoch_that_was_kept(visit: Page) -> None:
    choose(visit, "small", "large", "gone")
    plots = visit.locator("#learning svg.plot")
    assert plots.count() == 4
    for n in range(4):
        assert plots.nth(n).locator("polyline.curve").count() == 3  # of `gone`, only the predictions are
        assert plots.nth(n).locator("circle.ring").count() == 3
    assert "small: epoch 9 of 10" in visit.locator("#learning figcaption").inner_text()
    assert "not on this page for gone" in visit.locator("#disputed").inner_text()


@pytest.mark.slow
def test_the_head_has_two_lines_and_settings_are_before_the_fold(visit: Page) -> None:
    lines = visit.locator("#experiments thead tr")
    assert lines.count() == 2
    heights = lines.evaluate_all("(all) => all.map((e) => e.getBoundingClientRect().height)")
    assert max(heights) < 45  # one line of text each
    box = heading(visit, "optimizer.lr").bounding_box()
    assert box["x"] + box["width"] < 1280
    spans = visit.locator("#experiments thead tr").first.locator("> *:visible")
    total = sum(spans.evaluate_all("(all) => all.map((e) => e.colSpan)"))
    assert total == visit.locator("#experiments thead tr").nth(1).locator("> *:visible").count()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_wcag_2_1_aa_has_nothing_against_it(browser: Browser, address: str, width: int, scheme: str) -> None:
    for page in opened(browser, address, width=width, scheme=scheme):
        choose(page, "best", "large", "small")
        assert violations(page) == []
        choose(page, "best", "poor")
        page.get_by_label("Group seeds").check()
        assert violations(page) == []


@pytest.mark.slow
def test_a_thousand_experiments_can_be_used(browser: Browser, tmp_path: Path) -> None:
    """All in the table, 40 with details; a keystroke in the filter is answered at once."""
    made = [MadeUp(f"m{n}", skill=1 + n / 3, noise=n, changes={"optimizer.lr": 0.001 * (n + 1)}) for n in range(6)]
    written = [outcome.written(tmp_path) for outcome in made]
    many = [(replace(written[n % 6], name=f"trial-{n:04d}"), "experiment") for n in range(1000)]
    board = collect(many, images=8, measure=None, progress=lambda _: None)
    page_file = tmp_path / "index.html"
    page_file.write_text(render_dashboard(board, "many"), "utf-8")
    assert page_file.stat().st_size < 8_000_000
    for page in opened(browser, page_file.as_uri()):
        assert len(board.detailed) == 40
        assert page.locator("#experiments tbody tr:visible").count() == 200
        assert page.locator("#count").inner_text() == "1000 of 1000 shown, the first 200 in the table"
        took = page.evaluate(
            """() => {
                const [text, begun] = [document.getElementById('text'), performance.now()];
                text.value = 'trial-0999';
                text.dispatchEvent(new Event('input'));
                return performance.now() - begun;
            }"""
        )
        assert took < 2000
        assert names(page) == ["trial-0999"]
        page.get_by_role("button", name="Clear filters").click()
        page.get_by_role("button", name="Show all 1000").click()
        assert page.locator("#experiments tbody tr:visible").count() == 1000


@pytest.mark.slow
def test_the_pareto_front_is_what_nothing_beats(visit: Page, board: Dashboard) -> None:
    members = [board.results[i] for i in board.groups[0].members]
    points = {r.name: (r.cost["parameters"], -r.metrics["accuracy_score"]) for r in members}
    front = [
        name
        for name, (cost, loss) in points.items()
        if not any(c <= cost and v <= loss and (c, v) != (cost, loss) for c, v in points.values())
    ]
    shown = visit.locator("#front").inner_text().split(", ")
    assert len(front) > 1
    assert sorted(shown) == sorted(front)
    assert visit.locator("circle.point.on-front").count() == len(front)
    visit.get_by_role("combobox", name="Score", exact=True).select_option("log_loss")
    assert "log loss" in visit.locator("#cost .plot").get_attribute("aria-label")
    assert visit.locator("#cost select option", has_text="ms per image").count() == 0


@pytest.mark.slow
def test_a_stretch_of_an_axis_filters(visit: Page, board: Dashboard) -> None:
    handle = visit.locator('g.scale[data-axis="accuracy_score"] .handle')
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    visit.mouse.move(x, box["y"] + 2)
    visit.mouse.down()
    visit.mouse.move(x, box["y"] + box["height"] / 3)
    visit.mouse.up()
    kept = names(visit)
    accuracies = {r.name: r.metrics["accuracy_score"] for r in board.results if r.name in COMPARABLE}
    assert 0 < len(kept) < 9
    assert min(accuracies[name] for name in kept) > max(accuracies[name] for name in set(COMPARABLE) - set(kept))
    assert visit.locator(".strand.out").count() == 9 - len(kept)
    handle.click()
    assert sorted(names(visit)) == COMPARABLE


@pytest.mark.slow
def test_ranges_can_be_typed(visit: Page) -> None:
    visit.get_by_text("Ranges as numbers").click()
    field = visit.get_by_label("parameters, at most")
    field.fill("800")
    field.press("Enter")
    assert sorted(names(visit)) == ["run-s0", "run-s1", "run-s2", "small"]


@pytest.mark.slow
def test_seeds_are_grouped_by_a_switch(visit: Page, board: Dashboard) -> None:
    assert not visit.locator("#seeds").is_visible()
    visit.get_by_label("Group seeds").check()
    assert not visit.locator("#experiments").is_visible()
    row = visit.locator("#seeds tbody tr", has_text="run-s0, run-s1, run-s2")
    cells = dict(
        zip(
            visit.locator("#seeds thead th").evaluate_all("(all) => all.map((e) => e.dataset.key)"),
            row.locator("> *").evaluate_all("(all) => all.map((e) => e.dataset.value)"),
            strict=True,
        )
    )
    values = [board.results[index(board, f"run-s{n}")].metrics["accuracy_score"] for n in range(3)]
    assert cells["seeds"] == "3"
    assert float(cells["accuracy_score"]) == pytest.approx(sum(values) / 3)
    assert visit.locator("#seeds tbody tr:visible").count() == 7


def download(page: Page, kind: str) -> str:
    with page.expect_download() as waiting:
        page.locator("#downloads").get_by_role("button", name=kind).click()
    done: Download = waiting.value
    return Path(done.path()).read_text("utf-8")


@pytest.mark.slow
def test_the_downloads_hold_every_digit(visit: Page, board: Dashboard) -> None:
    stored = [json.loads(r.outcome.files("evaluation/metrics.json")[""].read_text("utf-8")) for r in board.results]
    for document in stored:
        document |= {f"uncalibrated.{name}": value for name, value in document.pop("uncalibrated").items()}
    for row, expected in zip(json.loads(download(visit, "JSON")), stored, strict=True):
        assert {**row["metrics"], "intervals": row["intervals"]} == expected
    for row, expected in zip(csv.DictReader(io.StringIO(download(visit, "CSV"))), stored, strict=True):
        numbers = {name: value for name, value in expected.items() if name != "intervals"}
        assert {name: float(row[name]) for name in numbers} == numbers
        assert [float(row["auc_score.low"]), float(row["auc_score.high"])] == expected["intervals"]["auc_score"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways_and_can_be_read(
    browser: Browser, address: str, width: int, scheme: str
) -> None:
    for page in opened(browser, address, width=width, scheme=scheme):
        choose(page, "best", "large", "small")
        for _ in range(2):
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            outside = page.evaluate(
                """() => [...document.querySelectorAll('main *, header *, aside *')]
                    .filter((e) => !e.closest('.scroll') && !e.closest('svg'))
                    .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5)
                    .map((e) => e.outerHTML.slice(0, 80))"""
            )
            assert outside == []
            choose(page, "best", "large")
        assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
def test_the_keyboard_is_enough(visit: Page) -> None:
    visit.keyboard.press("Tab")
    assert visit.evaluate("document.activeElement.className") == "skip"
    point = visit.locator("circle.point[aria-checked=false]").first
    name = point.get_attribute("aria-label").split(":")[0]
    point.focus()
    visit.keyboard.press("Enter")
    assert name in visit.locator("#tray").inner_text()
    assert visit.evaluate("document.activeElement.getAttribute('aria-label')").startswith(f"{name}:")
    score = visit.get_by_role("combobox", name="Score", exact=True)
    score.focus()
    visit.keyboard.press("ArrowDown")
    assert visit.evaluate("document.activeElement.tagName") == "SELECT"
    unnamed = visit.evaluate(
        """() => [...document.querySelectorAll('button, input, select, a')].filter((e) =>
            !e.textContent.trim() && !e.getAttribute('aria-label') && !(e.labels && e.labels.length))"""
    )
    assert unnamed == []


@pytest.mark.slow
def test_a_print_is_light_and_whole(browser: Browser, address: str) -> None:
    for page in opened(browser, address, width=1032, scheme="dark"):  # A4, landscape, with margins
        page.emulate_media(media="print", color_scheme="dark")
        cut_off = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
        assert page.evaluate(cut_off) == 0
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator(".controls").first.is_visible()
        assert not page.locator("#tray").is_visible()
        assert page.locator("#experiments tbody tr:visible").count() == 9


@pytest.mark.slow
def test_the_tables_are_whole_without_the_script(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(address)
    assert sorted(names(page)) == sorted([*COMPARABLE, "elsewhere"])
    assert page.locator("#seeds tbody tr").count() == 8
    assert page.locator("th button").count() == 0
    assert "need JavaScript" in page.locator("noscript p").inner_text()
    context.close()
