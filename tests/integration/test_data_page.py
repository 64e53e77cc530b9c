"""The data section of the report: what it shows is in the artifacts, and its sentences follow from the figures."""

import re
from pathlib import Path

import numpy as np
import pytest

from report_artifacts import BINARY, Scene, settings_values, write_artifacts
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, ShortcutCheck, ShortcutGroup
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_json, write_json
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.reports.data_page import balance_sentences, size_table
from retinue.reports.shortcut_check import shortcut_points, shortcut_section
from retinue.stages import report


def page(folder: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> str:
    monkeypatch.chdir(folder)
    write_artifacts(scene)
    report.run(Settings(settings_values(scene), report.SECTIONS), Tracker(None))
    html = artifacts.REPORT.read_text("utf-8")
    return html[html.index('<section id="data">') : html.index('<section id="quarantine">')]


def dataset(train: dict[str, int], test: dict[str, int], resize: int = 32) -> Dataset:
    val = dict.fromkeys(train, 1)
    counts = {"train": train, "val": val, "test": test}
    return Dataset("set", tuple(train), counts, 28, resize, 3, (0.5,) * 3, (0.5,) * 3)


def check(*groups: tuple[str, float, float], why_not: str = "") -> ShortcutCheck:
    made = [
        ShortcutGroup(name, False, (low + high) / 2, low, high, "b", "" if "together" in name else f"{name} differs")
        for name, low, high in groups
    ]
    return ShortcutCheck(300, 290, 2, 0, 0.95, 0.6, why_not, made)


@pytest.mark.slow
def test_all_of_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = page(tmp_path, monkeypatch, BINARY)
    headings = re.findall(r"<h3>(.*?)</h3>", html)
    assert headings == [
        "Examples of the classes",
        "Balance of the classes",
        "Sizes",
        "Images unlike the others",
        "Shortcut check",
        "What the network sees",
    ]
    alts = re.findall(r'alt="(.*?)"', html)
    # the first image is copied as it is, and is an outlier besides; of each class four stored images
    assert alts.count("val/photo-train-0000.png, a ants, as it is") == 2
    assert sum(alt.endswith("as the network sees it") for alt in alts) == 2 * 4 + 1
    assert "dark: mean brightness 0.02, usual is 0.4" in html
    assert "far from chance" not in re.sub(r"<p>.*?</p>", "", html)
    assert "above chance" in html
    assert "the same in all images" in html


@pytest.mark.slow
def test_an_example_without_a_copy_is_shown_as_the_network_sees_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_artifacts(Scene())
    artifacts.original_path(0).unlink()
    artifacts.ORIGINALS.rmdir()
    report.run(Settings(settings_values(Scene()), report.SECTIONS), Tracker(None))
    assert "as it is" not in re.findall(r'alt="(.*?)"', artifacts.REPORT.read_text("utf-8"))


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ("file format", "The class can be told without the picture, from file format (AUC 0.93, 0.90 to 0.95)"),
        ("EXIF", "without the picture, from EXIF"),
        ("border colour", "in part without looking for an object, from border colour (AUC 0.93, 0.90 to 0.95)"),
        ("mean brightness", "a person who knows them has to decide"),
    ],
)
@pytest.mark.slow
def test_a_shortcut_is_a_point_of_the_verdict(tmp_path, monkeypatch, features, words):
    page(tmp_path, monkeypatch, Scene(shortcut=features))
    html = artifacts.REPORT.read_text("utf-8")
    head = html[: html.index("<nav")]
    assert words in head
    assert "Yes: from " + features in html


def test_without_a_shortcut_the_verdict_is_silent() -> None:
    weak = check(("EXIF", 0.48, 0.56), ("mean brightness", 0.55, 0.66), ("everything together", 0.52, 0.6))
    assert shortcut_points(weak) == []
    first, *_, advice = shortcut_section(weak)["sentences"]
    assert first.startswith("Can the label be told from what is not the object? No:")
    assert advice == ""
    rows = shortcut_section(weak)["table"].rows
    assert [row[3] for row in rows] == ["not told from chance", "above chance", "above chance"]
    assert [row[4] for row in rows] == ["", "“b”: mean brightness differs", ""]


@pytest.mark.parametrize(
    ("features", "is_made", "is_seen"),
    [("EXIF", True, False), ("border colour", False, True), ("everything together", False, False)],
)
def test_the_advice_is_on_what_was_found(features: str, is_made: bool, is_seen: bool) -> None:
    advice = shortcut_section(check((features, 0.65, 0.7)))["sentences"][-1]
    assert ("different cameras" in advice, "follow from the picture" in advice) == (is_made, is_seen)


def test_features_that_tell_only_together_are_a_point_of_their_own() -> None:
    (point,) = shortcut_points(check(("EXIF", 0.5, 0.58), ("everything together", 0.65, 0.7)))
    assert point == "The class can be told from everything together (AUC 0.68, 0.65 to 0.70); see the shortcut check."


def test_what_was_not_checked_is_said() -> None:
    found = shortcut_section(check(why_not="Too few."))
    assert found == {"sentences": ["Not checked. Too few."], "table": None}
    assert shortcut_points(check(why_not="Too few.")) == []


def test_balance_of_equal_classes() -> None:
    sentences = balance_sentences(dataset({"a": 50, "b": 60}, {"a": 10, "b": 10}))
    assert sentences[0] == "“b” has 71 of 132 images (53.8 %), “a” 61 of 132 images (46.2 %): 1.16 to 1."
    assert "has an accuracy of 0.5000 on the test split" in sentences[1]
    assert sentences[2].startswith("The classes are balanced")
    assert len(sentences) == 3


def test_classes_of_one_size_are_named_together() -> None:
    sentences = balance_sentences(dataset({"a": 10, "b": 10}, {"a": 5, "b": 5}))
    assert sentences[0] == "Every class has 16 of 32 images (50 %)."


def test_what_misleads_where_classes_are_not_equal() -> None:
    sentences = balance_sentences(dataset({"good": 900, "scratch": 10}, {"good": 95, "scratch": 5}))
    assert "Whoever always answers “good” has an accuracy of 0.9500" in sentences[1]
    assert "balanced_accuracy_score" in sentences[2]
    assert "“scratch” are none" in sentences[2]
    assert len(sentences) == 3  # 1.1 % and 5 %: no other mixture


def test_another_mixture_in_the_test_split_is_said() -> None:
    sentences = balance_sentences(dataset({"a": 50, "b": 50}, {"a": 80, "b": 20}))
    assert sentences[-1].startswith("“a” is 50 % of the training images and 80 % of the test images")


def test_sizes_are_counted_against_what_the_network_gets() -> None:
    table = size_table(np.array([8, 31, 32, 63, 64, 127, 128, 1000]), dataset({"a": 1, "b": 1}, {"a": 1, "b": 1}))
    assert [(row[1], row[2]) for row in table.rows] == [("2", "25 %")] * 4
    assert table.rows[0][0].startswith("below 32 px")
    one = size_table(np.full(5, 40), dataset({"a": 1, "b": 1}, {"a": 1, "b": 1}))
    assert [row[:2] for row in one.rows] == [["32 to 63 px", "5"]]


@pytest.mark.parametrize("path", [artifacts.OUTLIERS, artifacts.SHORTCUTS], ids=str)
@pytest.mark.slow
def test_a_document_of_another_kind_is_refused(tmp_path, monkeypatch, path):
    page(tmp_path, monkeypatch, Scene(epochs=2))
    document = read_json(path)
    write_json(path, {**document, "more": 1})
    with pytest.raises(DataError, match=re.escape(str(path))):
        report.run(Settings(settings_values(Scene(epochs=2)), report.SECTIONS), Tracker(None))


def test_many_outliers_are_counted_and_few_are_shown(tmp_path, monkeypatch):
    html = page(tmp_path, monkeypatch, Scene(outliers=250))
    assert "Unlike the others of this set: 250 dark." in html
    assert "50 more rows are not shown." in html
    assert len(re.findall(r"<figure>", html)) <= 40 + 6
