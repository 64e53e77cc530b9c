"""Curves of at most so many points, with the area of the full curve."""

import numpy as np

from retinue.metrics.curves import PrecisionRecallCurve, RocCurve


def thin_roc(curve: RocCurve, points: int) -> RocCurve:
    """`curve` with at most `points` points and the same area.

    The curve is cut into b = (points - 1) // 2 blocks of equal length |dx| + |dy|. The ends of a block stay as they
    are. What lies between them becomes one point Q on the falling diagonal of the block's box, w wide and h high:
    Q = centre + s · (-w/2, h/2).

    Why the area stays: the polyline A, Q, B exceeds the chord A, B by the triangle's area s·w·h/2. A monotone curve
    from A to B stays in the box and exceeds the chord by e, with |e| <= w·h/2. So s = 2e / (w·h) is in [-1, 1]: Q is
    in the box, the thinned curve is monotone, and block by block the area is that of the full curve, up to the
    rounding of float64 (below 1e-12 in all). No point moves out of its box.

    Args:
        curve: of any length.
        points: >= 3.

    Returns:
        The curve; the threshold of a Q is that of the nearest point that it stands for.
    """
    x, y, threshold = curve
    if len(x) <= points:
        return curve
    blocks = (points - 1) // 2
    along = x + y
    ends = np.unique(np.r_[0, np.searchsorted(along, np.linspace(0, along[-1], blocks + 1)[1:-1]), len(x) - 1])
    start, stop = ends[:-1], ends[1:]
    area = np.r_[0.0, np.cumsum(np.diff(x) * (y[1:] + y[:-1]) / 2)]
    width, height = x[stop] - x[start], y[stop] - y[start]
    excess = area[stop] - area[start] - width * (y[start] + y[stop]) / 2
    box = width * height / 2
    shift = np.clip(np.divide(excess, box, out=np.zeros_like(box), where=box > 0), -1, 1) / 2
    merged_x = (x[start] + x[stop]) / 2 - shift * width
    merged_y = (y[start] + y[stop]) / 2 + shift * height
    many = stop - start > 1
    nearest = np.clip(np.searchsorted(along, merged_x + merged_y), start + 1, stop - 1)[many]
    order = np.argsort(np.r_[ends, start[many] + 0.5])
    return RocCurve(
        np.r_[x[ends], merged_x[many]][order],
        np.r_[y[ends], merged_y[many]][order],
        np.r_[threshold[ends], threshold[nearest]][order],
    )


def thin_precision_recall(curve: PrecisionRecallCurve, points: int) -> PrecisionRecallCurve:
    """`curve` with at most `points` points and the same area.

    First and last point stay. The steps between are gathered into blocks of equal recall; a block becomes one step to
    the recall at its end, at its mean precision: sum of (recall step · precision) / (recall of the block). Summed over
    the blocks that is the sum over the steps, so the area stays; a mean lies between the values it is of.

    Args:
        curve: of any length.
        points: >= 3.

    Returns:
        The curve; the threshold of a block is that at its end.
    """
    recall, precision, threshold = curve
    if len(recall) <= points:
        return curve
    targets = np.linspace(0, recall[-1], points - 1)[1:]
    ends = np.unique(np.searchsorted(recall, targets))
    area = np.r_[0.0, np.cumsum(np.diff(recall) * precision[1:])]
    start = np.r_[0, ends[:-1]]
    mean = (area[ends] - area[start]) / (recall[ends] - recall[start])
    low = np.minimum.reduceat(precision, start + 1)
    high = np.maximum.reduceat(precision, start + 1)
    return PrecisionRecallCurve(
        np.r_[recall[0], recall[ends], recall[-1]],
        np.r_[precision[0], np.clip(mean, low, high), precision[-1]],
        np.r_[threshold[0], threshold[ends], threshold[-1]],
    )
