"""The report stage: what is on the page is what is in the artifacts, whole, safe, and the same bytes every time."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from report_artifacts import BINARY, ROOT, Scene, settings_values, write_artifacts
from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import (
    Correction,
    DroppedImage,
    Explanation,
    LabelConflict,
    LeakedPair,
    Leaks,
    Quarantined,
)
from retinue.pipeline.checked import ensure_checked
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.files import read_json, read_table, write_json
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import EXECUTION_SECTIONS, Settings
from retinue.pipeline.tracker import Tracker
from retinue.reports import cells
from retinue.reports.cells import confusion_cells
from retinue.reports.gallery import some_of_each_class
from retinue.reports.inputs import ReportInputs
from retinue.reports.unusual import MAX_UNUSUAL
from retinue.stages import report

VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "</title></style>&amp;",
    "ä 'ø'",
)
MACHINERY = {"torch", "pytorch_lightning", "torchmetrics", "sklearn", "albumentations", "cv2", "matplotlib"}


class Page(HTMLParser):
    """A page as its elements; fails where tags are not balanced.

    Attributes:
        elements: (tag, attributes, text directly and indirectly in it), in the order in which they end.
    """

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], str]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {[tag for tag, *_ in self._open]}"

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag in VOID:
            self.elements.append((tag, values, ""))
        else:
            self._open.append((tag, values, []))

    def handle_endtag(self, tag: str) -> None:
        opened, values, text = self._open.pop()
        assert opened == tag, f"<{opened}> ended by </{tag}>"
        self.elements.append((tag, values, "".join(text)))

    def handle_data(self, data: str) -> None:
        for _, _, text in self._open:
            text.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str], str]]:
        return [(values, text) for name, values, text in self.elements if name == tag]

    def text(self) -> str:
        return re.sub(r"\s+", " ", self.all("body")[0][1])


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> str:
    """Writes the artifacts of the scene below `folder`, runs the stage there, gives the page."""
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    write_artifacts(scene)
    return run(scene)


def run(scene: Scene) -> str:
    report.run(Settings(settings_values(scene), report.SECTIONS), Tracker(None))
    return artifacts.REPORT.read_text("utf-8")


@pytest.mark.parametrize("scene", [Scene(), BINARY], ids=["ten classes", "two classes"])
@pytest.mark.slow
def test_the_figures_are_those_of_the_artifacts(tmp_path, monkeypatch, scene):
    page = Page(make(tmp_path, monkeypatch, scene))
    metrics = artifacts.read_metrics()
    rows = {row[0]: row[1:] for row in _rows(page, "Metrics of the test split")}
    names = [name for name in metrics if name.endswith(("_score", "_loss", "_error"))]
    assert len(names) >= 8
    for name in names:
        assert rows[name][0] == figure(metrics[name])
    for name, (low, high) in metrics["intervals"].items():
        assert rows[name][1] == f"{figure(low)} to {figure(high)}"
    by_class = _rows(page, "Metrics of each class")
    heads = _heads(page, "Metrics of each class")
    assert [row[0] for row in by_class] == list(scene.classes)
    for row in by_class:
        of_class = metrics["per_class"][row[0]]
        assert row[1] == str(of_class["support"])
        assert row[2:] == [figure(of_class[name]) for name in heads[2:]]
    columns = _heads(page, "95 % intervals of each class")[2:]
    assert columns == heads[2:]
    for name, _, *ends in _rows(page, "95 % intervals of each class"):
        of_class = metrics["per_class"][name]["intervals"]
        assert ends == [f"{figure(of_class[column][0])} to {figure(of_class[column][1])}" for column in columns]
    verdict = next(text for values, text in page.all("p") if values.get("id") == "verdict")
    right = round(metrics["accuracy_score"] * metrics["num_images"])
    assert (
        f"classifies {right} of {metrics['num_images']} test images ({len(scene.classes)} classes) correctly" in verdict
    )
    assert figure(metrics["accuracy_score"]) in verdict
    assert figure(metrics["auc_score"]) in verdict
    assert ("macro AUC" in verdict) == (len(scene.classes) > 2)
    assert "lenet5" in verdict
    assert "scratch" in verdict


@pytest.mark.slow
def test_the_confusion_matrix_is_the_stored_one(tmp_path, monkeypatch):
    page = Page(make(tmp_path, monkeypatch, Scene()))
    counts = {(c.actual, c.predicted): c.num_images for c in _cells()}
    heads = _heads(page, "Confusion matrix")[1:]
    rows = _rows(page, "Confusion matrix")
    assert {
        (row[0], head): int(n) for row in rows for head, n in zip(heads, row[1:], strict=True) if n != "0"
    } == counts
    wrong = {pair: n for pair, n in counts.items() if pair[0] != pair[1]}
    listed = {(row[0], row[1]): int(row[2]) for row in _rows(page, "Most frequent confusions")}
    assert wrong
    assert listed == wrong
    assert list(listed.values()) == sorted(wrong.values(), reverse=True)


@pytest.mark.slow
def test_a_cell_of_the_matrix_leads_to_its_images(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "MOST_BYTES", 10_000_000)
    page = Page(make(tmp_path, monkeypatch, Scene(skill=1.0)))
    counts = {(c.actual, c.predicted): c.num_images for c in _cells()}
    gallery = read_json(artifacts.GALLERY)["images"]
    explained = Counter((str(entry["label"]), str(entry["predicted"])) for entry in gallery)
    panels = {values["id"]: values["aria-label"] for values, _ in page.all("div") if values.get("class") == "cell"}
    links = {values["href"]: text for values, text in page.all("a") if values.get("id", "").startswith("from-")}
    assert len(panels) == len(explained) > 20
    for label, predicted in explained:
        count = counts[label, predicted]
        assert links[f"#cell-{label}-{predicted}"] == str(count)
        what = f"{label} recognised" if label == predicted else f"{label} taken for {predicted}"
        assert panels[f"cell-{label}-{predicted}"] == f"{count} image{'s' * (count != 1)} of {what}"
    shown = Counter(text for values, text in page.all("div") if values.get("class") == "cell")
    assert sum(text.count("confidence") for text in shown) == sum(min(n, 6) for n in explained.values())


@pytest.mark.slow
def test_the_pictures_of_cells_have_a_limit(tmp_path, monkeypatch):
    """A limit that holds a third of the pictures: every confusion keeps its first image before any has its second."""
    monkeypatch.setattr(cells, "MOST_BYTES", 10_000_000)
    make(tmp_path, monkeypatch, Scene(skill=1.0))
    whole = confusion_cells(ReportInputs.read())
    size = sum(len(one.original.uri) + len(one.overlay.uri) for cell in whole.values() for one in cell.images)
    monkeypatch.setattr(cells, "MOST_BYTES", size // 3)
    some = confusion_cells(ReportInputs.read())
    kept = sum(len(one.original.uri) + len(one.overlay.uri) for cell in some.values() for one in cell.images)
    assert size / 4 < kept <= size / 3
    numbers = {pair: len(cell.images) for pair, cell in some.items()}
    second = {pair for pair, count in numbers.items() if count > 1}
    assert not second or numbers.keys() == whole.keys()
    assert any(label != predicted for label, predicted in numbers)


@pytest.mark.slow
def test_the_page_opens_with_what_a_decision_needs(tmp_path, monkeypatch):
    page = Page(make(tmp_path, monkeypatch, BINARY))
    metrics = artifacts.read_metrics()
    answers = {text.strip().split("\n")[0]: " ".join(text.split()) for v, text in page.all("section") if "id" not in v}
    assert list(answers) == ["Operating point", "Baselines", "What is doubtful"]
    point = metrics["operating_point"]
    for value in (point["sensitivity_score"], point["specificity_score"]):
        assert figure(value) in answers["Operating point"]
    assert "majority0.5000 accuracy" in answers["Baselines"]
    assert "The network does not beat HOG + linear SVM" in answers["Baselines"]
    assert metrics["intervals"]["accuracy_score"][0] > 0.5
    assert "1 file is quarantined" in answers["What is doubtful"]


@pytest.mark.slow
def test_what_was_run_is_told(tmp_path, monkeypatch):
    scene = Scene()
    page = Page(make(tmp_path, monkeypatch, scene))
    values = settings_values(scene)
    text = page.text()
    assert Settings(values).fingerprint() in text
    for section in report.SECTIONS:
        assert section in [summary.split()[0] for _, summary in page.all("summary")]
    assert ["lr", "0.002"] in _rows(page, "optimizer")
    assert ["monitor", "val/log_loss"] in _rows(page, "train")
    hashes = dict(_rows(page, "Inputs of this page"))
    assert {"data/raw/manifest.csv", "data/processed/test/manifest.csv", "models/weights.safetensors"} <= set(hashes)
    for path, digest in hashes.items():
        assert digest == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert "dvc repro" in text
    best = read_json(artifacts.MODEL / "bundle.json")["training"]["best_epoch"]
    assert f"the weights of epoch {best} are kept" in text
    assert f"best: {best}" in text


@pytest.mark.slow
def test_every_section_and_every_image_is_there(tmp_path, monkeypatch):
    scene = Scene(skill=3.0, quarantine=[Quarantined("a/b.gif", "3", "not an image")])
    page = Page(make(tmp_path, monkeypatch, scene))
    ids = [values["id"] for values, _ in page.all("section") if "id" in values]
    links = [v["href"].removeprefix("#") for v, _ in page.all("a") if "href" in v and v.get("class") != "more"]
    known = {values["id"] for _, values, _ in page.elements if "id" in values}
    assert {v["href"].removeprefix("#") for v, _ in page.all("a") if v.get("class") == "more"} <= known
    assert [link for link in links if not link.startswith(("cell-", "from-"))][1:] == ids
    assert _rows(page, "1 quarantined file") == [["a/b.gif", "3", "not an image"]]
    gallery = read_json(artifacts.EXPLANATIONS / "gallery.json")["images"]
    alts = [values["alt"] for values, _ in page.all("img")]
    # the sheets of preprocessing and augmentation, filters and feature maps; of the data, an outlier in both forms, and
    # 4 training images of each of 10 classes, of which one has a copy of the original
    # each explained image stands in its cell of the confusion matrix, and in the gallery, with its nearest training
    # images, those that are not "confused"
    confused = sum(entry["outcome"] == "confused" for entry in gallery)
    shown = len(gallery) - confused
    # and the most unusual test images
    assert len(alts) == 2 * len(gallery) + 3 * shown + 4 + 2 + (4 * 10 + 1) + MAX_UNUSUAL
    first = gallery[0]["label"]
    assert f"The nearest training images: {first} 0.000, {first} 0.021, {first + 1} 0.250" in alts
    assert "features.c3 (16 of 400 maps of 10×10)" in page.text()
    assert {entry["outcome"] for entry in gallery} == {"right", "wrong", "confident_error", "confused"}
    for entry in gallery:
        assert any(entry["image_id"] in alt for alt in alts)
        assert figure(entry["confidence"]) in page.text()
    assert _rows(page, "Augmentation policy")[0][:2] == ["Affine", "0.90"]
    facts = dict(_rows(page, "Data card"))
    assert facts["licence"] == "MIT"
    assert facts["height, px"] == "32 to 64, median 40.5"


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    scene = Scene(
        skill=40.0,
        applicable=False,
        sections={"augment": {"name": "none", "copies_per_image": 0, "transforms": []}},
    )
    page = Page(make(tmp_path, monkeypatch, scene))
    assert "No file is quarantined" in page.text()
    assert "No augmentation" in page.text()
    assert "gradcam does not apply here: the network has no convolution" in page.text()
    assert "No image of the test split is misclassified." in page.text()
    ends = ("as it is", "as the network sees it", "after each operation")
    assert "The weights of the first layer, hidden1 (Linear), are no images." in page.text()
    alts = [values["alt"] for values, _ in page.all("img")]
    assert all(alt.endswith(ends) or alt.startswith("Test image") for alt in alts)


def test_hostile_names_stay_text(tmp_path, monkeypatch):
    scene = Scene(
        classes=HOSTILE,
        skill=1.5,
        prefix=HOSTILE[1] + "/",
        quarantine=[Quarantined(name, name, name) for name in HOSTILE],
        duplicates=[[{"image_id": name, "label": name, "split": ""} for name in HOSTILE]],
        leaks=Leaks((), (LabelConflict(HOSTILE, HOSTILE),), ()),
        corrections=[{"image_id": name, "was": name, "now": "", "reason": name} for name in HOSTILE],
        sections={"report": {"title": HOSTILE[0]}, "source": {"inputs": HOSTILE[1]}},
    )
    html = make(tmp_path, monkeypatch, scene)
    page = Page(html)
    assert len(page.all("script")) == 1
    assert not [values for _, values, _ in page.elements if any(key.startswith("on") for key in values)]
    assert all(values["src"].startswith("data:image/") for values, _ in page.all("img"))
    assert page.all("h1") == [({}, HOSTILE[0])]
    assert [row[0] for row in _rows(page, "Metrics of each class")] == list(HOSTILE)
    assert _rows(page, "5 quarantined files") == [[name] * 3 for name in HOSTILE]
    assert _rows(page, "5 corrected labels") == [[name, name, "left out", name] for name in HOSTILE]
    assert "49" not in {row[0] for row in _rows(page, "Images of each class")}


CLAIM = "All figures are of the test split, which nothing before evaluation has seen."


@pytest.mark.slow
def test_the_claim_of_an_unseen_test_split_stands_where_it_is_true(tmp_path, monkeypatch):
    """Not where images of it are in training, nor beside weights that somebody else has trained."""
    scene = Scene()
    assert CLAIM in Page(make(tmp_path, monkeypatch, scene)).text()
    bundle = read_json(artifacts.BUNDLE)
    loaded = {"sha256": "0" * 64, "loaded": 10, "adapted": [], "skipped": []}
    bundle["training"]["initial_weights"] = {"name": "imagenet", **loaded}
    write_json(artifacts.BUNDLE, bundle)
    text = Page(run(scene)).text()
    assert CLAIM not in text
    assert "what the initial weights (imagenet) were trained on is not known here" in text


@pytest.mark.slow
def test_leaks_are_shown_side_by_side_and_the_score_is_told_without_them(tmp_path, monkeypatch):
    """Three test images have copies in training; the verdict names their number and the score."""
    pairs = [
        LeakedPair("equal", f"scan/test-{i:04d}.png", "test", f"scan/train-{i:04d}.png", "train") for i in range(3)
    ]
    scene = Scene()
    make(tmp_path, monkeypatch, scene)
    equal = pairs[0].copy_id
    artifacts.write_leaks(artifacts.LEAKS, Leaks(tuple(pairs), (LabelConflict((equal, "y"), ("3", "5")),), ()))
    count = len(ImageStore(artifacts.PROCESSED / "train"))
    train = ImageStore.create(artifacts.PROCESSED / "train", count, (32, 32, 1))
    for row in range(3):
        train.write(row, ImageStore(artifacts.PROCESSED / "test")[row])
    metrics = artifacts.read_metrics()
    whole = (metrics["accuracy_score"], metrics["auc_score"], metrics["intervals"])
    scores = dict(zip(("accuracy_score", "auc_score", "intervals"), whole, strict=True))
    artifacts.write_metrics({**metrics, "without_leaks": {"leaked_images": 3, "num_images": 357, **scores}})
    page = Page(run(scene))
    text = page.text()
    assert CLAIM not in text
    assert "3 of whose images have copies in training or validation" in text
    point = (
        f"3 of 360 test images have copies in training or validation: on the other 357, accuracy is {figure(whole[0])}"
    )
    assert point in text
    sources = {values["alt"]: values["src"] for values, _ in page.all("img")}
    for pair in pairs:
        assert sources[f"test image {pair.image_id}"] == sources[f"train image {pair.copy_id}"]
    assert _rows(page, "Equal files with different labels") == [[f"{equal}, y", "3, 5", "used with their labels"]]
    assert "preprocess.conflicts=drop leaves all of them out" in text
    assert sources[f"3 or 5: {equal}"] == sources[f"train image {equal}"]
    gone = [DroppedImage(pair.copy_id, "3", "copy") for pair in pairs]
    conflict = LabelConflict(("x", "y"), ("3", "5"))
    gone += [DroppedImage(image_id, "3", "conflict") for image_id in conflict.image_ids]
    artifacts.write_leaks(artifacts.LEAKS, Leaks(tuple(pairs), (conflict,), tuple(gone)))
    artifacts.write_metrics(metrics)
    text = Page(run(scene)).text()
    assert CLAIM in text
    assert "All of them are left out." in text
    assert "3 images that belong to a later split (copies, or of one group) are left out." in text


@pytest.mark.slow
def test_corrections_strays_and_wrong_endings_are_in_the_data_section(tmp_path, monkeypatch):
    changes = [{"image_id": f"{i:03d}.png", "was": "ants", "now": "bees", "reason": "wings"} for i in range(250)]
    page = Page(make(tmp_path / "corrected", monkeypatch, replace(BINARY, corrections=changes)))
    rows = _rows(page, "250 corrected labels")
    assert rows[0] == ["000.png", "ants", "bees", "wings"]
    assert len(rows) == 200
    assert "50 more rows are not shown" in page.text()
    card = read_json(artifacts.CARD)
    card["strays"] = {"number": 12, "endings": ".txt: 12", "first": ["a.txt"]}
    card["wrong_endings"] = {"number": 3, "kinds": {"PNG called .jpg": 3}, "first": ["a.jpg"]}
    write_json(artifacts.CARD, {**card, "corrections": []})
    report.run(Settings(settings_values(BINARY), report.SECTIONS), Tracker(None))
    page = Page(artifacts.REPORT.read_text("utf-8"))
    facts = {row[0]: row[1] for row in _rows(page, "Data card")}
    assert facts["files that are no images"] == "12 (.txt: 12)"
    assert facts["files with the ending of another format"] == "3 (PNG called .jpg: 3)"
    assert "corrected label" not in page.text()


@pytest.mark.slow
def test_a_slice_that_is_worse_is_a_finding(tmp_path, monkeypatch):
    page = Page(make(tmp_path, monkeypatch, replace(BINARY, dark_is_wrong=True)))
    rows = _rows(page, "Slices, the worst first")
    assert rows[0][0].startswith("brightness: lowest quarter, at most 0.")
    assert float(rows[0][2]) < float(rows[0][4])  # its accuracy, and that of its classes elsewhere
    assert "Worse than elsewhere: brightness lowest quarter" in page.text()
    page = Page(make(tmp_path / "even", monkeypatch, BINARY))
    assert "Worse than elsewhere" not in page.text()
    assert re.search(r"No slice of \d+ is worse than its classes are elsewhere", page.text())


@pytest.mark.slow
def test_doubtful_labels_are_shown_and_written_as_corrections(tmp_path, monkeypatch):
    page = Page(make(tmp_path, monkeypatch, replace(BINARY, wrong_labels=4)))
    ids = [row[0] for row in _rows(page, "Doubtful labels, the most doubtful first")]
    planted = {f"val/photo-val-{i:04d}.png" for i in range(4)}
    assert planted <= set(ids)
    assert f"{len(ids)} of" in page.text()
    lines = read_table(tmp_path / "report/doubtful_labels.csv", Correction)
    assert [line.image for line in lines] == ids
    assert {line.label for line in lines if line.image in planted} == {"ants", "bees"}
    page = Page(make(tmp_path / "none", monkeypatch, BINARY))
    assert re.search(r"None of the labels of \d+ validation images is doubtful", page.text())


@pytest.mark.slow
def test_the_page_is_self_contained(tmp_path, monkeypatch):
    html = make(tmp_path, monkeypatch, BINARY)
    page = Page(html)
    links = [
        values[key] for _, values, _ in page.elements for key in ("src", "href", "action", "data") if key in values
    ]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    style = page.all("style")[0][1]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(values for values, _ in page.all("meta") if values.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert str(tmp_path) not in html
    assert artifacts.REPORT.stat().st_size < 2e6


@pytest.mark.slow
def test_the_page_can_be_read_without_seeing_it(tmp_path, monkeypatch):
    page = Page(make(tmp_path, monkeypatch, BINARY))
    assert page.all("html")[0][0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(values.get("scope") in ("row", "col") for values, _ in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(values.get("alt") for values, _ in page.all("img"))
    charts = [values for values, _ in page.all("svg") if values.get("role") == "img"]
    assert len(charts) == 9
    assert all(len(values["aria-label"]) > 30 for values in charts)
    skip = next(values for values, _ in page.all("a") if values.get("class") == "skip")
    assert skip["href"] == "#main"
    assert [values for values, _ in page.all("main")] == [{"id": "main"}]


@pytest.mark.slow
def test_the_same_artifacts_give_the_same_bytes_anywhere(tmp_path, monkeypatch):
    first = make(tmp_path / "here", monkeypatch, Scene())
    again = run(Scene())
    elsewhere = make(tmp_path / "somewhere" / "else", monkeypatch, Scene())
    assert first == again == elsewhere


@pytest.mark.slow
def test_many_classes_and_files_do_not_make_a_large_page(tmp_path, monkeypatch):
    names = [f"class {i:03d}" for i in range(150)]
    bad = [Quarantined(f"{i}.gif", names[0], "not an image") for i in range(1234)]
    scene = Scene(classes=names, per_class=4, skill=2.5, quarantine=bad)
    page = Page(make(tmp_path, monkeypatch, scene))
    assert artifacts.REPORT.stat().st_size < 3e6
    assert len(_rows(page, "Metrics of the 100 classes with the lowest F1")) == 100
    assert len(_rows(page, "Images of each class")) == 100
    assert page.text().count("50 more rows are not shown.") == 3  # metrics of each class, their intervals, its images
    assert "110 more classes are not shown." in page.text()
    assert len(_rows(page, "1,234 quarantined files")) == 200
    assert "1,034 more rows are not shown." in page.text()
    assert "150 classes is too large" in page.text()
    assert len(_rows(page, "Most frequent confusions")) == 20
    metrics = artifacts.read_metrics()["per_class"]
    shown = {row[0] for row in _rows(page, "Metrics of the 100 classes with the lowest F1")}
    hidden = set(names) - shown
    assert max(metrics[c]["f1_score"] for c in shown) <= min(metrics[c]["f1_score"] for c in hidden)
    gallery = read_json(artifacts.EXPLANATIONS / "gallery.json")["images"]
    assert sum(entry["outcome"] == "right" for entry in gallery) > 40
    assert len([values for values, _ in page.all("img")]) <= 3 * (40 + 40 + 8) + 4 + 2 * (40 + 1)


def test_a_crowded_gallery_keeps_every_class():
    entries = [Explanation(str(i), i, i // 5, i // 5, 1.0, "right", i // 5, "", i) for i in range(50)]
    kept = some_of_each_class(entries, 12)
    assert len(kept) == 12
    assert {entry.label for entry in kept} == set(range(10))
    assert [entry.row for entry in kept] == sorted(entry.row for entry in kept)
    assert some_of_each_class(entries, 50) == entries


@pytest.mark.parametrize(
    "missing", ["data/raw/card.json", "evaluation/curves/roc.csv", "explanations/overlays/00000.png"]
)
@pytest.mark.slow
def test_a_missing_artifact_is_named_and_the_old_page_stays(tmp_path, monkeypatch, missing):
    page = make(tmp_path, monkeypatch, Scene(epochs=2))
    Path(missing).unlink()
    with pytest.raises(DataError, match=re.escape(missing)):
        run(Scene(epochs=2))
    assert artifacts.REPORT.read_text("utf-8") == page


@pytest.mark.slow
def test_curves_of_other_classes_are_refused(tmp_path, monkeypatch):
    make(tmp_path, monkeypatch, Scene(epochs=2))
    path = artifacts.CURVES / "confusion.csv"
    path.write_text(path.read_text("utf-8").replace("9,9", "9,nine"), "utf-8")
    with pytest.raises(DataError, match=r"nine.*not a class"):
        run(Scene(epochs=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gallery_columns": 0}, "report.gallery_columns: got 0, expected an integer in [1, 8]"),
        ({"title": " "}, "report.title: got ' ', expected some text"),
        ({"titel": "x"}, "Did you mean report.title?"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=re.escape(message)):
        run(Scene(sections={"report": changes}))


def test_all_sections_that_shape_a_result_are_read():
    assert set(report.SECTIONS) == set(load_params(ROOT / "params.yaml")) - set(EXECUTION_SECTIONS)


@pytest.mark.slow
def test_the_stage_runs_as_a_process_without_torch(tmp_path, monkeypatch):
    scene = Scene(sections={"tracking": {"mode": "off"}})
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "requirements.lock"):
        (tmp_path / name).touch()
    (tmp_path / "params.yaml").write_text(json.dumps(settings_values(scene)), "utf-8")
    monkeypatch.chdir(tmp_path)
    write_artifacts(scene)
    ensure_checked(settings_values(scene))  # as an earlier stage has done; the check imports everything
    code = (
        "import runpy, sys; runpy.run_module('retinue.stages.report', run_name='__main__');"
        "print(sorted(name for name in sys.modules if '.' not in name))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "DVC_STAGE": "report"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "report: report/index.html" in done.stdout
    assert not MACHINERY & set(re.findall(r"'(\w+)'", done.stdout.splitlines()[-1]))
    assert artifacts.REPORT.read_text("utf-8") == run(scene)


def _cells() -> list[artifacts.ConfusionCell]:
    return read_table(artifacts.CURVES / "confusion.csv", artifacts.ConfusionCell)


def _table(page: Page, caption: str) -> list[list[str]]:
    """The rows of the one table whose caption begins so, each a list of its cells."""
    rows: list[list[str]] = []
    row: list[str] = []
    name, found = "", []
    for tag, _, text in page.elements:
        if tag == "caption":
            name, rows = text, []
        elif tag in ("th", "td"):
            row.append(re.sub(r"\s+", " ", text))
        elif tag == "tr":
            rows.append(row)
            row = []
        elif tag == "table" and re.sub(r"\s+", " ", name).startswith(caption):
            found.append(rows)
    assert len(found) == 1, f"{len(found)} tables are called {caption!r}"
    return found[0]


def _heads(page: Page, caption: str) -> list[str]:
    return _table(page, caption)[0]


def _rows(page: Page, caption: str) -> list[list[str]]:
    return _table(page, caption)[1:]


@pytest.mark.slow
def test_the_network_is_described(tmp_path, monkeypatch):
    page = Page(make(tmp_path, monkeypatch, Scene()))
    text = page.text()
    assert "LeNet5 for images of 1×32×32" in text
    assert "Its initial weights were drawn from the seed." in text
    size = dict(_rows(page, "Size"))
    # 6·(25 + 1) + 16·(150 + 1) + 120·(400 + 1) + 84·(120 + 1) + 10·(84 + 1)
    assert size["parameters"] == "61,706 (61.7 k)"
    # 28²·6·25 + 10²·16·150 + 400·120 + 120·84 + 84·10
    assert size["multiply-adds per image (convolutions, matrix products)"].startswith("416,520")
    layers = _rows(page, "Layers, in the order of computation")
    assert [row[0] for row in layers if row[4]] == [
        *("features.c1", "features.c3", "classifier.c5", "classifier.f6", "classifier.output")
    ]
    assert [row[2] for row in layers][:3] == ["6×28×28", "6×28×28", "6×14×14"]
    memory = {
        name: int(value.split(" (")[0].replace(",", ""))
        for name, value in _rows(page, "Memory of a training step of 32 images")
    }
    assert memory["optimizer state"] == 2 * memory["parameters"] == 2 * 4 * 61_706


@pytest.mark.slow
def test_initial_weights_are_reported(tmp_path, monkeypatch):
    make(tmp_path, monkeypatch, Scene())
    bundle = read_json(artifacts.MODEL / "bundle.json")
    bundle["training"]["initial_weights"] = {
        "name": "imagenet",
        "sha256": "0123456789abcdef" * 4,
        "loaded": 50,
        "adapted": ["features.0.weight"],
        "skipped": ["fc.weight", "fc.bias"],
    }
    write_json(artifacts.MODEL / "bundle.json", bundle)
    page = Page(run(Scene()))
    assert (
        "It started from weights=imagenet (SHA-256 0123456789ab…): 50 tensors loaded; adapted to the input channels: "
        "features.0.weight; skipped: fc.weight, fc.bias." in page.text()
    )
