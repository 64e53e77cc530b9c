"""Masks of a folder: where they lie, what their pixels say, and their way to the store of the test split."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compositions import compose
from retinue.engine.store import ImageStore
from retinue.images.limits import USUAL_LIMITS
from retinue.images.masks import decode_mask, mask_of_boxes
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Sample
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_table
from retinue.pipeline.settings import Settings, build
from retinue.pipeline.tracker import Tracker
from retinue.sources.boxes import Box, boxes_in
from retinue.sources.image_folder import ImageFolder
from retinue.stages import acquire, preprocess

SIDE = 24
SHAPE = np.zeros((SIDE, SIDE), bool)
SHAPE[3:9, 4:20] = True


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette(indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    return image


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(np.uint8(255) * SHAPE)),
        encoded(Image.fromarray(SHAPE.astype(np.uint8))),
        encoded(Image.fromarray(SHAPE)),
        encoded(Image.fromarray(SHAPE.astype(np.uint16))),
        encoded(Image.fromarray(SHAPE.astype(np.uint8) * np.uint8(7)), "TIFF"),
        encoded(palette(SHAPE * 2)),
        encoded(Image.fromarray(np.uint8(255) * SHAPE).convert("RGB"), "BMP"),
        encoded(Image.fromarray(np.uint8(255) * SHAPE), "JPEG", quality=95),
    ],
    ids=["0 and 255", "0 and 1", "1 bit", "16 bit, 0 and 1", "TIFF, 0 and 7", "palette", "colours", "JPEG"],
)
def test_what_is_not_black_is_the_mask(data: bytes) -> None:
    found = decode_mask(data, USUAL_LIMITS)
    assert found.dtype == bool
    assert np.array_equal(found, SHAPE)


def photos(root: Path, masks: str) -> None:
    """Two classes of ten images, gray noise; those of "bad" have a mask, the name of which `masks` makes."""
    for number in range(20):
        folder, stem = ("bad", "good")[number % 2], f"{number:02d}"
        path = root / folder / f"{stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        path.write_bytes(encoded(Image.fromarray(pixels), "JPEG", quality=95))
        if folder == "bad":
            mask = root / masks.format(path=f"{folder}/{stem}", stem=stem, folder=folder)
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(255) * np.roll(SHAPE, number // 2, 0)).save(mask)


def settings_for(masks: str | None, **changes: Any) -> dict[str, Any]:
    values = compose(
        [
            *("source=image_folder", "source.path=photos", "trainer.num_workers=0", "preprocess=rgb224"),
            *(f"preprocess.image_size={SIDE}", f"preprocess.resize={SIDE}", "preprocess.statistics=train"),
        ]
    )
    return {**values, "source": {**values["source"], "masks": masks, **changes}}


@pytest.mark.parametrize("masks", ["masks/{path}.png", "{path}_mask.png", "{path}.png", "truth/{folder}/{stem}_m.png"])
@pytest.mark.slow
def test_masks_of_a_folder_go_to_the_store_of_the_test_split(
    masks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", masks)
    values = settings_for(masks)
    for stage in (acquire, preprocess):
        stage.run(Settings(values, stage.SECTIONS), Tracker(None))
    assert artifacts.read_dataset().classes == ("bad", "good")
    test = artifacts.PROCESSED / "test"
    samples, store = read_table(test / artifacts.MANIFEST, Sample), ImageStore(test / artifacts.MASKS)
    assert {sample.label for sample in samples} == {0, 1}
    for row, sample in enumerate(samples):
        number = int(Path(sample.image_id).stem)
        expected = np.zeros_like(SHAPE) if sample.label == 1 else np.roll(SHAPE, number // 2, 0)
        assert np.array_equal(store[row][..., 0] == 255, expected)


def test_masks_for_a_csv(tmp_path: Path) -> None:
    photos(tmp_path, "masks/{path}.png")
    (tmp_path / "labels.csv").write_text("image,label\nbad/00.jpg,x\ngood/01.jpg,y\n")
    section = settings_for("masks/{path}.png", path=str(tmp_path), inputs=str(tmp_path), labels_csv="labels.csv")[
        "source"
    ]
    source: ImageFolder = build(section, where="source")
    assert len(source.records()) == 2
    assert np.array_equal(source.mask("bad/00.jpg"), SHAPE)
    none = source.mask("good/01.jpg")
    assert none is not None
    assert (none.shape, none.dtype, none.any()) == ((SIDE, SIDE), bool, False)
    wrong: ImageFolder = build({**section, "masks": "mask/{path}.png"}, where="source")
    with pytest.raises(DataError, match=r"source\.masks: got 'mask/\{path\}\.png': no image of the table has a mask"):
        wrong.records()


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    photos(tmp_path, "masks/{path}.png")
    section = settings_for("masks/{path}.png", path=str(tmp_path), inputs=str(tmp_path))["source"]
    source: ImageFolder = build(section, where="source")
    (tmp_path / "masks/bad/00.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"^masks/bad/00\.png, the mask of bad/00\.jpg: .*\."):
        source.mask("bad/00.jpg")
    (tmp_path / "masks/bad/02.png").unlink()
    (tmp_path / "masks/bad/02.png").symlink_to("nowhere.png")
    with pytest.raises(OSError, match="a broken link"):
        source.mask("bad/02.jpg")
    assert build({**section, "masks": None}, where="source").mask("bad/00.jpg") is None


VOC = "<a><object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></a>"


def test_boxes_of_yolo_and_voc_are_masks(tmp_path: Path) -> None:
    """The mask is x from 4 to 20 and y from 3 to 9 of 24 px: centre (12, 6), 16 wide, 6 high."""
    photos(tmp_path, "masks/{path}.png")
    for ending, text in (
        ("txt", f"0 0.5 0.25 {16 / 24} 0.25\n\n"),
        ("xml", VOC.format(5, 4, 20, 9)),
    ):
        path = tmp_path / f"labels/bad/00.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (tmp_path / "labels/bad/02.txt").write_text("")
        section = settings_for(f"labels/{{path}}.{ending}", path=str(tmp_path), inputs=str(tmp_path))["source"]
        source: ImageFolder = build({**section, "folders": ["class"]}, where="source")
        assert np.array_equal(source.mask("bad/00.jpg"), SHAPE)
        for empty in ("bad/02.jpg", "good/01.jpg"):
            mask = source.mask(empty)
            assert mask is not None
            assert (mask.shape, mask.any()) == ((SIDE, SIDE), False)
        (tmp_path / f"labels/bad/04.{ending}").write_text("7 0.5 0.5 2 0.1")
        with pytest.raises(DataError, match=rf"^labels/bad/04\.{ending}, the mask of bad/04\.jpg: "):
            source.mask("bad/04.jpg")


@pytest.mark.parametrize(
    ("text", "ending", "message"),
    [
        ("0 0.5 0.5 0.1", "txt", "line 1: expected class, centre x"),
        ("\n0 0.5 0.5 0.1 nan", "txt", "line 2: expected class, centre x"),
        ("<annotation>", "xml", "not valid XML"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><annotation/>", "xml", "with declarations"),
        (VOC.format(9, 1, 2, 2), "xml", "box 1: expected"),
        (VOC.format(1, 1, "nan", 2), "xml", "box 1: expected"),
        ("<a><object><bndbox/></object></a>", "xml", "box 1: expected numbers xmin, ymin, xmax, ymax"),
        (" " * (2**20 + 1), "txt", "1048577 bytes of boxes"),
    ],
)
def test_what_holds_no_boxes_is_told(text: str, ending: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        boxes_in(text.encode(), ending, 10, 10)


def test_a_box_is_cut_at_the_edges_of_the_image() -> None:
    assert mask_of_boxes([Box(-5, -5, 2, 1.4), Box(3.5, 2, 99, 3)], 3, 5).astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1],
    ]
