"""What morphology and the other operations promise for any image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retinue.images.operations.chain import Chain

IMAGES = arrays(np.uint8, st.tuples(st.integers(1, 16), st.integers(1, 16), st.just(1)), elements=st.integers(0, 255))
ELEMENTS = st.fixed_dictionaries(
    {
        "kernel_size": st.sampled_from([1, 3, 5]),
        "shape": st.sampled_from(["rect", "ellipse", "cross"]),
        "iterations": st.integers(1, 2),
    }
)


def applied(image: np.ndarray, name: str, **arguments: object) -> np.ndarray:
    return Chain([{"name": name, **arguments}], image.shape[2])(image)


@given(image=IMAGES, element=ELEMENTS)
@budget(max_examples=120, deadline=None)
def test_morphology(image: np.ndarray, element: dict[str, object]) -> None:
    """Erosion and dilation are dual, bound the image, and make opening and closing, which are idempotent."""
    eroded, dilated, opened, closed = (
        applied(image, name, **element) for name in ("erode", "dilate", "opening", "closing")
    )
    assert np.array_equal(applied(255 - image, "erode", **element), 255 - dilated)
    assert np.array_equal(applied(255 - image, "opening", **element), 255 - closed)
    assert (eroded <= opened).all()
    assert (opened <= image).all()
    assert (image <= closed).all()
    assert (closed <= dilated).all()
    assert np.array_equal(applied(opened, "opening", **element), opened)
    assert np.array_equal(applied(closed, "closing", **element), closed)


@given(image=IMAGES, value=st.integers(0, 255))
@budget(max_examples=60, deadline=None)
def test_values(image: np.ndarray, value: int) -> None:
    """The negative undoes itself; thresholds leave two values; gamma 1 and a full stretch of a full range leave all."""
    assert np.array_equal(applied(applied(image, "negative"), "negative"), image)
    kinds = {kind: applied(image, "threshold", value=value, kind=kind) for kind in ("binary", "binary_inv", "tozero")}
    assert np.array_equal(kinds["binary"], 255 - kinds["binary_inv"])
    assert np.array_equal(kinds["tozero"], np.minimum(kinds["binary"], image))
    assert np.array_equal(applied(image, "gamma", gamma=1), image)
    assert set(np.unique(applied(image, "otsu"))) <= {0, 255}
    full = image.copy()
    full.flat[0], full.flat[-1] = 0, 255
    if full.size > 1:
        assert np.array_equal(applied(full, "contrast_stretching"), full)


@pytest.mark.parametrize("mask", ["circle", "rectangle", "bright", "dark"])
@given(image=IMAGES)
@budget(max_examples=25, deadline=None)
def test_bitwise(mask: str, image: np.ndarray) -> None:
    """Image and mask have as much together as their and and or; exclusive or twice with a shape is nothing."""
    kept, raised = (applied(image, name, mask=mask, size=0.7) for name in ("bitwise_and", "bitwise_or"))
    assert set(np.unique(kept.astype(int) + raised - image)) <= {0, 255}
    assert (kept <= image).all()
    assert (image <= raised).all()
    if mask in ("circle", "rectangle"):
        inverted = applied(image, "bitwise_xor", mask=mask, size=0.7)
        assert np.array_equal(applied(inverted, "bitwise_xor", mask=mask, size=0.7), image)


@given(image=IMAGES, colours=st.integers(2, 6))
@budget(max_examples=40, deadline=None)
def test_kmeans_is_idempotent_for_few_colours(image: np.ndarray, colours: int) -> None:
    found = applied(image, "kmeans", colours=colours)
    assert len(np.unique(found)) <= colours
    assert (found >= image.min()).all()
    assert (found <= image.max()).all()
