"""Which labels are probably wrong: confident learning on predictions of images that were not trained on.

A network that errs on an image is wrong, or its label is. Where it is surer of another class than it is, on the
average, of the images that carry that class, the label is worth a look.
"""

from typing import NamedTuple

import numpy as np

from retinue.metrics.probabilities import checked_inputs


class Doubtful(NamedTuple):
    """Images whose labels are doubtful, the most doubtful first.

    Attributes:
        rows: int64 (M,), of the images.
        suggested: int64 (M,), the class each is taken for.
        margins: float64 (M,), probability of the suggested class less that of the label, in (0, 1].
        wrong_share: estimated fraction of all labels that are wrong, in [0, 1].
    """

    rows: np.ndarray
    suggested: np.ndarray
    margins: np.ndarray
    wrong_share: float


def doubtful_labels(labels: np.ndarray, probs: np.ndarray) -> Doubtful:
    """Confident learning (Northcutt, Jiang and Chuang 2021, J. Artif. Intell. Res. 70:1373).

    The threshold of a class is the mean probability that images labelled as it have for it. An image counts as the
    class with the largest probability among those whose threshold it reaches (the confident joint, equations 1 and 2);
    where that is not its label, the label is doubtful ("confident joint", section 3.2). The counts by label and class,
    scaled to the number of labels of each class (equation 3), estimate the share of wrong labels. Deviation: a label is
    doubtful only where the other class is the more probable one, as one that the network agrees with is not worth a
    look. Taking as many images as the estimate says ("prune by noise rate") found more and was right less often:
    docs/doubtful_labels.md.

    Args:
        labels: int64 (N,).
        probs: float (N, num_classes), of images that the network was not trained on; out of folds, or of val.

    Raises:
        DataError: what `checked_inputs` refuses.
    """
    labels, probs = checked_inputs(labels, probs)
    num_classes = probs.shape[1]
    images = np.arange(len(labels))
    support = np.bincount(labels, minlength=num_classes)
    own = np.bincount(labels, probs[images, labels], minlength=num_classes)
    thresholds = np.divide(own, support, out=np.full(num_classes, np.inf), where=support > 0)
    reached = np.where(probs >= thresholds, probs, -1.0)
    counted, is_confident = reached.argmax(axis=1), reached.max(axis=1) >= 0
    margins = probs[images, counted] - probs[images, labels]
    rows = np.flatnonzero(is_confident & (margins > 0))
    rows = rows[np.argsort(-margins[rows], kind="stable")]
    wrong = _wrong_share(labels[is_confident], counted[is_confident], support)
    return Doubtful(rows, counted[rows], margins[rows], wrong)


def _wrong_share(labels: np.ndarray, counted: np.ndarray, support: np.ndarray) -> float:
    """The share of wrong labels when those of each label are wrong as often as among the images that are counted.

    Args:
        labels, counted: int64 (M,), label and class of the images that are counted.
        support: int64 (K,), images of each label.
    """
    number = np.bincount(labels, minlength=len(support))
    wrong = np.bincount(labels[labels != counted], minlength=len(support))
    rates = np.divide(wrong, number, out=np.zeros(len(support)), where=number > 0)
    return float(rates @ support / support.sum())
