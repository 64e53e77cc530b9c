"""What `Bundle.predict` takes for images: files, folders, bytes, arrays and Pillow's images give the same numbers."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from retinue.bundle import Bundle
from retinue.models.lenet5 import LeNet5
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.errors import DataError, ModelError

DATASET = Dataset("insects", ("ant", "bee", "wasp"), {}, 32, 36, 3, (0.5,) * 3, (0.25,) * 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
PHOTO = Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    return Bundle(LeNet5(in_channels=3, num_classes=3), {}, DATASET, {})


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    PHOTO.save(tmp_path / "photos/photo.png")
    return tmp_path / "photos/photo.png"


def test_every_way_to_give_an_image_gives_the_same(bundle: Bundle, photo: Path) -> None:
    expected = bundle.predict([PIXELS]).logits
    ways: list[Any] = [photo, str(photo), photo.parent, str(photo.parent), encoded(PHOTO), PIXELS, PHOTO]
    for way in ways:
        for images in (way, [way], (way,), iter([way])):
            assert (bundle.predict(images).logits == expected).all(), way
    assert bundle.predict(ways).logits == pytest.approx(np.repeat(expected, len(ways), axis=0), abs=1e-5)


def test_one_array_is_one_image_and_several_are_stacked_as_a_list(bundle: Bundle) -> None:
    assert bundle.predict(PIXELS).logits.shape == (1, 3)
    assert bundle.predict(list(np.stack([PIXELS, PIXELS]))).logits.shape == (2, 3)
    assert bundle.predict(PIXELS[..., 0]).logits.shape == (1, 3)
    with pytest.raises(DataError, match=r"image 0: an array of uint8 \(2, 40, 50, 3\)"):
        bundle.predict([np.stack([PIXELS, PIXELS])])


def test_a_folder_stands_for_its_files_by_name(bundle: Bundle, photo: Path) -> None:
    Image.new("RGB", (40, 50), "red").save(photo.with_name("a.png"))
    photo.with_name(".DS_Store").write_bytes(b"hidden")
    (photo.parent / "inside").mkdir()
    expected = bundle.predict([photo.with_name("a.png"), photo]).logits
    assert (bundle.predict(photo.parent).logits == expected).all()


TRANSPARENT = PHOTO.copy()
TRANSPARENT.putalpha(Image.linear_gradient("L").resize(PHOTO.size))


@pytest.mark.parametrize(
    "image",
    [
        PHOTO.convert("L"),
        PHOTO.convert("1"),
        PHOTO.convert("P"),
        TRANSPARENT,
        TRANSPARENT.convert("LA"),
        Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50) * 32),
    ],
    ids=lambda image: image.mode,
)
def test_pixels_of_every_mode_are_those_of_a_file(image: Image.Image, bundle: Bundle) -> None:
    assert (bundle.predict(image).logits == bundle.predict(encoded(image)).logits).all()


def test_a_pillow_image_that_was_turned_is_turned_back(bundle: Bundle) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(encoded(PHOTO, "JPEG", exif=exif, quality=100)))
    upright = Image.open(io.BytesIO(encoded(PHOTO, "JPEG", quality=100))).transpose(Image.Transpose.ROTATE_270)
    assert (bundle.predict(turned).logits == bundle.predict(upright).logits).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "image 1: NoneType is no image"),
        (3.5, "image 1: float is no image"),
        (b"not an image", "image 1: not an image"),
        (PIXELS.astype(np.float32), r"image 1: an array of float32 \(40, 50, 3\)"),
        (torch.zeros(3, 40, 50), "image 1: Tensor is no image"),
        (PHOTO.convert("F"), "image 1: this Pillow image cannot be used .*no black and white"),
        (Image.fromarray(np.full((4, 4), 70_000, np.int32)), "image 1: .*no black and white"),
        (Image.open(io.BytesIO(encoded(PHOTO)[:3000])), r"image 1: .*cannot be used"),
        ("nothing.png", r"nothing\.png: cannot be read \(No such file"),
        (Path("\0.png"), "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_named(image: Any, message: str, bundle: Bundle) -> None:
    with pytest.raises(DataError, match=message):
        bundle.predict([PIXELS, image])


def test_an_unreadable_file_in_a_folder_is_named(bundle: Bundle, photo: Path) -> None:
    photo.with_name("notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"notes\.txt: not an image"):
        bundle.predict(photo.parent)
    (photo.parent / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no file in this folder"):
        bundle.predict(photo.parent / "empty")


def test_a_network_too_large_for_its_weights_is_never_made(bundle: Bundle, tmp_path: Path) -> None:
    """10^12 units of one layer are 12 petabytes; the weights beside it are of another network."""
    model = {"_target_": "retinue.models.mlp.MLP", "name": "mlp", "module": "mlp", "imagenet": None}
    Bundle(bundle.network, {**model, "hidden": [10**12]}, DATASET, {}).save(tmp_path)
    with pytest.raises(ModelError, match=r"weights\.safetensors: the weights do not fit the architecture"):
        Bundle.load(tmp_path)


def test_weights_of_another_kind_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    model = {"_target_": "retinue.models.lenet5.LeNet5", "name": "lenet5", "module": "lenet5", "imagenet": None}
    network = LeNet5(in_channels=3, num_classes=3)
    name, parameter = next(iter(network.named_parameters()))
    parameter.data = parameter.data.to(torch.complex64)
    Bundle(network, model, DATASET, {}).save(tmp_path)
    with pytest.raises(ModelError, match=f"{name} is of complex64, the network's is of float32"):
        Bundle.load(tmp_path)
    parameter.data = torch.full_like(parameter.data.real, torch.nan)
    Bundle(network, model, DATASET, {}).save(tmp_path)
    with pytest.raises(ModelError, match=f"{name} holds NaN or infinite values"):
        Bundle.load(tmp_path)


def test_what_cannot_be_read_is_skipped_where_asked_for(bundle: Bundle, photo: Path) -> None:
    expected = bundle.predict([PIXELS])
    broken = photo.with_name("broken.png")
    broken.write_bytes(photo.read_bytes()[:100])
    found = bundle.predict([broken, PIXELS, b"text", PIXELS], batch_size=1, skip_unreadable=True)
    assert (found.logits == np.repeat(expected.logits, 2, axis=0)).all()
    assert found.names == expected.names * 2
    assert list(found.unreadable) == [0, 2]
    assert found.unreadable[0].startswith(f"{broken}: ")
    assert bundle.predict([b"text"], skip_unreadable=True).probs.shape == (0, 3)
    assert not expected.unreadable


def test_a_bundle_is_shown_in_a_few_lines(bundle: Bundle) -> None:
    trained = {"best_epoch": 3, "monitor": "val/log_loss", "value": 0.25}
    shown = str(Bundle(bundle.network, {"name": "lenet5"}, DATASET, trained))
    assert shown.splitlines() == [
        "lenet5, val/log_loss 0.2500",
        "3 classes: ant, bee, wasp",
        "images: 32 px, RGB, crop of 36 px",
        "decides at 0.5, temperature 1",
    ]
