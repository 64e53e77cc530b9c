"""What of each image reaches the network: told by preprocess, kept beside the stores, said in the report's verdict."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compositions import compose
from report_artifacts import BINARY, write_artifacts
from retinue.bundle import Bundle
from retinue.engine.store import ImageStore
from retinue.images.preprocessing import Preprocessing
from retinue.models.lenet5 import LeNet5
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import SPLITS, RawImage, RawLevels, Sample, Seen
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.files import read_table, write_json
from retinue.pipeline.settings import Settings, build
from retinue.pipeline.tracker import Tracker
from retinue.reports.data_tables import data_card
from retinue.reports.inputs import ReportInputs
from retinue.reports.seen import seen_section
from retinue.reports.verdict import verdict_points
from retinue.stages import acquire, preprocess

SIDE = 64
VALUES = compose(
    [
        *("source=surfaces", "source.images_per_class=10", f"source.image_size={SIDE}", "preprocess=rgb224"),
        *("preprocess.statistics=train", "trainer.num_workers=0", "trainer.progress_bar=false"),
    ]
)
STEPS = [{"name": "gray"}, {"name": "median_blur"}, {"name": "otsu"}]


def run(**changes: Any) -> Seen:
    values = {**VALUES, "preprocess": {**VALUES["preprocess"], **changes}}
    for stage in (acquire, preprocess):
        stage.run(Settings(values, stage.SECTIONS), Tracker(None))
    return artifacts.read_seen()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_objects_that_the_crop_cuts_off_are_counted_and_pad_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    """The middle 12 px of 64 are kept; the masks say what is left of each defect there."""
    source = build(VALUES["source"], where="source")
    seen = run(image_size=12, resize=64)
    said = capsys.readouterr()
    masks = {record.image_id: source.mask(record.image_id) for record in source.records()}
    shares = {name: mask[26:38, 26:38].sum() / mask.sum() for name, mask in masks.items() if mask.any()}
    lost = [name for name, share in shares.items() if share == 0]
    mostly = [name for name, share in shares.items() if 0 < share < 0.5]
    assert lost
    assert mostly
    assert (seen.images, seen.marked) == (len(masks), len(shares))
    assert (seen.lost, seen.mostly_lost) == (len(lost), len(mostly))
    assert set(seen.lost_images) <= {*lost, *mostly}
    assert seen.cropped_mean == seen.cropped_largest == pytest.approx(1 - 12**2 / 64**2)
    assert "cropped away: 96.5 % of an image on the average, at most 96.5 %" in said.out
    expected = f"of {len(shares)} images with a mask {len(lost)} keep none of what it marks and {len(mostly)} less"
    assert expected in said.err
    assert {path.name for path in artifacts.PROCESSED.iterdir()} == {
        "dataset.json",
        "leaks.json",
        "held_out.npy",
        "seen",
        *SPLITS,
    }

    whole = run(image_size=64, fit="pad", resize=1)
    assert (whole.cropped_largest, whole.lost, whole.mostly_lost) == (0, 0, 0)
    assert "warning" not in capsys.readouterr().err
    stored = ImageStore(artifacts.PROCESSED / "test" / "masks")
    samples = read_table(artifacts.PROCESSED / "test" / "manifest.csv", Sample)
    for row, sample in enumerate(samples):
        assert np.array_equal(stored[row][..., 0] > 0, masks[sample.image_id])


@pytest.mark.parametrize("fit", ["pad", *(pytest.param(fit, marks=pytest.mark.slow) for fit in ("crop", "stretch"))])
def test_every_split_and_the_bundles_preprocessing_take_the_operations(fit: str) -> None:
    run(image_size=24, resize=28, fit=fit, fill="edge", steps=STEPS)
    dataset = artifacts.read_dataset()
    assert dataset.steps == (
        {"name": "gray"},
        {"name": "median_blur", "kernel_size": 3},
        {"name": "otsu", "inverted": False},
    )
    source, preprocessing = build(VALUES["source"], where="source"), Preprocessing.from_dataset(dataset)
    for name in SPLITS:
        store = ImageStore(artifacts.PROCESSED / name)
        samples = read_table(artifacts.PROCESSED / name / "manifest.csv", Sample)
        for row, sample in enumerate(samples[:4]):
            assert np.array_equal(store[row], preprocessing.load(source.read(sample.image_id)))
            assert set(np.unique(store[row])) <= {0, 255}
    with Image.open(artifacts.SEEN_SHEET) as sheet:
        tiles = len(dataset.classes), 2 + len(STEPS)
        assert sheet.size == (104 + tiles[1] * 134, 24 + tiles[0] * 134)


def test_an_operation_that_moves_things_is_refused_where_there_are_masks() -> None:
    with pytest.raises(DataError, match=r"preprocess\.steps: deskew moves what is in an image, and the masks of "):
        run(image_size=24, resize=28, steps=[{"name": "deskew"}])


def test_the_report_says_what_was_lost() -> None:
    write_artifacts(BINARY)
    inputs = ReportInputs.read()
    assert not any("crop" in point for point in verdict_points(inputs))
    assert ["cropped away", "nothing"] in data_card(inputs.card, inputs.levels, inputs.dataset, inputs.seen).rows
    assert seen_section(inputs)["steps"] is None
    lost = Seen(1000, 0.1725, 0.4, 388, 163, 41, ("cut/01.png",))
    write_json(artifacts.SEEN_SHARES, {**vars(lost)})
    inputs = ReportInputs.read()
    (point,) = (each for each in verdict_points(inputs) if "preprocess.fit=pad" in each)
    assert "nothing of what the source marks in 163 of 388 images" in point
    assert "less than half of it in 41 more" in point
    rows = dict(data_card(inputs.card, inputs.levels, inputs.dataset, inputs.seen).rows)
    assert rows["cropped away"] == "17.2 % of an image on the average, at most 40 %"
    assert rows["stored as"] == "112 × 112 px, RGB, the centre of a shorter side of 128 px"


def test_a_photograph_is_cropped_as_its_shape_says(here: Path) -> None:
    """A source without masks: shares alone."""
    for i in range(16):
        path = here / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (40, 80 if i else 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    values = compose(["source=image_folder", "source.path=photos", "trainer.num_workers=0", "preprocess=gray32"])
    for stage in (acquire, preprocess):
        stage.run(Settings(values, stage.SECTIONS), Tracker(None))
    seen = artifacts.read_seen()
    assert len(read_table(artifacts.RAW / "manifest.csv", RawImage)) == seen.images == 16
    assert (seen.cropped_mean, seen.cropped_largest) == pytest.approx(((15 * 0.5 + 0.75) / 16, 0.75))
    assert (seen.marked, seen.lost, seen.lost_images) == (0, 0, ())


def sixteen_bits(folder: Path, largest: int, kind: type = np.uint16) -> None:
    """Ten images of two classes in 16-bit TIFF files; the last reaches the largest value, the others less."""
    for i in range(10):
        path = folder / "ab"[i % 2] / f"{i}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.linspace(0, largest * (i + 1) / 10, 32 * 32).reshape(32, 32)
        Image.fromarray(values.astype(kind)).save(path)


def folder_run(**source: Any) -> None:
    values = compose(["source=image_folder", "source.path=photos", "trainer.num_workers=0", "preprocess=gray32"])
    values["source"] |= source
    for stage in (acquire, preprocess):
        stage.run(Settings(values, stage.SECTIONS), Tracker(None))


def levels_stored() -> int:
    """The largest value of all stored images."""
    stores = [ImageStore(artifacts.PROCESSED / name) for name in SPLITS]
    return max(int(store[row].max()) for store in stores for row in range(len(store)))


def test_a_range_that_is_mostly_unused_is_warned_of_and_auto_uses_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """255 * 2900 / 65535 is 11; of the 4095 of 12 bits it is 181."""
    sixteen_bits(here / "photos", 2900)
    folder_run()
    said = capsys.readouterr().err
    assert (
        "10 images of more than 8 bits a sample have no value above 2,900, which leaves 12 of 256 gray levels" in said
    )
    assert "source.white=auto" in said
    assert levels_stored() == 11
    assert artifacts.read_levels().white is None

    folder_run(white="auto")
    assert "warning" not in capsys.readouterr().err
    assert levels_stored() == 181
    levels = artifacts.read_levels()
    assert (levels.images, levels.largest, levels.white, levels.gray_levels) == (10, 2900, 4095, 182)
    dataset = artifacts.read_dataset()
    assert dataset.white == 4095
    photo = here / "photos/b/9.tiff"
    stored = ImageStore(artifacts.PROCESSED / "train")
    ids = [sample.image_id for sample in read_table(artifacts.PROCESSED / "train" / "manifest.csv", Sample)]
    for row, image_id in enumerate(ids):
        assert np.array_equal(stored[row], Preprocessing.from_dataset(dataset).load(here / "photos" / image_id))
    network = LeNet5(in_channels=1, num_classes=1)
    (batch,) = Bundle(network, {}, dataset, {}).batches([photo], batch_size=1)
    assert batch.max() == 181  # predicted as it was trained


def test_floating_point_images_get_their_white_from_the_data(here: Path) -> None:
    sixteen_bits(here / "photos", 1, np.float32)
    folder_run(white="auto")
    assert artifacts.read_levels().white == 1
    assert levels_stored() == 255


def test_eight_bits_need_no_white(here: Path) -> None:
    sixteen_bits(here / "photos", 200, np.uint8)
    folder_run(white="auto")
    levels = artifacts.read_levels()
    assert (levels.images, levels.largest, levels.white, levels.gray_levels) == (0, None, None, None)
    assert artifacts.read_dataset().white is None


@pytest.mark.parametrize("white", ["Auto", "0", 0, -1, True])
def test_white_is_a_number_or_auto(white: Any) -> None:
    with pytest.raises(SettingsError, match=r"source\.white: got .*, expected a number > 0 or auto or null"):
        folder_run(white=white)


def test_the_report_says_what_is_white() -> None:
    write_artifacts(BINARY)
    unused = RawLevels(10, 2900.0, None, 12, is_from_data=False)
    write_json(artifacts.LEVELS, asdict(unused))
    inputs = ReportInputs.read()
    assert any("reach 12 of 256 gray levels, the largest value being 2,900" in each for each in verdict_points(inputs))
    rows = dict(data_card(inputs.card, inputs.levels, inputs.dataset, inputs.seen).rows)
    told = "what each file declares; the largest value of 10 images is 2,900, 12 of 256 gray levels"
    assert rows["white, of more than 8 bits"] == told
