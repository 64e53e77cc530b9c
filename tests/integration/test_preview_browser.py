"""The page of `retinue preview` in a real browser: offline, on a phone and a desk, by keyboard, in light and dark."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from browser import CONTRAST
from project import ROOT
from retinue.cli import main

LONG = "a_class_name_without_any_place_to_break_" * 4
CASES = {
    "digits": ("--images", "3"),
    "photographs": (
        *("source=image_folder", "source.path=photos", "preprocess=rgb224", "augment=randaugment", "--images", "4"),
    ),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy2(ROOT / "dvc.yaml", folder)
    for number in range(6):
        small = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path = folder / "photos" / ("<b>ä</b>" if number % 2 else LONG) / f"{LONG}{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC).save(path)
    (folder / "photos" / LONG / "0.jpg").write_bytes(b"broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, arguments in CASES.items():
            main.main(["preview", *arguments, "--output", f"{name}.html"], standalone_mode=False)
    return {name: folder / f"{name}.html" for name in CASES}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", CASES)
def test_it_opens_offline_fits_and_shows_every_picture(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
    page, complaints = context.new_page(), list[str]()
    address = pages[name].as_uri()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("data:", address)) or complaints.append(request.url))
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate(
        "Promise.all([...document.images].map((i) => i.decode().then(() => [i.naturalWidth, i.clientWidth])))"
    )
    assert len(sizes) > 20
    assert all(natural > 0 and shown > 90 for natural, shown in sizes)
    assert page.locator("img:not([alt])").count() == page.locator("img[alt='']").count() == 0
    assert [each.inner_text() for each in page.locator("h2").all()][:3] == [
        *("What the network sees", "The whole policy", "Each transform alone"),
    ]
    assert complaints == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, pages: dict[str, Path], scheme: str) -> None:
    """WCAG 2.1, success criterion 1.4.3."""
    context = browser.new_context(color_scheme=scheme, offline=True)
    page = context.new_page()
    page.goto(pages["photographs"].as_uri())
    assert page.evaluate(CONTRAST) == []
    context.close()


def test_the_keyboard_reaches_the_images_first_and_every_section(browser: Browser, pages: dict[str, Path]) -> None:
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(pages["photographs"].as_uri())
    targets = []
    for _ in range(5):
        page.keyboard.press("Tab")
        targets.append(page.evaluate("document.activeElement.getAttribute('href')"))
    assert targets == ["#main", "#seen", "#policy", "#alone", "#unusable"]
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#unusable"
    context.close()
