"""The formats of published sets: images, labels, splits and px as the publisher has them; what is wrong is told."""

import errno
import gzip
import hashlib
import io
import struct
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from choices import choices_of, document
from compositions import compose
from loopback import Files, serving
from retinue.pipeline.errors import DataError, DownloadError
from retinue.pipeline.files import link_or_copy
from retinue.pipeline.settings import build
from retinue.sources import published, tar_members
from retinue.sources.download import DownloadSettings
from retinue.sources.mat_arrays import integers_in
from retinue.sources.source import Source
from small_sets import BREEDS, cifar_records, idx_of, is_from_the_web, packed, small_files, with_files

LIMITS = DownloadSettings(timeout_s=5, total_timeout_s=20, max_gb=0.1)
RECIPES = [name for name in choices_of("source") if is_from_the_web(document("source", name))]


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_members, "_UNPACKED", tmp_path / "unpacked")
    monkeypatch.setattr(published, "DOWNLOADS", tmp_path / "downloads")


def section_of(choice: str) -> dict[str, Any]:
    return compose([f"source={choice}"])["source"]


def in_folder(choice: str, folder: Path, files: dict[str, bytes] | None = None, **changes: Any) -> Source:
    """The source of a recipe with small files in a folder of the user's own."""
    files = small_files(choice) if files is None else files
    for name, content in files.items():
        (folder / name).write_bytes(content)
    section = with_files(section_of(choice), files, "https://host")
    return build({**section, "path": str(folder), **changes}, where="source")


def pixels_of(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as decoded:
        return np.asarray(decoded)


def test_every_recipe_names_address_checksum_licence_and_citation() -> None:
    assert {
        "mnist",
        "fashion_mnist",
        "cifar10",
        "cifar100",
        "oxford_pets",
        "flowers102",
        "imagenette",
        "hymenoptera",
    } <= {*RECIPES}
    for choice in {*RECIPES} - {"archive_url"}:
        section = section_of(choice)
        checksums = [line.split()[1] for line in section.get("files", [])] or [section["checksum"]]
        assert all(checksum.startswith(("sha256:", "sha384:")) for checksum in checksums)
        assert len({*checksums}) == len(checksums)
        assert "http" in section["origin"]
        assert section["licence"] != "not stated"
        text = (Path(__file__).parents[2] / "conf/source" / f"{choice}.yaml").read_text("utf-8")
        for word in (f"# Command: retinue compose source={choice} ", "# Cost: ", "Expected: "):
            assert word in text, (choice, word)


@pytest.mark.parametrize("choice", RECIPES)
def test_a_recipe_is_fetched_once_and_gives_what_a_folder_of_its_files_gives(choice: str, tmp_path: Path) -> None:
    files = small_files(choice)
    server = Files(files)
    with serving(server) as address:
        source = build(with_files(section_of(choice), files, address), where="source")
        fetched = source.fetched(LIMITS)
        again = source.fetched(LIMITS)
    assert sorted(name for name, _ in server.asked) == sorted(files)
    assert again == fetched
    assert {path.name: path.read_bytes() for path in fetched.fetched_files()} == files
    (tmp_path / "own").mkdir()
    own = in_folder(choice, tmp_path / "own").fetched(LIMITS)
    assert own.fetched_files() == []
    records = fetched.records()
    assert own.records() == records
    assert all(own.read(record.image_id) == fetched.read(record.image_id) for record in records)


def test_a_file_of_another_content_is_refused(tmp_path: Path) -> None:
    files = small_files("mnist")
    name = "t10k-labels-idx1-ubyte.gz"
    with serving(Files({**files, name: b"another"})) as address:
        source = build(with_files(section_of("mnist"), files, address), where="source")
        with pytest.raises(DownloadError, match=r"does not begin with .* Correct source\.files, or the address"):
            source.fetched(LIMITS)
        with pytest.raises(DownloadError, match="404"):
            build(with_files(section_of("mnist"), {"absent.gz": b""}, address), where="source").fetched(LIMITS)
    own = in_folder("mnist", tmp_path)
    (tmp_path / name).write_bytes(b"another")
    with pytest.raises(DataError, match=rf"{name}: its sha256 is .*, and source\.files says .*: another file"):
        own.fetched(LIMITS)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"source\.path: .*{name}: no such file"):
        own.fetched(LIMITS)


def test_what_was_written_to_after_the_download_is_fetched_again() -> None:
    files = small_files("imagenette")
    server = Files(files)
    with serving(server) as address:
        source = build(with_files(section_of("imagenette"), files, address), where="source")
        (path,) = source.fetched(LIMITS).fetched_files()
        path.write_bytes(b"an editor was here")
        (path,) = source.fetched(LIMITS).fetched_files()
    assert path.read_bytes() == files[path.name]
    assert len(server.asked) == 2


@pytest.mark.parametrize("linkable", [True, False])
def test_a_file_is_kept_by_a_link_or_a_copy(linkable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if not linkable:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    (tmp_path / "a").write_bytes(b"content")
    link_or_copy(tmp_path / "a", tmp_path / "b" / "c")
    assert (tmp_path / "b" / "c").read_bytes() == b"content"
    assert (tmp_path / "a").samefile(tmp_path / "b" / "c") == linkable


def test_what_is_missing_is_told_before_anything_runs(tmp_path: Path) -> None:
    source, section = type(in_folder("mnist", tmp_path)), section_of("mnist")
    here = {"path": str(tmp_path), "inputs": str(tmp_path)}
    assert source.missing(section) == []
    assert source.missing({**section, **here}) == []
    (fault,) = source.missing({**section, "path": str(tmp_path)})
    assert fault.key == "source.inputs"
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    (fault,) = source.missing({**section, **here})
    assert (fault.key, "train-labels-idx1-ubyte.gz: no such file" in fault.hint) == ("source.path", True)


def test_idx_gives_each_image_its_label_and_px(tmp_path: Path) -> None:
    source = in_folder("fashion_mnist", tmp_path)
    records = source.records()
    assert [record.split for record in records] == ["train"] * 20 + ["test"] * 10
    assert records[11].label == "Trouser"  # label 1
    expected = np.random.default_rng(10).integers(0, 256, (10, 28, 28), np.uint8)
    assert np.array_equal(pixels_of(source.read("test/00007")), expected[7])


def test_idx_may_be_unpacked(tmp_path: Path) -> None:
    files = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in small_files("mnist").items()}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    unpacked, compressed = in_folder("mnist", tmp_path / "a", files), in_folder("mnist", tmp_path / "b")
    assert unpacked.records() == compressed.records()
    assert unpacked.read("train/00003") == compressed.read("train/00003")


LABELS = np.zeros(20, np.uint8)
gzipped = partial(gzip.compress, mtime=0)  # tests are told apart by these bytes


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (gzipped(idx_of(LABELS))[:-9], "damaged or cut off"),
        (gzipped(idx_of(LABELS)[:-1]), "it ends after 27 B: cut off"),
        (gzipped(idx_of(LABELS) + b"x"), "longer than the 28 B that its header says"),
        (gzipped(b"\0\0\x0d\x01" + idx_of(LABELS)[4:]), "it begins with 00 00 0d 01"),
        (gzipped(b"\0\0\x08\xff" + bytes(2000)), "it begins with 00 00 08 ff"),
        (gzipped(b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 2**31)), "and at most 4.29 GB are read"),
        (b"<html>not found</html>", "no IDX file"),
        (b"", "no IDX file"),
        (gzipped(idx_of(LABELS[:-1])), "20 images and 19 labels of train"),
        (gzipped(idx_of(LABELS + 10)), "label 10 in the labels of train; source.classes names 10"),
        (gzipped(idx_of(LABELS.reshape(4, 5))), "an array of 2 dimensions; expected 1 of labels"),
    ],
)
def test_an_idx_file_that_is_none_is_told(labels: bytes, reason: str, tmp_path: Path) -> None:
    files = {**small_files("mnist"), "train-labels-idx1-ubyte.gz": labels}
    with pytest.raises(DataError) as caught:
        in_folder("mnist", tmp_path, files).records()
    assert reason in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_cifar_gives_each_image_its_label_and_px(tmp_path: Path) -> None:
    source = in_folder("cifar10", tmp_path)
    records = source.records()
    assert [record.split for record in records] == ["train"] * 50 + ["test"] * 10
    assert [record.label for record in records[:3]] == ["airplane", "automobile", "bird"]
    planes = np.random.default_rng(2).integers(0, 256, (10, 3072), np.uint8)[4].reshape(3, 32, 32)
    pixels = pixels_of(source.read("train/data_batch_3/00004"))
    assert np.array_equal(pixels[..., 0], planes[0])
    assert np.array_equal(pixels[5, 6], planes[:, 5, 6])


def test_cifar_100_has_classes_and_superclasses(tmp_path: Path) -> None:
    fine = in_folder("cifar100", tmp_path)
    coarse = in_folder("cifar100", tmp_path, label_byte=0, class_names="coarse_label_names.txt")
    assert [record.label for record in fine.records()[4:6]] == ["fine_4", "fine_5"]
    assert [record.label for record in coarse.records()[4:6]] == ["coarse_0", "coarse_1"]
    assert fine.read("test/test/00009") == coarse.read("test/test/00009")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"c/data_batch_1.bin": bytes(3072)}, "3,072 B; expected records of 3,073 B"),
        (
            {"c/data_batch_1.bin": cifar_records(np.full((2, 1), 2, np.uint8), 0)},
            "label 2 in c/data_batch_1.bin",
        ),
        ({"c/batches.meta.txt": b"\xff\xfe"}, "no text in UTF-8"),
    ],
)
def test_a_cifar_archive_that_is_none_is_told(files: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    archive = {"c/batches.meta.txt": b"a\nb\n", "c/test_batch.bin": bytes(3073), **files}
    with pytest.raises(DataError) as caught:
        in_folder("cifar10", tmp_path, {"cifar-10-binary.tar.gz": packed(archive, "tar:gz")}).records()
    assert reason in str(caught.value)


def test_the_pickled_version_of_cifar_is_not_opened(tmp_path: Path) -> None:
    archive = {"cifar-10-batches-py/data_batch_1": b"cposix\nsystem\n(S'touch pwned'\ntR."}
    with pytest.raises(DataError, match=r"no file batches\.meta\.txt"):
        in_folder("cifar10", tmp_path, {"cifar-10-python.tar.gz": packed(archive, "tar:gz")}).records()


def test_pets_have_breeds_species_and_masks(tmp_path: Path) -> None:
    source = in_folder("oxford_pets", tmp_path)
    records = source.records()
    assert {record.label for record in records} == {"Abyssinian", "american bulldog"}
    assert [record.split for record in records] == ["train"] * 8 + ["test"] * 4
    species = in_folder("oxford_pets", tmp_path, label="species").records()
    assert {(a.label, b.label) for a, b in zip(records, species, strict=True)} == {
        ("Abyssinian", "cat"),
        ("american bulldog", "dog"),
    }
    mask = source.mask(f"{BREEDS[1]}_5")
    assert (mask.shape, mask.dtype) == ((20, 24), bool)
    assert np.argwhere(mask).min(axis=0).tolist() == [7, 6]
    assert mask.sum() == 6 * 12
    assert in_folder("oxford_pets", tmp_path, masks=False).mask(f"{BREEDS[1]}_5") is None


def test_pets_without_a_photograph_a_trimap_or_a_list_are_told(tmp_path: Path) -> None:
    lists = {f"annotations/{name}.txt": b"Abyssinian_1 1 1 1\n" for name in ("trainval", "test")}
    files = {"images.tar.gz": packed({"images/a.jpg": b""}, "tar:gz")}
    source = in_folder("oxford_pets", tmp_path, {**files, "annotations.tar.gz": packed(lists, "tar:gz")})
    assert {record.problem for record in source.records()} == {"not in images.tar.gz"}
    with pytest.raises(DataError, match=r"Abyssinian_1\.png .* is not there, .* source\.masks=false"):
        source.mask("Abyssinian_1")
    lists["annotations/test.txt"] = b"<html>\n"
    with pytest.raises(DataError, match=r"annotations/test\.txt, line 1: expected a name and three numbers"):
        in_folder("oxford_pets", tmp_path, {**files, "annotations.tar.gz": packed(lists, "tar:gz")}).records()


def test_flowers_have_the_publishers_splits(tmp_path: Path) -> None:
    records = in_folder("flowers102", tmp_path).records()
    assert [record.image_id for record in records] == [f"image_{number:05d}.jpg" for number in range(1, 13)]
    assert [record.label for record in records[:4]] == ["76", "77", "78", "76"]
    assert [record.split for record in records[:7]] == ["train", "train", "val", "test", "test", "train", "val"]


def test_labels_of_other_flowers_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    scipy.io.savemat(file, {"labels": np.arange(11)})
    with pytest.raises(DataError, match="11 labels, and splits of 12 images"):
        in_folder("flowers102", tmp_path, {**small_files("flowers102"), "imagelabels.mat": file.getvalue()}).records()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
def test_matrices_of_integers_are_read_as_scipy_reads_them(kind: Any, compress: bool, tmp_path: Path) -> None:
    arrays = {"a": np.arange(12).reshape(3, 4).astype(kind), "longer_name": np.array([7], kind), "c": np.zeros(0, kind)}
    scipy.io.savemat(tmp_path / "x.mat", arrays, do_compression=compress)
    expected = scipy.io.loadmat(tmp_path / "x.mat")
    found = integers_in(tmp_path / "x.mat")
    assert {*found} == {*arrays}
    for name, array in found.items():
        assert np.array_equal(array, expected[name].ravel(order="F"))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        *("text", {"a": 1}, 0.5, 1j, float("nan")),
        np.array(["x", 2], object),
        np.zeros(2, [("a", int)]),
    ],
    ids=["text", "structure", "fraction", "complex", "nan", "cell", "records"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_no_matrix_of_integers_is_refused(value: Any, compress: bool, tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"labels": value}, do_compression=compress)
    with pytest.raises(DataError, match="no MATLAB file of integers"):
        integers_in(tmp_path / "x.mat")


def test_damage_in_a_mat_file_is_a_message(tmp_path: Path) -> None:
    file = io.BytesIO()
    scipy.io.savemat(file, {"labels": np.arange(9)}, do_compression=False)
    whole, rng = file.getvalue(), np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        data[rng.integers(0, len(data))] ^= int(rng.integers(1, 256))
        (tmp_path / "x.mat").write_bytes(data)
        with suppress(DataError):
            assert all(array.dtype == np.int64 for array in integers_in(tmp_path / "x.mat").values())


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha384", "sha512"])
def test_other_checksums_are_taken_where_a_publisher_has_no_other(algorithm: str) -> None:
    files = small_files("archive_url")
    checksum = f"{algorithm}:{hashlib.new(algorithm, files['photos.zip']).hexdigest().upper()}"
    with serving(Files(files)) as address:
        section = {**with_files(section_of("archive_url"), files, address), "checksum": checksum}
        assert len(build(section, where="source").fetched(LIMITS).records()) == 24
