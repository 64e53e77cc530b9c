"""Acquire and preprocess decode each image once, and a bounded number of them again for pictures."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageFile

from compositions import compose
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Sample
from retinue.pipeline.files import read_table
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages import acquire, preprocess

PHOTOS, SHORT = 60, 40  # an image is told by its width, SHORT + 20 + number
SHEET = 6  # images on the sheet of what the network sees, each decoded for its original and for its square
SETTINGS = (
    *("source=image_folder", "source.path=photos", "preprocess=rgb224", "preprocess.image_size=24"),
    *("preprocess.resize=28", "preprocess.statistics=train", "trainer.num_workers=0", "trainer.progress_bar=false"),
)
ENDINGS = ("jpg", "png", "tif")


class Decodings:
    """How often pixels were decoded: `images` by the width of an image, `masks` (the files of Pillow's mode L)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.images, self.masks = Counter[int](), Counter[int]()
        decode_jpeg, load = simplejpeg.decode_jpeg, ImageFile.ImageFile.load

        def counted_jpeg(data: bytes, *args: Any, **options: Any) -> Any:
            self.images[simplejpeg.decode_jpeg_header(data)[1]] += 1
            return decode_jpeg(data, *args, **options)

        def counted_load(image: ImageFile.ImageFile) -> Any:
            if image.tile:  # what is still to be decoded
                (self.masks if image.mode == "L" else self.images)[image.width] += 1
            return load(image)

        monkeypatch.setattr(simplejpeg, "decode_jpeg", counted_jpeg)
        monkeypatch.setattr(ImageFile.ImageFile, "load", counted_load)

    def of(self, stage: Any, *overrides: str) -> tuple[Counter[int], Counter[int]]:
        """Runs a stage: the decodings of images and of masks in it."""
        self.images.clear(), self.masks.clear()
        stage.run(Settings(compose([*SETTINGS, *overrides]), stage.SECTIONS), Tracker(None))
        return self.images.copy(), self.masks.copy()


@pytest.fixture
def decodings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decodings:
    """Sixty photographs of two classes, a third each JPEG, PNG and TIFF, no two of one width."""
    monkeypatch.chdir(tmp_path)
    for i in range(PHOTOS):
        rng = np.random.default_rng(i)
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path = Path("photos") / ("good", "crack")[i % 2] / f"{i:02d}.{ENDINGS[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((SHORT + 20 + i, SHORT), Image.Resampling.BICUBIC).save(path)
    return Decodings(monkeypatch)


def write_masks() -> None:
    """A mask for each image of the class crack; those of the class good have none, as in sets of defects."""
    for path in Path("photos/crack").iterdir():
        mask = np.zeros((SHORT, Image.open(path).width), np.uint8)
        mask[10:20, 5:50] = 255
        place = Path("photos/masks/crack") / f"{path.stem}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(place)


def write_boxes() -> None:
    """The same as files of boxes, which tell nothing of the size of their image."""
    for path in Path("photos/crack").iterdir():
        place = Path("photos/labels/crack") / f"{path.stem}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("0 0.5 0.5 0.4 0.4\n", "utf-8")


def check_each_once(images: Counter[int], again: int) -> None:
    """Every image was decoded, and all of them together `again` times more than once each."""
    assert set(images) == {SHORT + 20 + i for i in range(PHOTOS)}
    assert images.total() == PHOTOS + again


def test_images_without_masks(decodings: Decodings) -> None:
    images, masks = decodings.of(acquire)
    shown = len(list(artifacts.ORIGINALS.iterdir()))
    assert 16 <= shown <= 24  # eight of each class, and the few that stand out
    check_each_once(images, again=shown)
    assert max(images.values()) <= 2
    images, more = decodings.of(preprocess)
    check_each_once(images, again=2 * min(SHEET, 2))  # the first training image of either class
    assert not masks + more


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_masks_are_decoded_once_and_no_image_for_the_want_of_one(fit: str, decodings: Decodings) -> None:
    """A crop needs all masks, to tell what it cuts off; without one those of the test split are enough."""
    write_masks()
    settings = ("source.masks=masks/{path}.png", f"preprocess.fit={fit}")
    images, masks = decodings.of(acquire, *settings)
    check_each_once(images, again=len(list(artifacts.ORIGINALS.iterdir())))
    assert not masks
    images, masks = decodings.of(preprocess, *settings)
    check_each_once(images, again=4)
    tested = {s.image_id for s in read_table(artifacts.PROCESSED / "test" / artifacts.MANIFEST, Sample)}
    wanted = [p for p in Path("photos/crack").iterdir() if fit == "crop" or f"crack/{p.name}" in tested]
    # One more where the image that is asked first whether there are masks at all has one.
    assert 0 < len(wanted) <= masks.total() <= len(wanted) + 1
    assert len(masks) == len(wanted)


def test_boxes_need_no_second_decoding_of_their_images(decodings: Decodings) -> None:
    write_boxes()
    settings = ("source.masks=labels/{path}.txt",)
    decodings.of(acquire, *settings)
    images, masks = decodings.of(preprocess, *settings)
    check_each_once(images, again=4)
    assert not masks
