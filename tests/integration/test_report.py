"""The report stage: what is on the page is what is in the artifacts, whole, safe, and the same bytes every time."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from report_artifacts import BINARY, ROOT, Scene, settings_values, write_artifacts
from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import DroppedImage, Explanation, LabelConflict, LeakedPair, Leaks, Quarantined
from retinue.pipeline.checked import ensure_checked
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.files import read_json, read_table, write_json
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import EXECUTION_SECTIONS, Settings
from retinue.pipeline.tracker import Tracker
from retinue.reports.gallery import some_of_each_class
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


def test_every_section_and_every_image_is_there(tmp_path, monkeypatch):
    scene = Scene(quarantine=[Quarantined("a/b.gif", "3", "not an image")])
    page = Page(make(tmp_path, monkeypatch, scene))
    ids = [values["id"] for values, _ in page.all("section")]
    assert [values["href"].removeprefix("#") for values, _ in page.all("a") if "href" in values][1:] == ids
    assert _rows(page, "1 quarantined file") == [["a/b.gif", "3", "not an image"]]
    gallery = read_json(artifacts.EXPLANATIONS / "gallery.json")["images"]
    alts = [values["alt"] for values, _ in page.all("img")]
    # and the sheets of preprocessing and augmentation; of the data, an outlier in both forms, and 4 training images of
    # each of 10 classes, of which one has a copy of the original
    assert len(alts) == 2 * len(gallery) + 2 + 2 + (4 * 10 + 1)
    assert {entry["outcome"] for entry in gallery} == {"right", "wrong", "confident_error"}
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
    assert all(values["alt"].endswith(ends) for values, _ in page.all("img"))


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
    assert "3 copies of images in a later split are left out." in text


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
    assert len(charts) == 7
    assert all(len(values["aria-label"]) > 30 for values in charts)
    skip = next(values for values, _ in page.all("a") if values.get("class") == "skip")
    assert skip["href"] == "#main"
    assert [values for values, _ in page.all("main")] == [{"id": "main"}]


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
    assert page.text().count("50 more rows are not shown.") == 2
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
    assert len([values for values, _ in page.all("img")]) <= 2 * (40 + 40 + 8) + 2 + 2 * (40 + 1)


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
def test_a_missing_artifact_is_named_and_the_old_page_stays(tmp_path, monkeypatch, missing):
    page = make(tmp_path, monkeypatch, Scene(epochs=2))
    Path(missing).unlink()
    with pytest.raises(DataError, match=re.escape(missing)):
        run(Scene(epochs=2))
    assert artifacts.REPORT.read_text("utf-8") == page


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
