"""What belongs together: images that must lie in one split, because who has seen one of them has seen the others."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from retinue.pipeline.artifacts import RawImage


@dataclass(frozen=True)
class Candidate:
    """An image to be put into a split.

    Attributes:
        image_id: unique.
        label: class name.
        sha256: of its bytes; equal bytes belong together.
        group: images of one group belong together; "" is no group.
        split: the split that the source gives it to; "" leaves it to be drawn.
        pin: the split that the user fixes it in, whatever the source says; "" is none.
    """

    image_id: str
    label: str
    sha256: str
    group: str = ""
    split: str = ""
    pin: str = ""

    @property
    def declared(self) -> str:
        """The split that somebody has said it belongs to; "" where nobody has."""
        return self.pin or self.split


def units_of(images: Sequence[Candidate | RawImage], near: Iterable[tuple[str, str]]) -> np.ndarray:
    """The unit of each image: the transitive union of equal bytes, groups and near copies.

    Union by forests with halved paths: N images and M pairs take O((N + M) log N) at worst (Tarjan and van Leeuwen,
    Journal of the ACM 31, 1984), and not all pairs of images.

    Args:
        images: in any order.
        near: pairs of image ids that show the same; a pair of which an image is missing is passed over.

    Returns:
        int64 (N,), numbers from 0 in the order of the first image of each.
    """
    parent = list(range(len(images)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(one: int, other: int) -> None:
        low, high = sorted((root(one), root(other)))
        parent[high] = low  # so a root is the first image of its unit

    first_of: dict[tuple[str, str], int] = {}
    position: dict[str, int] = {}
    for index, image in enumerate(images):
        position[image.image_id] = index
        shared = [("bytes", image.sha256), *([("group", image.group)] if image.group else [])]
        for key in shared:
            first = first_of.setdefault(key, index)
            if first != index:
                join(first, index)
    for one, other in near:
        if one in position and other in position:
            join(position[one], position[other])
    roots = np.array([root(index) for index in range(len(images))], np.int64)
    return np.unique(roots, return_inverse=True)[1].reshape(-1).astype(np.int64)


def draws_of(images: Sequence[Candidate], unit_of: np.ndarray, seed: int) -> np.ndarray:
    """Two numbers in [0, 1) for each unit, which depend on the seed and on what the unit is, and on no other unit.

    What a unit is does not change when a member joins or leaves, as far as that can be: a unit with groups is the one
    with the first group name, any other one is the bytes of its first image by name. First is the shortest name and, of
    equally long ones, the first in the alphabet, as copies and later images tend to have the longer or later name.

    Args:
        images: N of them.
        unit_of: of each image, int64 (N,).
        seed: of the draw.

    Returns:
        float64 (number of units, 2).
    """
    identities: dict[int, tuple[bool, int, str, str]] = {}
    for image, unit in zip(images, unit_of.tolist(), strict=True):
        name = image.group or image.image_id
        identity = (not image.group, len(name), name, f"group/{name}" if image.group else f"image/{image.sha256}")
        if unit not in identities or identity < identities[unit]:
            identities[unit] = identity
    draws = np.empty((len(identities), 2))
    for unit, (*_, text) in identities.items():
        digest = hashlib.sha256(f"{seed}/{text}".encode()).digest()
        draws[unit] = [(int.from_bytes(digest[at : at + 8], "big") >> 11) / 2**53 for at in (0, 8)]
    return draws
