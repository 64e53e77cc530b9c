"""What an element of a tensor sees of the image."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

Atom = tuple[frozenset[int], int]
"""Part of a dimension: the image axes along which its places lie (0 down, 1 across), and its extent."""

NEITHER, DOWN, ACROSS = frozenset[int](), frozenset({0}), frozenset({1})


@dataclass(frozen=True)
class Dim:
    """A dimension of a tensor.

    Attributes:
        atoms: what it is made of, outermost first; more than one after dimensions have been merged.
    """

    atoms: tuple[Atom, ...] = ()

    @classmethod
    def along(cls, axes: Iterable[int], extent: int) -> "Dim":
        """A dimension of one piece."""
        return cls(((frozenset(axes), extent),))

    @property
    def axes(self) -> frozenset[int]:
        """The image axes along which its places lie."""
        return NEITHER.union(*(axes for axes, _ in self.atoms))

    @property
    def extent(self) -> int:
        return math.prod(extent for _, extent in self.atoms)

    @property
    def has_places(self) -> bool:
        """Whether it runs through more than one place of the image."""
        return any(axes and extent > 1 for axes, extent in self.atoms)

    @property
    def is_mixed(self) -> bool:
        """Whether it runs through places and channels."""
        return self.has_places and any(not axes and extent > 1 for axes, extent in self.atoms)

    def resized(self, extent: int) -> "Dim":
        """The same kind of dimension at another extent."""
        return self if self.extent == extent else Dim.along(self.axes, extent)


@dataclass(frozen=True)
class Field:
    """What an element of a tensor sees.

    Attributes:
        size: height and width of its window on the image, px; for what was pooled over a whole map, that of the map.
        stride: distance of neighbouring positions on the image, px, down and across.
        whole_image: it depends on all positions, too: after a global pool, a linear layer on them, attention or a gate.
        dims: of the tensor.
    """

    size: tuple[int, int]
    stride: tuple[Fraction, Fraction]
    whole_image: bool
    dims: tuple[Dim, ...]

    @classmethod
    def of_images(cls, n: int, channels: int, height: int, width: int) -> "Field":
        """The field of the images themselves, (N, C, H, W)."""
        dims = (Dim.along(NEITHER, n), Dim.along(NEITHER, channels), Dim.along(DOWN, height), Dim.along(ACROSS, width))
        return cls((1, 1), (Fraction(1), Fraction(1)), False, dims)

    @property
    def has_positions(self) -> bool:
        """Whether elements belong to positions on the image, be it one."""
        return any(dim.axes for dim in self.dims)

    @property
    def is_map(self) -> bool:
        """Whether the tensor is (…, H, W)."""
        return len(self.dims) > 2 and (self.dims[-2].axes, self.dims[-1].axes) == (DOWN, ACROSS)

    @property
    def is_flattened(self) -> bool:
        """Whether places and channels share a dimension."""
        return any(dim.is_mixed for dim in self.dims)
