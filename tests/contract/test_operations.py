"""What every operation must be: declared in full, documented, and the same pixels wherever images are prepared."""

import hashlib
import io
import json
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

from retinue.bundle import Bundle
from retinue.images.operations.chain import FILES, Chain
from retinue.images.operations.operation import OPERATIONS, RGB, Operation
from retinue.images.preprocessing import Preprocessing
from retinue.models.lenet5 import LeNet5
from retinue.pipeline.artifacts import Dataset, RawImage
from retinue.pipeline.errors import ModelError
from retinue.pipeline.ranges import range_of, shown
from retinue.sources.source import Source, SourceRecord
from retinue.sources.source_images import SourceImages

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "preprocessing.md"
NEEDED = {"filter2d": {"kernel": [[1, 2, 1]], "divisor": 4}}
"""Of operations that do not work without arguments, some."""

BEFORE = {"hsv_to_rgb": "hsv", "lab_to_rgb": "lab"}


def chain_of(found: Operation) -> tuple[list[dict[str, Any]], int]:
    """A chain with the operation, and the channels of images it takes."""
    entry = {"name": found.name, **NEEDED.get(found.name, {})}
    if found.name in BEFORE:
        return [{"name": BEFORE[found.name]}, entry], 3
    return [entry], 3 if RGB in found.takes else 1


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Given(Source):
    """Images that are there already."""

    files: Any

    def records(self) -> list[SourceRecord]:
        return [SourceRecord(name, "a") for name in self.files]

    def read(self, image_id: str) -> bytes:
        return self.files[image_id]  # type: ignore[no-any-return]

    def card(self) -> dict[str, str]:
        return {}


def encoded(image: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


ALL = pytest.mark.parametrize("found", OPERATIONS.values(), ids=list(OPERATIONS))


def test_every_file_is_imported_and_has_operations() -> None:
    folder = ROOT / "src" / "retinue" / "images" / "operations"
    names = {path.stem for path in folder.glob("*.py")} - {"__init__", "operation", "chain"}
    assert {module.__name__.rpartition(".")[2] for module in FILES} == names
    assert {found.function.__module__ for found in OPERATIONS.values()} == {module.__name__ for module in FILES}


@ALL
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_stages_and_bundle_make_the_same_pixels(found: Operation, fit: str) -> None:
    """What preprocess stores, what a bundle predicts on, and what the document of either says."""
    steps, channels = chain_of(found)
    scale = (0.5,) * channels
    preprocessing = Preprocessing(24, 28, channels, scale, scale, fit, "9", Chain(steps, channels).entries())
    files = {"a.png": encoded(photograph(37, 50), "PNG"), "b.jpg": encoded(photograph(130, 90, 1), "JPEG")}
    rows = [
        RawImage(name, "a", "", "", hashlib.sha256(data).hexdigest(), len(data), *size, "RGB", name[2:])
        for (name, data), size in zip(files.items(), [(50, 37), (90, 130)], strict=True)
    ]
    source = Given("given", "", ["PNG", "JPEG"], 0.0, files)
    nothing = np.zeros(2, bool)
    stored = SourceImages(source, rows, ~nothing, nothing, nothing, preprocessing).__getitems__([(0, 0), (1, 1)])
    assert stored["problem"] == ""
    document = {
        "name": "given",
        "classes": ["a", "b"],
        "counts": {},
        "image_size": 24,
        "resize": 28,
        "channels": channels,
        "mean": scale,
        "std": scale,
        "fit": fit,
        "fill": "9",
        "steps": preprocessing.steps,
    }
    dataset = Dataset.from_document(json.loads(json.dumps(document)), "dataset")
    bundle = Bundle(LeNet5(channels, 1, 24), {}, dataset, {})
    (predicted,) = bundle.batches([*files.values()], batch_size=2)
    assert torch.equal(predicted, stored["images"])
    plain = replace(preprocessing, steps=())
    once = [Chain(steps, channels)(plain.load(data)) for data in files.values()]
    assert np.array_equal(stored["images"].numpy(), np.stack(once))


@ALL
@pytest.mark.parametrize("side", [1, 2, 5, 24])
def test_any_square_keeps_its_size_and_is_left_as_it_was(found: Operation, side: int) -> None:
    steps, channels = chain_of(found)
    chain = Chain(steps, channels)
    for image in (photograph(side, side)[:, :, :channels], np.zeros((side, side, channels), np.uint8)):
        image = np.ascontiguousarray(image)
        before = image.copy()
        made = chain(image)
        assert (made.shape, made.dtype) == (image.shape, np.uint8)
        assert np.array_equal(image, before)
        assert np.array_equal(chain(image), made)
        assert [each.dtype for each in chain.stages(image)] == [np.uint8] * len(steps)


@ALL
def test_every_argument_has_a_range_and_a_default_in_it(found: Operation) -> None:
    for argument in fields(found.schema):
        limits = range_of(argument)
        kind = get_type_hints(found.schema)[argument.name]
        assert kind is bool or limits.choices or limits.bounds(), f"{found.name}.{argument.name} has no range"
        if argument.default is not MISSING:
            assert limits.holds(argument.default), f"{found.name}.{argument.name}: its default is out of its range"
    assert found.summary.endswith("."), f"{found.name}: the docstring does not begin with a sentence"


def row_of(found: Operation) -> str:
    hints = get_type_hints(found.schema)
    arguments = [
        f"`{each.name}` {range_of(each).words(hints[each.name])}"
        + (
            ""
            if each.default is MISSING
            else f" (default {each.default if isinstance(each.default, str) else shown(each.default)})"
        )
        for each in fields(found.schema)
    ]
    spaces = f"{', '.join(found.takes)} → {found.gives or 'the same'}"
    return f"| `{found.name}` | {found.summary} | {spaces} | {'; '.join(arguments)} |"


@ALL
def test_the_page_has_each_operation_with_its_arguments(found: Operation) -> None:
    assert row_of(found) in PAGE.read_text("utf-8").splitlines(), f"put this row into {PAGE}:\n{row_of(found)}"


def test_the_page_has_no_other_operation() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `") and "→" in line]
    assert rows == [row_of(found) for found in OPERATIONS.values()]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"name": "os.system", "command": "true"}], "steps[0].name: got 'os.system'"),
        ([{"name": "blur", "kernel_size": 10**6}], "steps[0].kernel_size: got 1000000, expected an odd integer"),
        ([{"name": "otsu"}], "an operation of rgb images"),
        ([{"name": "negative"}] * 65, "steps: got 65 operations, expected at most 64"),
        (["blur"], "bundle.dataset.steps[0]: got 'blur', expected a mapping"),
        ({"name": "blur"}, "bundle.dataset.steps: got {'name': 'blur'}, expected a list"),
    ],
)
def test_operations_in_a_foreign_bundle_are_refused(steps: Any, message: str, tmp_path: Path) -> None:
    dataset = Dataset("d", ("a", "b"), {}, 32, 32, 3, (0.5,) * 3, (0.5,) * 3)
    model = {"name": "lenet5", "module": "lenet5", "_target_": "retinue.models.lenet5.LeNet5"}
    Bundle(LeNet5(3, 1, 32), model, dataset, {}).save(tmp_path)
    path = tmp_path / "bundle.json"
    document = json.loads(path.read_text("utf-8"))
    document["dataset"]["steps"] = steps
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(ModelError) as refusal:
        Bundle.load(tmp_path)
    assert message in str(refusal.value)
