"""How well a map finds what is known to be there: the parts of the image that a mask marks.

Both scores are what a point finds that is drawn from the map, so both have the same reference: a uniform map gets the
mask's fraction of the area.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from retinue.pipeline.artifacts import Localisation


def energy_score(heat: np.ndarray, mask: np.ndarray) -> float:
    """The part of a map's total that lies inside the mask.

    The energy-based pointing game of Wang et al. 2020, "Score-CAM". They add up inside a bounding box; here it is the
    mask.

    Args:
        heat: float (H, W), >= 0.
        mask: bool (H, W).

    Returns:
        In [0, 1]; 0 for a map that is 0 everywhere and so points nowhere.

    >>> energy_score(np.array([[3.0, 1.0]]), np.array([[True, False]]))
    0.75
    """
    total = heat.sum(dtype=np.float64)
    return float(heat[mask].sum(dtype=np.float64) / total) if total > 0 else 0.0


def pointing_score(heat: np.ndarray, mask: np.ndarray) -> float:
    """Whether the strongest px of a map lies inside the mask.

    The pointing game of Zhang et al. 2018, "Top-down neural attention by excitation backprop". They count a point up to
    15 px outside as a hit; here it must lie inside. Where several px are equally strong, the score is the part of them
    that lies inside.

    Args:
        heat: float (H, W), >= 0.
        mask: bool (H, W).

    Returns:
        1 for a hit, 0 for a miss, between them only where several px are the strongest; 0 for a map that is 0
        everywhere.

    >>> pointing_score(np.array([[3.0, 1.0]]), np.array([[True, False]]))
    1.0
    """
    peak = heat.max()
    return float(mask[heat == peak].mean()) if peak > 0 else 0.0


def mean_scores(rows: Iterable[Localisation]) -> dict[str, Any]:
    """The document explanations/localisation.json: scores over all images and over those of each outcome.

    Returns:
        "all" and the outcomes there are -> `images`, `energy_score`, `pointing_score` and `mask_fraction`; the scores
        are means over the images, absent where there is none.
    """
    groups: dict[str, list[Localisation]] = {"all": []}
    for row in rows:
        groups["all"].append(row)
        groups.setdefault(row.outcome, []).append(row)
    return {name: _mean_of_rows(members) for name, members in groups.items()}


def _mean_of_rows(rows: list[Localisation]) -> dict[str, Any]:
    keys = ("energy_score", "pointing_score", "mask_fraction")
    means = {key: float(np.mean([asdict(row)[key] for row in rows])) for key in keys} if rows else {}
    return {"images": len(rows), **means}
