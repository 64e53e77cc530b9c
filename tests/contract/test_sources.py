"""What every source in conf/source must offer: the same files, in the same order, with the same bytes, labelled."""

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from choices import MISSING, choices_of
from compositions import compose
from retinue.pipeline.artifacts import SPLITS
from retinue.pipeline.errors import DataError
from retinue.pipeline.settings import Settings, build
from retinue.pipeline.tracker import Tracker
from retinue.sources.source import Source, SourceRecord
from retinue.stages import acquire
from small_sets import is_from_the_web, small_files, with_files

READ = 40
"""How many images of a source are decoded, spread over all of them."""


@pytest.fixture(scope="module", params=choices_of("source"))
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The section `source` of a choice; where it wants a path, or one that is not there, that of two classes.

    What is on the web is replaced by small files of the same names and formats, in a folder.
    """
    section = compose([f"source={request.param}"])["source"]
    if is_from_the_web(section):
        return at_hand(section, request.param, tmp_path_factory.mktemp("published"))
    wanted = {key for key, value in section.items() if value == MISSING}
    if "path" in section and not Path(section["path"]).exists():
        wanted.add("path")
    if not wanted:
        return section
    folder, table = tmp_path_factory.mktemp("source"), ["image,label\n"]
    for index in range(8):
        path = folder / "ab"[index % 2] / f"{index}.{'png' if index < 4 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20 + index, 24), (30 * index, 90, 200)).save(path)
        table.append(f"{path.relative_to(folder)},{path.parent.name}\n")
    if "table" in wanted:
        (folder / "labels.csv").write_text("".join(table))
    if section["module"] == "shards":
        with tarfile.open(folder / "images.tar", "w") as shard:
            for path in sorted(folder.glob("*/*.*")):
                shard.add(path, path.relative_to(folder))
                path.with_suffix(".cls").write_text(path.parent.name)
                shard.add(path.with_suffix(".cls"), path.with_suffix(".cls").relative_to(folder))
    if section["module"] == "archive":
        archive = shutil.make_archive(str(folder), "zip", folder)
        return {key: archive if key in wanted else value for key, value in section.items()}
    given = {key: str(folder) for key in wanted} | ({"table": "labels.csv"} if "table" in wanted else {})
    return {**section, **given}


def at_hand(section: dict[str, Any], choice: str, folder: Path) -> dict[str, Any]:
    files = small_files(choice)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {**with_files(section, files, "https://host"), "path": str(folder), "inputs": str(folder)}


@pytest.fixture(scope="module")
def source(settings: dict[str, Any]) -> Source:
    return build(settings, where="source")


@pytest.fixture(scope="module")
def records(source: Source) -> list[SourceRecord]:
    return source.records()


def test_every_file_has_an_id_of_its_own_and_a_label(records: list[SourceRecord]) -> None:
    assert len({record.image_id for record in records}) == len(records) > 1
    usable = [record for record in records if not record.problem]
    assert len({record.label for record in usable}) >= 2
    for record in usable:
        assert record.label == record.label.strip() != ""
        assert record.image_id == record.image_id.strip() != ""
        assert record.split in ("", *SPLITS), f"{record}: split is one of {SPLITS}, or empty"


def test_order_and_bytes_are_the_same_twice(
    settings: dict[str, Any], source: Source, records: list[SourceRecord]
) -> None:
    """From one object and from another, as workers and ranks have them; and read backwards."""
    another: Source = build(settings, where="source")
    assert source.records() == records == another.records()
    some = [record.image_id for record in records[:: max(1, len(records) // READ)] if not record.problem]
    first = {image_id: source.read(image_id) for image_id in some}
    assert {image_id: another.read(image_id) for image_id in reversed(some)} == first
    assert all(first.values())


def test_the_images_are_of_the_formats_it_says(source: Source, records: list[SourceRecord]) -> None:
    for record in records[:: max(1, len(records) // READ)]:
        if not record.problem:
            with Image.open(io.BytesIO(source.read(record.image_id))) as image:
                assert image.format in source.formats, f"{record.image_id}: {image.format}, not among source.formats"


def test_the_card_says_what_from_where_and_under_which_licence(source: Source) -> None:
    card = source.card()
    assert card.keys() == {"description", "licence", "origin"}
    assert all(value.strip() for value in card.values())


def test_a_mask_is_of_the_size_of_its_image(source: Source, records: list[SourceRecord]) -> None:
    for record in records[:: max(1, len(records) // 4)]:
        mask = source.mask(record.image_id)
        if mask is not None:
            with Image.open(io.BytesIO(source.read(record.image_id))) as image:
                assert (mask.shape, mask.dtype) == ((image.height, image.width), bool)


FAULTS: list[SourceRecord] = []


class Faulty(Source):
    """Two files, and a third that breaks the contract."""

    def records(self) -> list[SourceRecord]:
        return [SourceRecord("1", "a"), SourceRecord("2", "b"), *FAULTS]

    def read(self, image_id: str) -> bytes:
        raise AssertionError("the records are refused before anything is read")

    def card(self) -> dict[str, str]:
        raise AssertionError("the records are refused before there is a card")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (SourceRecord("2", "a"), "source faulty: 1 image id(s) stand for several files: '2'. Expected"),
        (SourceRecord("2", "b", problem="torn"), "source faulty: 1 image id(s) stand for several files: '2'. Expected"),
        (SourceRecord("3", ""), "source faulty: 1 file(s) have no label and no problem that says why: '3'. Expected"),
        (SourceRecord("3", " "), "source faulty: 1 file(s) have no label and no problem that says why: '3'. Expected"),
        (SourceRecord("3", "c\x1b[2J"), r"source faulty: 1 class name(s) cannot be shown: 'c\x1b[2J'. Expected"),
        (SourceRecord("3", "c\u202ed"), r"source faulty: 1 class name(s) cannot be shown: 'c\u202ed'. Expected"),
        (SourceRecord("3\n4", "c"), r"source faulty: 1 image id(s) cannot be shown: '3\n4'. Expected"),
        (SourceRecord("3", "c", group="\0"), r"source faulty: 1 group(s) cannot be shown: '\x00'. Expected"),
        (SourceRecord("3", "c" * 256), "source faulty: 1 class name(s) are texts: 'ccc"),
        (SourceRecord("3", "c", attributes={"\x1b": "1"}), r"source faulty: 1 attribute(s) cannot be shown: '\x1b'. E"),
    ],
    ids=[
        *("same id", "same id, set aside", "no label", "blank label", "label that acts", "label that turns"),
        *("id of two lines", "group with a NUL", "label without end", "attribute that acts"),
    ],
)
def test_acquire_refuses_what_breaks_the_contract(
    fault: SourceRecord, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {"_target_": f"{__name__}.Faulty", "name": "faulty", "inputs": "-", "formats": ["PNG"]}
    settings = Settings({**compose(), "source": {**section, "max_bad_fraction": 0.0}}, acquire.SECTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(globals(), "FAULTS", [fault])
    with pytest.raises(DataError) as refused:
        acquire.run(settings, Tracker(None))
    assert str(refused.value).startswith(message)
    assert not (tmp_path / "data").exists()
