"""The image store: plain .npy files, written in any order by any number of processes."""

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retinue.engine import store as store_module
from retinue.engine.store import ImageStore, RowFile
from retinue.pipeline.errors import DataError


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)


def test_rows_are_a_plain_npy_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    file = RowFile.create(tmp_path / "x.npy", values.shape, values.dtype)
    for row in reversed(range(7)):
        file.write(row, values[row])
    file.close()
    assert np.array_equal(np.load(tmp_path / "x.npy", allow_pickle=False), values)
    np.save(tmp_path / "numpy.npy", values)
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert np.array_equal(RowFile(tmp_path / "numpy.npy")[3], values[3])


def test_a_store_is_spread_over_files_of_limited_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SHARD_BYTES", 3 * 5 * 4 * 3 + 1)
    expected = images(8)
    store = ImageStore.create(tmp_path, 8, (5, 4, 3))
    for index in np.random.default_rng(1).permutation(8):
        store.write(int(index), expected[index])
    assert [len(np.load(path)) for path in sorted(tmp_path.glob("*.npy"))] == [3, 3, 2]
    read = ImageStore(tmp_path)
    assert len(read) == 8
    assert read.image_shape == (5, 4, 3)
    assert np.array_equal(read.read([7, 0, 3, 3]), expected[[7, 0, 3, 3]])
    assert np.array_equal(read[2], expected[2])
    assert np.array_equal(np.concatenate(list(read.batches(3))), expected)


def refuse_room(error: int) -> Callable[..., None]:
    def fallocate(*_: int) -> None:
        raise OSError(error, os.strerror(error))

    return fallocate


def test_a_full_disk_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refuse_room(errno.ENOSPC))
    with pytest.raises(DataError, match=r"x\.npy: needs 4\.13 kB, and the disk has .*B left \(No space left"):
        RowFile.create(tmp_path / "x.npy", (1000,), np.float32)
    monkeypatch.setattr(os, "posix_fallocate", refuse_room(errno.EOPNOTSUPP))
    assert len(RowFile.create(tmp_path / "x.npy", (1000,), np.float32)) == 1000


def test_a_disk_that_fills_up_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RowFile.create(tmp_path / "x.npy", (3, 2), np.float32)
    monkeypatch.setattr(os, "pwrite", refuse_room(errno.ENOSPC))
    with pytest.raises(OSError, match=r"No space left.*x\.npy"):
        file.write(0, np.zeros(2, np.float32))


def damage(folder: Path, what: str) -> None:
    first = folder / "images-00000.npy"
    if what == "shape":
        np.save(folder / "images-00001.npy", np.zeros((2, 5, 5, 3), np.uint8))
    elif what == "kind":
        np.save(first, np.zeros((3, 5, 4, 3), np.float32))
    elif what == "flat":
        np.save(first, np.zeros(7, np.uint8))
    elif what == "number":
        np.save(first, np.uint8(7))
    elif what == "more":
        np.save(folder / "images-00001.npy", np.zeros((4, 5, 4, 3), np.uint8))
    elif what == "cut":
        first.write_bytes(first.read_bytes()[:-1])
    elif what == "garbage":
        first.write_bytes(b"\x93NUMPY\x01\x00\x10\x00((((((((((((((((((")
    elif what == "folder":
        first.unlink()
        first.mkdir()


@pytest.mark.parametrize("what", ["shape", "kind", "flat", "number", "more", "cut", "garbage", "folder"])
def test_a_damaged_store_is_refused_with_the_file(what: str, tmp_path: Path) -> None:
    ImageStore.create(tmp_path, 3, (5, 4, 3)).close()
    damage(tmp_path, what)
    with pytest.raises(DataError, match=r"images-0000[01]\.npy: .*`dvc repro`\."):
        ImageStore(tmp_path)


def _write(folder: Path, start: int) -> None:
    store = ImageStore(folder, writable=True)
    for index in range(start, 40, 2):
        store.write(index, images(40)[index])


def test_two_processes_write_one_store(tmp_path: Path) -> None:
    ImageStore.create(tmp_path, 40, (5, 4, 3))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, start)) for start in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert np.array_equal(ImageStore(tmp_path).read(range(40)), images(40))


def test_a_store_without_images_is_one_file(tmp_path: Path) -> None:
    assert len(ImageStore.create(tmp_path, 0, (5, 4, 3))) == 0
    assert list(ImageStore(tmp_path).batches()) == []


def test_damaged_files_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image store.*Run `dvc repro`"):
        ImageStore(tmp_path)
    ImageStore.create(tmp_path, 4, (5, 4, 3))
    path = tmp_path / "images-00000.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"images-00000\.npy: 367 bytes, expected 368"):
        ImageStore(tmp_path)
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match=r"images-00000\.npy: not a \.npy file"):
        ImageStore(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        RowFile(tmp_path / "none.npy")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 5, 4, 3",  # tokenize.TokenError
        "{'descr': '|u1', 'fortran_order': False, 'shape': ()}",  # no rows
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 5, 4, 3)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 4294967296, 4294967296, 3)}",  # 0 bytes modulo 2^64
        "{'descr': 3, 'fortran_order': False, 'shape': (4, 5, 4, 3)}",
        "  {'descr': '|u1'\n'fortran_order': False}",
        "(" * 90,
    ],
)
def test_a_damaged_header_is_told_by_the_name_of_its_file(header: str, tmp_path: Path) -> None:
    text = f"{header:<117}\n".encode()
    (tmp_path / "images-00000.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(DataError, match=r"images-00000\.npy: "):
        ImageStore(tmp_path)


def test_files_of_different_stores_are_refused(tmp_path: Path) -> None:
    """Else an index would lead to another image than the manifest says, or an image would be read as another shape."""
    for number, shape in enumerate([(3, 5, 4, 3), (3, 5, 4, 3), (2, 5, 4, 3)]):
        np.save(tmp_path / f"images-{number:05d}.npy", np.zeros(shape, np.uint8))
    assert len(ImageStore(tmp_path)) == 8
    for number, wrong in ((1, (2, 5, 4, 3)), (2, (4, 5, 4, 3)), (2, (3, 4, 5, 3)), (0, (3, 1)), (1, (3, 5, 4, 3, 1))):
        path = tmp_path / f"images-{number:05d}.npy"
        whole = path.read_bytes()
        np.save(path, np.zeros(wrong, np.uint8))
        with pytest.raises(DataError, match=r"expected (uint8|3 as in the first file)"):
            ImageStore(tmp_path)
        path.write_bytes(whole)
    np.save(tmp_path / "images-00002.npy", np.zeros((3, 5, 4, 3), np.float32))
    with pytest.raises(DataError, match=r"images-00002\.npy: float32"):
        ImageStore(tmp_path)


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "images-00000.npy", np.array([{"x": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, match="expected a C-ordered array of numbers"):
        ImageStore(tmp_path)


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    store = ImageStore.create(tmp_path, 4, (5, 4, 3))
    with pytest.raises(ValueError, match=r"expected a row of shape \(5, 4, 3\), got \(4, 5, 3\)"):
        store.write(0, np.zeros((4, 5, 3), np.uint8))
