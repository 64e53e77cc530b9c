"""Synthetic surfaces under inspection: brushed metal, woven fabric and all between, with defects and exact masks."""

import errno
import io
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from retinue.engine.reproducibility import draw_seed
from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import allowed, shown
from retinue.sources.source import Source, SourceRecord

GOOD = "good"
CLASSES = (GOOD, "scratch", "pit", "crack", "stain")
"""Most frequent class first; the same names in every domain."""

_SMALLEST_SIDE = 16  # px; below, defects of different classes cover the same few px
_IMBALANCE = "It is the number of images of the most frequent class for each image of the rarest; 1: all alike."
_SMALLEST_RADIUS = 0.75  # px; more than half a diagonal, so that a defect covers at least the px at its centre


def _colour(red: float, green: float, blue: float) -> np.ndarray:
    return np.array([red, green, blue]).reshape(3, 1, 1)


_STEEL = _colour(0.52, 0.54, 0.57)
_WARP, _WEFT = _colour(0.24, 0.43, 0.47), _colour(0.76, 0.65, 0.46)
_ABSORBED = {  # by a defect of metal at full contrast, per channel
    "scratch": _colour(0.78, 0.78, 0.78),
    "pit": _colour(0.78, 0.78, 0.78),
    "crack": _colour(0.78, 0.78, 0.78),
    "stain": _colour(0.38, 0.48, 0.64),
}


class Surface(NamedTuple):
    """A rendered image.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        twin: uint8 (H, W, 3): the same surface in the same light without the defect.
        mask: bool (H, W): where the two differ.
    """

    image: np.ndarray
    twin: np.ndarray
    mask: np.ndarray


def _class_sizes(images_per_class: int, imbalance: float) -> dict[str, int]:
    step = imbalance ** (-1 / (len(CLASSES) - 1))
    return {name: round(images_per_class * step**rank) for rank, name in enumerate(CLASSES)}


def _rarest_has_images(images_per_class: int, imbalance: float) -> Fault | None:
    if min(_class_sizes(images_per_class, imbalance).values()) >= 1:
        return None
    expected = f"a number that leaves 1 image of the rarest class with source.imbalance {imbalance:g}"
    return Fault("images_per_class", shown(images_per_class), expected, "Raise images_per_class or lower imbalance.")


@dataclass(frozen=True)
class Surfaces(Source):
    """A good surface and four kinds of defects, drawn by a procedure; nothing here is a photograph.

    Two textures are mixed. On brushed metal (similarity 1) every defect is a dark mark, and its class is its shape. On
    woven fabric (similarity 0) every defect is a patch of one shape, and its class is what happened to the threads:
    the weft is missing (scratch), threads are doubled (pit), skewed (crack), or light and dark are exchanged (stain).
    Position, size, direction, light, colours and phase of the texture are drawn for each image.

    An image is a function of `seed`, `similarity`, `difficulty`, `image_size`, its class and its number in the class: a
    larger dataset holds the smaller one. The draws are those of `seed`, class and number alone, so that the image
    changes smoothly with similarity and difficulty.

    Attributes:
        images_per_class: of the most frequent class, `good`.
        imbalance: images of the most frequent class for each one of the rarest; the classes between lie on a
            geometric series, in the order of `CLASSES`.
        similarity: to brushed metal, the source domain.
        difficulty: takes contrast and size from the defects, not from the texture.
        image_size: side of the square images; lengths on the surface grow with it.
        seed: of all draws; two datasets of one domain need different ones.
    """

    RELATIONS = (_rarest_has_images,)

    images_per_class: int = field(metadata=allowed(ge=1, most=1_000_000))
    imbalance: float = field(metadata=allowed(ge=1, most=1_000_000, hint=_IMBALANCE))
    similarity: float = field(metadata=allowed(ge=0, le=1))
    difficulty: float = field(metadata=allowed(ge=0, lt=1))
    image_size: int = field(metadata=allowed(ge=_SMALLEST_SIDE, most=8192, unit="px"))
    seed: int = field(metadata=allowed(ge=0))

    def counts(self) -> dict[str, int]:
        """Class name -> number of images."""
        return _class_sizes(self.images_per_class, self.imbalance)

    def records(self) -> list[SourceRecord]:
        """The images class by class; an image id is the class and the number in it, as in pit/00012."""
        return [
            SourceRecord(_image_id(name, number), label=name)
            for name, count in self.counts().items()
            for number in range(count)
        ]

    def read(self, image_id: str) -> bytes:
        """The image as a PNG.

        Raises:
            FileNotFoundError: there is no such image.
        """
        file = io.BytesIO()
        # Stored, not compressed: faster, and the bytes do not depend on the version of zlib.
        Image.fromarray(self.render(image_id).image).save(file, "PNG", compress_level=0)
        return file.getvalue()

    def mask(self, image_id: str, size: tuple[int, int] | None = None) -> np.ndarray:
        """The px of the defect, bool (H, W): exactly those that would look otherwise without it."""
        return self.render(image_id).mask

    def card(self) -> dict[str, str]:
        """What is drawn, from which settings."""
        return {
            "description": "Synthetic surfaces, drawn by a procedure, good or with a scratch, pit, crack or stain; "
            f"similarity to brushed metal {self.similarity:g}, difficulty {self.difficulty:g}, seed {self.seed}.",
            "licence": "that of this project",
            "origin": "src/retinue/sources/surfaces.py; no photographs",
        }

    def render(self, image_id: str) -> Surface:
        """The image, its twin without the defect, and the mask.

        Raises:
            FileNotFoundError: there is no such image.
        """
        name, rng = self._draws_of(image_id)
        # Not 1 - similarity itself: the weave is the stronger texture, and would hide the metal at 0.8 already.
        distance = (1 - self.similarity) ** 1.5
        x, y = _grid(self.image_size)
        light, grain = _light(rng, x, y), 0.012 * rng.standard_normal(x.shape)
        metal, fabric = _metal(rng, self.image_size), _Fabric.draw(rng, x, y)
        threads = fabric.woven(fabric.a, fabric.b)
        twin = _pixels(((1 - distance) * metal + distance * threads) * light + grain)
        if name == GOOD:
            return Surface(twin, twin, np.zeros(x.shape, bool))
        depth = _depth(rng, name, x, y, distance, 1 - 0.3 * self.difficulty)
        contrast = (1 - 0.8 * self.difficulty) * depth
        metal *= 1 - contrast * _ABSORBED[name]
        threads += np.sqrt(contrast) * (fabric.miswoven(name) - threads)  # the root: threads hide more than metal
        image = _pixels(((1 - distance) * metal + distance * threads) * light + grain)
        return _told_apart(image, twin, depth > 0)

    def _draws_of(self, image_id: str) -> tuple[str, np.random.Generator]:
        """The class of an image and the generator of its draws."""
        name, _, digits = image_id.partition("/")
        number = int(digits) if digits.isdecimal() else -1
        if image_id != _image_id(name, number) or not 0 <= number < self.counts().get(name, 0):
            raise FileNotFoundError(errno.ENOENT, f"no such image in this dataset, whose first is {_image_id(GOOD, 0)}")
        # The number beside the hash, not in it: of 100,000 images some would share the 32 bits.
        return name, np.random.default_rng([draw_seed("surfaces", self.seed, name), number])


def _image_id(name: str, number: int) -> str:
    return f"{name}/{number:05d}"


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the centres of the px, float64 (size, size), in sides of the image."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return x, y


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _light(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness, colour and direction of the light: float (3, H, W), around 1."""
    across, _ = _turned(x - 0.5, y - 0.5, rng.uniform(0, 2 * math.pi))
    colour = rng.uniform(0.85, 1.15) * rng.normal(1, 0.03, (3, 1, 1))
    return (1 + rng.uniform(0, 0.35) * across) * colour


def _metal(rng: np.random.Generator, size: int) -> np.ndarray:
    """Brushed steel, float (3, size, size): noise, drawn out along the direction of brushing."""
    frequency = np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None]
    along, across = _turned(frequency[1], frequency[0], rng.uniform(0, math.pi))
    transfer = np.exp(-((along / rng.uniform(1.5, 3)) ** 2)) / (1 + (across / 14) ** 2)
    brushed = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * transfer, (size, size))
    return _STEEL * (1 + rng.uniform(0.06, 0.11) / brushed.std() * brushed)


class _Fabric(NamedTuple):
    """A plain weave: coordinates of the px (H, W), counted in threads across warp and weft; colours of the two, (2, 3,
    1, 1); brightness of their single threads, (2, 32), around 1."""

    a: np.ndarray
    b: np.ndarray
    dye: np.ndarray
    yarn: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> "_Fabric":
        u, v = _turned(x, y, rng.uniform(0, math.pi))
        pitch, phase = rng.uniform(0.075, 0.105), rng.uniform(0, 2, 2)
        dye = np.stack([_WARP, _WEFT]) * rng.normal(1, 0.08, (2, 3, 1, 1))
        yarn = rng.normal(1, 0.08, (2, 32))
        return cls(u / pitch + phase[0], v / pitch + phase[1], dye, yarn)

    def woven(self, a: np.ndarray, b: np.ndarray, *, inverted: bool = False) -> np.ndarray:
        """The weave at coordinates `a` and `b`, float (3, H, W): warp and weft take turns to lie on top."""
        i, j = np.floor(a), np.floor(b)
        a, b, i, j = a - i, b - j, i.astype(np.int64), j.astype(np.int64)
        across_warp, across_weft = 4 * a * (1 - a), 4 * b * (1 - b)
        weft_on_top = ((i + j) & 1).astype(bool)
        over = np.where(weft_on_top, across_weft, across_warp)
        height = over * (0.6 + 0.4 * (across_warp + across_weft - over))
        warp, weft = self.dye
        if inverted:
            warp, weft, height = weft, warp, 1 - height
        shade = (0.5 + 0.7 * height) * np.where(weft_on_top, self.yarn[1][j & 31], self.yarn[0][i & 31])
        return np.where(weft_on_top, weft, warp) * shade

    def miswoven(self, name: str) -> np.ndarray:
        """What the fabric looks like inside a defect, float (3, H, W)."""
        if name == "scratch":  # the weft is missing
            across = self.a - np.floor(self.a)
            return self.dye[0] * (0.4 + 3.2 * across * (1 - across))
        if name == "pit":
            return self.woven(self.a / 2, self.b / 2)
        if name == "crack":
            return self.woven(*_turned(self.a, self.b, math.pi / 4))
        return self.woven(self.a, self.b, inverted=True)


def _depth(
    rng: np.random.Generator, name: str, x: np.ndarray, y: np.ndarray, distance: float, size: float
) -> np.ndarray:
    """How far the defect has changed the surface, in [0, 1], (H, W); 0 outside it, 1 at its centre.

    It ends at the zero of a function, -1 at the centre, that is interpolated between the mark of the class on metal and
    the patch of all classes on fabric. Lengths are in sides of the image.
    """
    px = 1 / len(x)
    column, row = rng.integers(math.ceil(0.3 / px), math.floor(0.7 / px), 2)
    u, v = _turned(x - x[0, column], y - y[row, 0], rng.uniform(0, math.pi))
    across, along = size * rng.uniform(0.2, 0.32, 2)
    patch = np.hypot(u / along, v / across) - 1
    # Cut off at 2: it rises steeply beside a thin mark, and a little metal would leave nothing of the patch.
    mark = np.minimum(_defect_depth(rng, name, u, v, size, px), 2)
    inside = -((1 - distance) * mark + distance * patch)
    return np.where(inside > 0, np.minimum(0.35 + inside, 1), 0)


def _defect_depth(
    rng: np.random.Generator, name: str, u: np.ndarray, v: np.ndarray, size: float, px: float
) -> np.ndarray:
    """A function (H, W), -1 at the centre and 0 where the defect ends on metal."""

    def radius(low: float, high: float) -> float:
        return max(size * rng.uniform(low, high), _SMALLEST_RADIUS * px)

    if name == "pit":
        return np.hypot(u / radius(0.04, 0.065), v / radius(0.04, 0.065)) - 1
    if name == "stain":
        waves = sum(np.sin(along * u + across * v) for along, across in rng.normal(0, 14, (3, 2)))
        return np.hypot(u / radius(0.12, 0.22), v / radius(0.12, 0.22)) * (1 + 0.12 * waves) - 1
    length = size * rng.uniform(0.2, 0.36)
    if name == "scratch":
        line = rng.uniform(-0.5, 0.5) * u**2
    else:
        bends = rng.normal(0, 0.035, 15)
        bends[7] = 0
        line = np.interp(u, np.linspace(-0.35, 0.35, 15), bends)
    return np.maximum(np.abs(v - line) / radius(0.014, 0.022), np.abs(u) / length) - 1


def _pixels(colours: np.ndarray) -> np.ndarray:
    levels = np.rint(np.clip(255 * colours, 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def _told_apart(image: np.ndarray, twin: np.ndarray, mask: np.ndarray) -> Surface:
    """Moves px of the mask that came out like the twin's, by one level; outside the two are equal as they are."""
    same = mask & (image == twin).all(axis=2)
    image[same] = np.where(twin[same] < 128, twin[same] + 1, twin[same] - 1)
    return Surface(image, twin, mask)
