"""Near copies from a folder of photographs to the page of the report."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compositions import compose
from planted_copies import COPIES, TURNS, photograph
from project import Project
from report_artifacts import BINARY, settings_values, write_artifacts
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import NearCopy, RawImage, Sample
from retinue.pipeline.files import read_json, read_table, write_table
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.reports import near_copies
from retinue.stages import acquire, report
from torture_images import saved

BASE = compose(["source=image_folder", "source.path=photos", "trainer.num_workers=0"])
COPIED = {"a/00.png": "re-encoded", "b/01.png": "resized", "a/02.png": "brightness-shifted"}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve photographs of two classes, copies of four, one of them to the byte, and a file that is none."""
    rng = np.random.default_rng(0)
    for number in range(12):
        put(tmp_path, f"{'ab'[number % 2]}/{number:02d}.png", saved(photograph(number, 120, 90), "PNG"))
    for name, kind in COPIED.items():
        picture = Image.open(tmp_path / "photos" / name)
        put(tmp_path, f"b/copy-of-{name[2:4]}.jpg", COPIES[kind](picture, rng))
    put(tmp_path, "b/turned.webp", saved(photograph(3, 120, 90).transpose(TURNS[270]), "WEBP"))
    put(tmp_path, "b/same.png", (tmp_path / "photos/b/03.png").read_bytes())
    put(tmp_path, "a/cut.png", (tmp_path / "photos/b/03.png").read_bytes()[:5000])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(checkout: Path, name: str, data: bytes) -> None:
    path = checkout / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def run(**changes: Any) -> None:
    values = {**BASE, "source": {**BASE["source"], "max_bad_fraction": 0.1}}
    values["trainer"] = {**BASE["trainer"], **changes}
    acquire.run(Settings(values, acquire.SECTIONS), Tracker(None))


def digests() -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in artifacts.RAW.iterdir() if path.is_file()
    }


def test_acquire_writes_the_pairs_in_the_order_of_the_manifest(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    rows = read_table(artifacts.NEAR_COPIES, NearCopy)
    found = [(row.image_id, row.copy_id, row.turned_degrees) for row in rows]
    assert found == [
        ("a/00.png", "b/copy-of-00.jpg", 0),
        ("a/02.png", "b/copy-of-02.jpg", 0),
        ("b/01.png", "b/copy-of-01.jpg", 0),
        ("b/03.png", "b/turned.webp", 270),
    ], "the file with the same bytes is told by the card"
    assert all(0 <= row.distance < 0.1 for row in rows)
    order = [image.image_id for image in read_table(artifacts.RAW_MANIFEST, RawImage)]
    assert all(order.index(row.image_id) < order.index(row.copy_id) for row in rows)
    assert len(read_json(artifacts.CARD)["duplicates"]) == 1
    assert capsys.readouterr().out.endswith("1 quarantined, 4 pairs of near copies -> data/raw\n")
    assert not list(artifacts.RAW.rglob("*.npy")), "what the search was made of is deleted"


@pytest.mark.parametrize(("distance", "units"), [(0.1, 12), (-1.0, 16)])
def test_the_shortcut_check_parts_no_near_copies(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, distance: float, units: int
) -> None:
    """Of 17 images twelve are photographs of their own; were no distance near enough, only equal bytes would join."""
    monkeypatch.setattr(acquire, "USUAL_DISTANCE", distance)
    run()
    check = read_json(artifacts.SHORTCUTS)
    assert (check["images"], check["units"], check["why_not"]) == (17, units, "")


@pytest.mark.slow
def test_workers_change_no_pair(checkout: Path) -> None:
    run()
    alone = digests()
    run(num_workers=2)
    assert digests() == alone


def test_a_camera_that_stands_still_is_warned_of(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = np.asarray(photograph(50, 120, 90))
    for number in range(25):
        image = scene.copy()
        image[40:48, 4 * number : 4 * number + 8] = 255
        put(checkout, f"a/still{number:02d}.png", saved(Image.fromarray(image), "PNG"))
    run()
    assert "near copies join 25 images into one unit, as those of a camera that stands still" in capsys.readouterr().err


@pytest.mark.slow
def test_ranks_change_no_pair(project: Project, checkout: Path) -> None:
    checkout.joinpath("photos").rename(project.path / "photos")
    settings = ("source=image_folder", "source.path=photos", "source.max_bad_fraction=0.1", "tracking=off")
    project.stage("acquire", *settings)
    alone = (project.path / artifacts.NEAR_COPIES).read_bytes()
    assert len(alone.splitlines()) == 5
    project.stage("acquire", *settings, "trainer=ddp", "trainer.devices=3", "trainer.num_threads=1")
    assert (project.path / artifacts.NEAR_COPIES).read_bytes() == alone


def page_with(rows: list[NearCopy], joined_within: float | None = 0.1) -> str:
    """The page of a run whose acquire found `rows`."""
    write_table(artifacts.NEAR_COPIES, NearCopy, rows)
    values = settings_values(BINARY)
    values["preprocess"] = {**values["preprocess"], "near_copies": joined_within}
    report.run(Settings(values, report.SECTIONS), Tracker(None))
    return artifacts.REPORT.read_text("utf-8")


def section_of(page: str) -> str:
    """What the page says of near copies."""
    section = page[page.index('<h3 id="near_copies">') :]
    return section[: section.index("<h3", 10)]


def image_ids(labels: Callable[[int], bool] = lambda label: True) -> list[str]:
    """The ids of test images whose labels are wanted."""
    samples = read_table(artifacts.PROCESSED / "test" / artifacts.MANIFEST, Sample)
    return [sample.image_id for sample in samples if labels(sample.label)]


@pytest.mark.slow
def test_the_page_shows_pairs_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_artifacts(BINARY)
    before = page_with([])
    assert "Near copies" not in before
    ants, bees = image_ids(lambda label: label == 0), image_ids(lambda label: label == 1)
    rows = [NearCopy(ants[i], ants[i + 1], 0.003 * i, 0) for i in range(30)]
    rows += [NearCopy(ants[0], bees[0], 0.05, 90), NearCopy(ants[0], "not/used.png", 0.0, 0)]
    page = page_with(rows)
    assert "31 pairs of images differ in their bytes and look alike, 1 of them under different labels" in page
    shown = section_of(page)
    assert shown.count("<img ") == 2 * near_copies.MAX_PAIRS
    assert f"{31 - near_copies.MAX_PAIRS} more pairs are not shown" in shown
    first, second = (f"distance {figure(0.05)}, turned by 90°", f"distance {figure(0.0)}<")
    assert shown.index(first) < shown.index(second), "a contradiction comes first"
    assert f'bees, test <code class="quiet">{bees[0]}</code>' in shown
    assert "not/used.png" not in page
    assert len(page) - len(before) < 1_000_000, "pictures are small whatever the images are"


@pytest.mark.slow
def test_the_page_tells_pairs_that_belong_together_from_those_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1 belongs together with 0.1; a pair beyond comes last, though its labels contradict each other."""
    monkeypatch.chdir(tmp_path)
    write_artifacts(BINARY)
    ants, bees = image_ids(lambda label: label == 0), image_ids(lambda label: label == 1)
    rows = [NearCopy(ants[0], bees[0], 0.2, 0), NearCopy(ants[1], ants[2], 0.1, 0), NearCopy(bees[1], bees[2], 0.02, 0)]
    shown = section_of(page_with(rows))
    assert "Images at most 0.1 apart (preprocess.near_copies) belong together when splits are made: 2 of 3." in shown
    assert "The others come last and join none." in shown
    places = [shown.index(f"distance {figure(distance)}") for distance in (0.02, 0.1, 0.2)]
    assert places == sorted(places)
    assert shown.count("not joined") == 1
    assert shown.index("not joined") > places[-1]
    near = section_of(page_with(rows[1:]))
    assert "2 of 2." in near
    assert "The others" not in near
    without = section_of(page_with(rows, joined_within=None))
    assert "None of the pairs joins its images: preprocess.near_copies is null" in without
    assert without.count("not joined") == 3
