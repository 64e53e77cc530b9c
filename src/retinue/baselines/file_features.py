"""What is known of an image without its picture: the size, format and dimensions of its file, and its EXIF."""

from collections.abc import Sequence

import numpy as np

from retinue.images.shortcuts import feature_columns, feature_groups
from retinue.pipeline.artifacts import ImageMeasures, RawImage

GROUPS = ("file size", "file format", "pixel format", "dimensions", "EXIF")
"""Of `shortcuts.feature_groups`, those that need no px: a file's bytes and header tell them."""


def file_features(images: Sequence[RawImage], measures: Sequence[ImageMeasures], learnt: np.ndarray) -> np.ndarray:
    """Numbers as they are, and of each category which image has each of its most frequent values.

    Args:
        images: rows of the raw manifest.
        measures: theirs.
        learnt: bool (N,), which images are fitted to: the values that are told apart are those frequent among them.

    Returns:
        float32 (N, D).
    """
    groups = feature_groups(images, measures)
    features = [feature for name in GROUPS for feature in groups[name]]
    columns = [column for feature in features for column in feature_columns(feature, learnt)]
    return np.column_stack(columns).astype(np.float32)
