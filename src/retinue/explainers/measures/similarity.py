"""How alike two maps are."""

import numpy as np
from scipy.stats import rankdata


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of the px of two maps, equal ones with their mean rank.

    Args:
        first, second: float, of one shape.

    Returns:
        In [-1, 1]; 0 where one of them is the same everywhere, or not finite: such a map orders nothing.

    >>> rank_correlation(np.array([0.1, 0.2, 0.4]), np.array([1.0, 5.0, 6.0]))
    1.0
    """
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return 0.0
    ranks = [rankdata(each.ravel()) - (each.size + 1) / 2 for each in (first, second)]
    scale = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(np.clip(ranks[0] @ ranks[1] / scale, -1, 1)) if scale > 0 else 0.0
