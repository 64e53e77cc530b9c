"""The report on test images that are unlike the training images, and when it calls them too many."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from report_artifacts import BINARY, JUDGES, Scene, settings_values, write_artifacts
from retinue.pipeline import artifacts
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_table
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.reports.unusual import MAX_UNUSUAL, RARE, UnusualImages, unusual_of_test, unusual_section
from retinue.stages import report

POINT = "test images are unlike the training images"


def page_of(folder: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> str:
    """The page of a scene; `folder` is entered."""
    monkeypatch.chdir(folder)
    write_artifacts(scene)
    return page()


def page() -> str:
    report.run(Settings(settings_values(BINARY), report.SECTIONS), Tracker(None))
    return artifacts.REPORT.read_text("utf-8")


@pytest.mark.slow
def test_more_of_them_than_chance_makes_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = page_of(tmp_path, monkeypatch, BINARY)
    assert POINT not in usual
    assert "That is what chance makes of images like those." in usual
    (tmp_path / "strange").mkdir()
    html = page_of(tmp_path / "strange", monkeypatch, replace(BINARY, strange=40))
    assert POINT in html
    found = unusual_of_test(JUDGES)
    assert found is not None
    assert found.num_unusual >= 40
    part = html.split('<h3 id="unusual">')[1].split("</section>")[0]
    assert part.count("<img") == part.count("share 0.0196") == MAX_UNUSUAL
    section = unusual_section(found, artifacts.read_dataset())
    first = read_table(artifacts.PROCESSED / "test" / artifacts.MANIFEST, artifacts.Sample)[0].image_id
    assert section["cards"][0]["image_id"] == first
    assert section["cards"][0]["note"] == "share 0.0196"  # 1 / 51


@pytest.mark.slow
def test_without_shares_it_is_said_and_those_of_another_run_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_of(tmp_path, monkeypatch, BINARY)
    shares = np.load(artifacts.USUAL_SHARES)
    np.save(artifacts.USUAL_SHARES, np.concatenate([shares, shares[:1] * 0]))
    with pytest.raises(DataError, match="of another run than the test split"):
        page()
    artifacts.USUAL_SHARES.unlink()
    assert "The bundle does not know its training images" in page()


def test_the_bound_is_that_of_ranks_among_the_same_judges() -> None:
    """Of usual images it is passed seldom, though all of them are judged by the same few."""
    rng = np.random.default_rng(0)
    number, judges, passed, counts = 200, 60, 0, []
    for _ in range(2000):
        distances = rng.random(judges)
        as_far = (distances >= rng.random(number)[:, np.newaxis]).sum(axis=1)
        found = UnusualImages(((1 + as_far) / (judges + 1)).astype(np.float32), judges)
        counts.append(found.num_unusual)
        passed += found.is_another
    assert np.mean(counts) == pytest.approx(found.expected, rel=0.05)
    p = found.expected / number
    assert np.var(counts) == pytest.approx(number * p * (1 - p) * (1 + (number - 1) / (judges + 2)), rel=0.15)
    assert passed / 2000 < 0.03
    assert found.expected == number * 3 / 61  # of 61 ranks, three are at most RARE
    assert RARE == 0.05


def test_few_judges_call_nothing_unusual() -> None:
    found = UnusualImages(np.full(30, 1 / 15, np.float32), 14)
    assert (found.num_unusual, found.expected, found.is_another) == (0, 0, False)
