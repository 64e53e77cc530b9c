"""What an image is recognised by in another file: signs and sizes of its lower frequencies, and its colours.

A copy shares the picture down to its fine detail; two photographs of bare surfaces share their light, their colour and,
at most, the pitch of their texture. So light and shade are taken out, and the rest is divided by its own contrast
there: a frame, or the round edge of a microscope's field, counts no more than what lies inside. Of the frequencies,
all count alike (their usual decay with 1/f is undone), and square roots keep a few strong ones, which are all that a
woven or striped texture has, from outvoting the rest.

The descent is that of the perceptual hash of DCT signs (C. Zauner, Implementation and Benchmarking of Perceptual Image
Hash Functions, 2010, section 3.2.1), with sizes beside the signs.
"""

import cv2
import numpy as np

ORDER = 16
"""Frequencies of each axis, in half periods an image, from 0."""

_SIDE = 32  # px of the square that the frequencies are of
_CELLS = 4
_VALUES = ORDER**2
LENGTH = _VALUES + 2 * _CELLS**2
"""int8 of a fingerprint: its bandwidth, the values of its frequencies, and two colours of every cell."""

_SMALLEST_SIDE = 16  # px; below, too few frequencies are left to tell a copy from what looks alike
_BLUR = 2.0  # px of the square, the standard deviation of what is light and not detail
_LEAST_STRUCTURE = 1.0  # gray levels, the root mean square of the detail
_NOISE = 3.0  # gray levels: detail far below stays as faint as it is
_LARGEST = 127
_MOST_CONTRAST = 2.5  # of one copy, to the colours of the other
_MOST_COLOUR = 40  # gray levels of Cb or Cr, by which the colours of a cell may differ

_ROW, _COLUMN = (axis.ravel() for axis in np.mgrid[:ORDER, :ORDER])
_FREQUENCY = np.hypot(_ROW, _COLUMN)
IS_USED = _FREQUENCY >= 2
"""bool (ORDER²,): which values count, row by row; the others hold light and shade."""
LEVEL = np.maximum(_ROW, _COLUMN)
"""int (ORDER²,): the least bandwidth, less one, with which a value has a meaning."""


def _cosines(count: int, size: int) -> np.ndarray:
    """The first `count` functions of the orthonormal DCT-II of `size` samples, float64 (count, size)."""
    cosines = np.cos(np.pi / size * np.outer(np.arange(count), np.arange(size) + 0.5)) * np.sqrt(2 / size)
    cosines[0] /= np.sqrt(2)
    return cosines


def _means(size: int, spread: float) -> np.ndarray:
    """Gaussian weights of `size` samples around each, normalised, float64 (size, size)."""
    away = np.subtract.outer(np.arange(size), np.arange(size)) / spread
    weights = np.exp(-(away**2) / 2)
    return weights / weights.sum(axis=1, keepdims=True)


_COSINES, _MEANS = _cosines(ORDER, _SIDE), _means(_SIDE, _BLUR)


def image_fingerprint(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The fingerprint of an image, whatever its proportions: it is stretched to a square.

    Args:
        pixels: uint8 (H, W, 3) RGB, upright; may be reduced, to a longer side of no less than `MEASURED_SIDE`.
        width, height: px of the image itself, which say how much detail it can have.

    Returns:
        int8 (LENGTH,), the first of which is the bandwidth: of how many frequencies each axis has values. 0 is that of
        an image without structure, as a plain surface, or of less than 16 px, which is compared with none.
    """
    result = np.zeros(LENGTH, np.int8)
    if min(width, height) < _SMALLEST_SIDE:
        return result
    small = cv2.cvtColor(_squared(pixels), cv2.COLOR_RGB2YCrCb)
    luma = small[:, :, 0].astype(np.float64)
    detail = luma - _MEANS @ luma @ _MEANS.T
    power = _MEANS @ detail**2 @ _MEANS.T
    if power.mean() < _LEAST_STRUCTURE**2:
        return result
    amplitudes = (_COSINES @ (detail / (np.sqrt(power) + _NOISE)) @ _COSINES.T).ravel() * IS_USED
    values = np.sign(amplitudes) * np.sqrt(_FREQUENCY * np.abs(amplitudes))
    result[:_VALUES] = np.rint(_LARGEST / np.abs(values).max() * values)
    result[0] = min(ORDER, 2 * min(width, height) // 3)
    colours = cv2.resize(small[:, :, 1:], (_CELLS,) * 2, interpolation=cv2.INTER_AREA).astype(np.int16) - 128
    result[_VALUES:] = np.clip(colours, -_LARGEST, _LARGEST).ravel()
    return result


def _squared(pixels: np.ndarray) -> np.ndarray:
    """`pixels` uint8 (H, W, 3) as (32, 32, 3), each the mean of what it stands for."""
    while min(pixels.shape[:2]) >= 4 * _SIDE:
        # At one half, INTER_LINEAR averages all px in a tenth of INTER_AREA's time.
        pixels = cv2.resize(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2), interpolation=cv2.INTER_LINEAR)
    method = cv2.INTER_AREA if min(pixels.shape[:2]) >= _SIDE else cv2.INTER_LINEAR
    return cv2.resize(pixels, (_SIDE, _SIDE), interpolation=method)


def bandwidths(fingerprints: np.ndarray) -> np.ndarray:
    """The number of frequencies that each axis of the fingerprints (N, LENGTH) has: int (N,); 0: not to be compared."""
    return fingerprints[:, 0].astype(np.intp)


def _turning(quarters: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of an image turned counter-clockwise come from, and their signs: (LENGTH,) each."""
    order = np.arange(_VALUES).reshape(ORDER, ORDER)
    cells = _VALUES + np.arange(2 * _CELLS**2).reshape(_CELLS, _CELLS, 2)
    signs = np.ones((ORDER, ORDER), np.int8)
    mirrored = np.where(np.arange(ORDER)[:, np.newaxis] % 2, -1, 1).astype(np.int8)  # a cosine, read backwards
    for _ in range(quarters):  # each is a transposition, and then the rows the other way round
        order, signs = order.T, signs.T * mirrored
    source = np.concatenate([order.ravel(), np.rot90(cells, quarters).ravel()])
    return source, np.concatenate([signs.ravel(), np.ones(cells.size, np.int8)])


_TURNINGS = [_turning(quarters) for quarters in range(4)]


def turned(fingerprints: np.ndarray, quarters: int) -> np.ndarray:
    """The fingerprints (N, LENGTH) of the same images turned by `quarters` times 90 degrees counter-clockwise."""
    source, signs = _TURNINGS[quarters]
    return fingerprints[:, source] * signs


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far images are from being copies, pair by pair: 1 - the cosine of the angle between their values.

    Args:
        one, other: fingerprints int8 (N, LENGTH) of images with structure, turned alike.

    Returns:
        float64 (N,) in [0, 2]: 0 for the same values, about 1 for images that have nothing to do with each other; 2
        where the colours contradict each other, as red and green do, whatever the values.
    """
    bandwidth = np.minimum(bandwidths(one), bandwidths(other))
    counts = (bandwidth[:, np.newaxis] > LEVEL) & IS_USED
    # Sums of 256 products of int8 are integers below 2**24, which float32 holds: exact, in whatever order.
    a, b = (np.where(counts, each[:, :_VALUES], 0).astype(np.float32) for each in (one, other))
    product, power = np.einsum("ij,ij->i", a, b), np.einsum("ij,ij->i", a, a).astype(np.float64)
    power *= np.einsum("ij,ij->i", b, b)
    cosine = np.divide(product, np.sqrt(power), out=np.full(len(a), -1.0), where=power > 0)
    return np.where(_colours_agree(one[:, _VALUES:], other[:, _VALUES:]), 1 - cosine, 2.0)


def _colours_agree(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether the colours of all cells are alike, up to a common factor: bool (N,)."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    power = (b * b).sum(axis=1)
    ratio = np.divide((a * b).sum(axis=1), power, out=np.ones(len(a)), where=power > 0)
    ratio = np.clip(ratio, 1 / _MOST_CONTRAST, _MOST_CONTRAST)[:, np.newaxis]
    # Shared by both, so that neither is the measure of the other.
    return (np.abs(a / np.sqrt(ratio) - b * np.sqrt(ratio)) <= _MOST_COLOUR).all(axis=1)
