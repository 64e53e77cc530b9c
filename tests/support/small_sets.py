"""Small files in the formats of the published data sets, with what is in them."""

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

BREEDS = ("Abyssinian", "american_bulldog")


def packed(files: Mapping[str, bytes], suffix: str) -> bytes:
    """An archive of `files`: zip, or tar with :gz, :bz2 or :xz behind it."""
    file = io.BytesIO()
    if suffix == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return file.getvalue()
    with tarfile.open(fileobj=file, mode=f"w{suffix.removeprefix('tar')}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def image(number: int, kind: str = "PNG", size: tuple[int, int] = (24, 20)) -> bytes:
    """An image that differs for each number."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def idx_of(array: np.ndarray) -> bytes:
    """An array as an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _idx() -> dict[str, bytes]:
    files = {}
    for prefix, count in (("train", 20), ("t10k", 10)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx_of(pixels), mtime=0)
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx_of(labels), mtime=0)
    return files


def cifar_records(labels: np.ndarray, seed: int) -> bytes:
    """Records of labels uint8 (N, L) and px that are drawn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
    return np.concatenate([labels, pixels], axis=1).tobytes()


def _cifar10() -> dict[str, bytes]:
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    labels = (np.arange(10) % 10).astype(np.uint8)[:, np.newaxis]
    files = {f"cifar-10-batches-bin/{name}.bin": cifar_records(labels, seed) for seed, name in enumerate(names)}
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files["cifar-10-batches-bin/batches.meta.txt"] = "\n".join([*classes, ""]).encode()
    return {"cifar-10-binary.tar.gz": packed(files, "tar:gz")}


def _cifar100() -> dict[str, bytes]:
    labels = np.stack([np.arange(10) // 5, np.arange(10)], axis=1).astype(np.uint8)  # superclass, class
    files = {f"cifar-100-binary/{name}.bin": cifar_records(labels, seed) for seed, name in enumerate(("train", "test"))}
    for kind, count in (("fine", 100), ("coarse", 20)):
        names = "\n".join(f"{kind}_{number}" for number in range(count))
        files[f"cifar-100-binary/{kind}_label_names.txt"] = f"{names}\n".encode()
    return {"cifar-100-binary.tar.gz": packed(files, "tar:gz")}


def _oxford_pets() -> dict[str, bytes]:
    images, annotations = dict[str, bytes](), dict[str, bytes]()
    for split, numbers in (("trainval", range(1, 5)), ("test", range(5, 7))):
        lines = []
        for species, breed in enumerate(BREEDS, start=1):
            for number in numbers:
                name = f"{breed}_{number}"
                images[f"images/{name}.jpg"] = image(10 * species + number, "JPEG")
                trimap = np.full((20, 24), 2, np.uint8)
                trimap[5:15, 4:20], trimap[7:13, 6:18] = 3, 1
                file = io.BytesIO()
                Image.fromarray(trimap).save(file, "PNG")
                annotations[f"annotations/trimaps/{name}.png"] = file.getvalue()
                lines.append(f"{name} {species} {species} 1\n")
        annotations[f"annotations/{split}.txt"] = "".join(lines).encode()
    annotations["annotations/trimaps/._Abyssinian_1.png"] = b"left behind by macOS"
    return {"images.tar.gz": packed(images, "tar:gz"), "annotations.tar.gz": packed(annotations, "tar:gz")}


def _flowers102() -> dict[str, bytes]:
    images = {f"jpg/image_{number:05d}.jpg": image(number, "JPEG") for number in range(1, 13)}
    labels, given = io.BytesIO(), io.BytesIO()
    scipy.io.savemat(labels, {"labels": (np.arange(12) % 3 + 76).astype(np.uint8)}, do_compression=True)
    splits = {"trnid": [12, 1, 2, 6], "valid": [3, 7, 11], "tstid": [4, 5, 8, 9, 10]}
    as_stored = {key: np.array(value, np.uint16) for key, value in splits.items()}
    scipy.io.savemat(given, as_stored, do_compression=True)
    return {
        "102flowers.tgz": packed(images, "tar:gz"),
        "imagelabels.mat": labels.getvalue(),
        "setid.mat": given.getvalue(),
    }


def _folders(top: str) -> dict[str, bytes]:
    return {
        f"{top}/{split}/{label}/{split}_{number}.JPEG": image(hash_of(split, label, number), "JPEG")
        for split in ("train", "val")
        for label in ("n01440764", "n02102040")
        for number in range(6)
    }


def hash_of(*parts: Any) -> int:
    """A number that depends on `parts` alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def small_files(choice: str) -> dict[str, bytes]:
    """The files of a recipe in conf/source, by name, small."""
    makers = {
        "mnist": _idx,
        "fashion_mnist": _idx,
        "cifar10": _cifar10,
        "cifar100": _cifar100,
        "oxford_pets": _oxford_pets,
        "flowers102": _flowers102,
        "imagenette": lambda: {"imagenette2-160.tgz": packed(_folders("imagenette2-160"), "tar:gz")},
        "hymenoptera": lambda: {"hymenoptera_data.zip": packed(_folders("hymenoptera_data"), "zip")},
        "archive_url": lambda: {"photos.zip": packed(_folders("photos"), "zip")},
    }
    return makers[choice]()


def is_from_the_web(section: Mapping[str, Any]) -> bool:
    """Whether a section `source` names addresses."""
    return bool(section.get("files") or section.get("url"))


def with_files(section: Mapping[str, Any], files: Mapping[str, bytes], address: str) -> dict[str, Any]:
    """The section with `files` below `address` in place of the publisher's, and their checksums."""
    checksums = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()}
    if "files" in section:
        return {**section, "files": [f"{address}/{name} {checksum}" for name, checksum in checksums.items()]}
    ((name, checksum),) = checksums.items()
    return {**section, "url": f"{address}/{name}", "checksum": checksum}
