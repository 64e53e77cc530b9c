"""Metrics against scikit-learn, against numbers derived by hand, and against input that is not what they take."""

from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest
import scipy.special
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from decisions import decided
from retinue.metrics import curves, per_class, scalar
from retinue.metrics.calibration import reliability
from retinue.metrics.confusion import confusion_matrix
from retinue.metrics.paired import auc_parts
from retinue.metrics.probabilities import (
    checked_decided,
    checked_inputs,
    checked_scores,
    is_constant,
    log_odds,
    to_probs,
)
from retinue.metrics.registry import Predicted
from retinue.metrics.summary import curve_tables, metrics_document
from retinue.pipeline.errors import DataError

OPTIONS = {
    "calibration_bins": 15,
    "curve_points": 100,
    "confidence_level": 0.95,
}


def predictions(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities, better than chance."""
    rng = np.random.default_rng(7)
    num_classes = 2 if "binary" in case else 5
    share = np.full(num_classes, 1 / num_classes)
    if "imbalanced" in case:
        share = np.geomspace(1, 0.02, num_classes)
        share /= share.sum()
    labels = np.r_[np.arange(num_classes), rng.choice(num_classes, 600, p=share)]
    logits = rng.normal(size=(len(labels), num_classes)) + 1.5 * np.eye(num_classes)[labels]
    if "ties" in case:
        logits = np.round(logits)
    if "binary" in case:
        logits = logits[:, 1:] - logits[:, :1]
    return labels, to_probs(logits.astype(np.float32))


CASES = ["binary", "binary ties", "binary imbalanced", "multiclass", "multiclass ties", "multiclass imbalanced"]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    return predictions(request.param)


def test_decisions_agree_with_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probs = case
    decisions = decided(probs)
    predicted = decisions.argmax(axis=1)
    assert scalar.accuracy_score(labels, decisions) == pytest.approx(sk.accuracy_score(labels, predicted), abs=1e-15)
    assert scalar.balanced_accuracy_score(labels, decisions) == pytest.approx(
        sk.balanced_accuracy_score(labels, predicted), abs=1e-15
    )
    np.testing.assert_array_equal(confusion_matrix(labels, decisions), sk.confusion_matrix(labels, predicted))
    names = ("precision_score", "recall_score", "f1_score")
    expected = sk.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for name, values in zip(names, expected, strict=False):
        np.testing.assert_allclose(getattr(per_class, name)(labels, decisions), values, rtol=1e-14)
        macro = getattr(scalar, f"macro_{name}")(labels, decisions)
        assert macro == pytest.approx(getattr(sk, name)(labels, predicted, average="macro", zero_division=0))


def test_areas_agree_with_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probs = case
    indicator = np.eye(probs.shape[1])[labels]
    auc = sk.roc_auc_score(indicator, probs, average=None)
    precision = sk.average_precision_score(indicator, probs, average=None)
    np.testing.assert_allclose(per_class.auc_score(labels, probs), auc, atol=1e-12)
    np.testing.assert_allclose(per_class.average_precision_score(labels, probs), precision, atol=1e-12)
    binary = probs.shape[1] == 2
    assert scalar.auc_score(labels, probs) == pytest.approx(auc[1] if binary else auc.mean(), abs=1e-12)
    expected = precision[1] if binary else precision.mean()
    assert scalar.average_precision_score(labels, probs) == pytest.approx(expected, abs=1e-12)
    micro = sk.roc_auc_score(indicator, probs, average="micro")
    assert scalar.micro_auc_score(labels, probs) == pytest.approx(micro, abs=1e-12)
    micro = sk.average_precision_score(indicator, probs, average="micro")
    assert scalar.micro_average_precision_score(labels, probs) == pytest.approx(micro, abs=1e-12)


def test_losses_agree_with_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probs = case
    assert scalar.log_loss(labels, probs) == pytest.approx(sk.log_loss(labels, probs), abs=1e-12)
    given = probs[:, 1] if probs.shape[1] == 2 else probs
    assert scalar.brier_loss(labels, probs) == pytest.approx(sk.brier_score_loss(labels, given), abs=1e-12)


def test_log_loss_of_a_certain_error_is_that_of_scikit_learn() -> None:
    labels, probs = np.array([1, 0]), np.array([[1.0, 0.0], [0.5, 0.5]])
    assert scalar.log_loss(labels, probs) == pytest.approx(sk.log_loss(labels, probs), abs=1e-12)


def test_calibration_error_agrees_with_torchmetrics(case: tuple[np.ndarray, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    labels, probs = case
    for bins in (1, 10, 15):
        expected = multiclass_calibration_error(
            torch.tensor(probs), torch.tensor(labels), probs.shape[1], n_bins=bins, norm="l1"
        )
        # torchmetrics sums in float32
        assert scalar.calibration_error(labels, probs, calibration_bins=bins) == pytest.approx(
            float(expected), abs=1e-6
        )


def test_calibration_bins_by_hand() -> None:
    labels = np.array([0, 1, 0, 0])
    probs = np.array([[0.5, 0.5], [0.6, 0.4], [0.9, 0.1], [0.8, 0.2]])
    bins = reliability(labels, probs, calibration_bins=4)  # (0.25, 0.5], (0.5, 0.75], (0.75, 1]; the first is empty
    np.testing.assert_array_equal(bins.upper, [0.5, 0.75, 1.0])
    np.testing.assert_array_equal(bins.num_images, [1, 1, 2])
    np.testing.assert_allclose(bins.confidence, [0.5, 0.6, 0.85])
    np.testing.assert_allclose(bins.accuracy, [1, 0, 1])
    assert scalar.calibration_error(labels, probs, calibration_bins=4) == pytest.approx((0.5 + 0.6 + 2 * 0.15) / 4)


def test_roc_curve_by_hand() -> None:
    """Three positives, two negatives; at 0.6 one of each: the slanted step."""
    positive = np.array([1, 1, 0, 1, 0], bool)
    curve = curves.roc_curve(positive, np.array([0.9, 0.6, 0.6, 0.3, 0.1]))
    np.testing.assert_allclose(curve.false_positive_rate, [0, 0, 1 / 2, 1 / 2, 1])
    np.testing.assert_allclose(curve.true_positive_rate, [0, 1 / 3, 2 / 3, 1, 1])
    np.testing.assert_array_equal(curve.threshold, [curves.ABOVE_ONE, 0.9, 0.6, 0.3, 0.1])
    wins = 2 + 1.5 + 1  # of 6 pairs, the tie counts half
    assert curves.roc_area(curve) == pytest.approx(wins / 6, abs=1e-15)


def test_roc_curve_is_the_polyline_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probs = case
    curve = curves.roc_curve(labels == 1, probs[:, 1])
    x, y, threshold = sk.roc_curve(labels == 1, probs[:, 1], drop_intermediate=False)
    full = set(zip(x[1:], y[1:], threshold[1:], strict=True))
    assert set(zip(*(column[1:] for column in curve), strict=True)) <= full
    vertical = np.isin(x, curve.false_positive_rate)
    np.testing.assert_allclose(np.interp(x, *curve[:2])[~vertical], y[~vertical], atol=1e-12)
    assert curves.roc_area(curve) == pytest.approx(sk.auc(x, y), abs=1e-12)


def test_precision_recall_curve_is_that_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probs = case
    curve = curves.precision_recall_curve(labels == 1, probs[:, 1])
    precision, recall, threshold = sk.precision_recall_curve(labels == 1, probs[:, 1])
    np.testing.assert_allclose(curve.recall[::-1], recall, atol=1e-15)
    np.testing.assert_allclose(curve.precision[::-1], precision, atol=1e-15)
    np.testing.assert_array_equal(curve.threshold[:0:-1], threshold)


def test_the_area_of_a_mean_curve_is_the_mean_of_the_areas() -> None:
    labels, probs = predictions("multiclass ties")
    rocs = [curves.roc_curve(labels == c, probs[:, c]) for c in range(5)]
    assert curves.roc_area(curves.mean_roc_curve(rocs)) == pytest.approx(scalar.auc_score(labels, probs), abs=1e-12)
    steps = [curves.precision_recall_curve(labels == c, probs[:, c]) for c in range(5)]
    mean = curves.precision_recall_area(curves.mean_precision_recall_curve(steps))
    assert mean == pytest.approx(scalar.average_precision_score(labels, probs), abs=1e-12)


def test_mean_roc_curve_by_hand() -> None:
    """A perfect curve and the diagonal: the mean starts at 1/2 and rises to 1."""
    nan = np.full(3, np.nan)
    perfect = curves.RocCurve(np.array([0.0, 0, 1]), np.array([0.0, 1, 1]), nan)
    diagonal = curves.RocCurve(np.array([0.0, 1]), np.array([0.0, 1]), nan[:2])
    mean = curves.mean_roc_curve([perfect, diagonal])
    np.testing.assert_array_equal(mean.false_positive_rate, [0, 0, 1])
    np.testing.assert_array_equal(mean.true_positive_rate, [0, 0.5, 1])


def test_a_class_that_is_never_predicted_has_precision_0() -> None:
    labels, probs = np.array([0, 1, 2]), np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    np.testing.assert_array_equal(per_class.precision_score(labels, decided(probs)), [0.5, 0, 1])
    np.testing.assert_array_equal(per_class.f1_score(labels, decided(probs)), [2 / 3, 0, 1])


def test_one_logit_is_the_log_odds_of_the_second_class() -> None:
    probs = to_probs(np.array([[0.0], [np.log(3)], [-1000.0], [40.0]], np.float64))
    np.testing.assert_allclose(probs[:, 1], [0.5, 0.75, 0, 1], atol=1e-15)
    assert probs[3, 0] == pytest.approx(np.exp(-40), rel=1e-12)  # 1 - 1 would be 0
    with_two = to_probs(np.array([[0.0, np.log(3)]]))
    np.testing.assert_allclose(with_two, probs[1:2], atol=1e-15)


def test_softmax_neither_overflows_nor_normalises_away() -> None:
    np.testing.assert_allclose(to_probs(np.array([[1e4, 0, 1e4]], np.float32)), [[0.5, 0, 0.5]])
    assert to_probs(np.empty((0, 3), np.float32)).shape == (0, 3)


SATURATED = np.array([38, 41, 45, 50, 47, 49], np.float32)[:, None]
"""Log-odds whose probabilities are all 1.0."""


def test_saturated_probabilities_rank_as_their_logits_do() -> None:
    """Positives 41, 50, 47 against negatives 38, 45, 49: 38 loses to all three, 45 to two, 49 to one."""
    labels = np.array([0, 1, 0, 1, 1, 0])
    predicted = Predicted.from_logits(SATURATED)
    assert set(predicted.probs[:, 1]) == {1.0}
    assert scalar.auc_score(labels, predicted.scores) == pytest.approx(6 / 9, abs=1e-15)
    assert sk.roc_auc_score(labels, SATURATED[:, 0]) == pytest.approx(6 / 9, abs=1e-15)
    assert scalar.average_precision_score(labels, predicted.scores) == pytest.approx(
        sk.average_precision_score(labels, SATURATED[:, 0]), abs=1e-15
    )
    document = metrics_document(labels, predicted, ["no", "yes"], OPTIONS, units=np.arange(6))
    assert document["auc_score"] == document["per_class"]["no"]["auc_score"] == pytest.approx(6 / 9, abs=1e-15)
    assert auc_parts(labels, predicted.scores).sum() / 2 == pytest.approx(6 / 9, abs=1e-15)
    tables = curve_tables(labels, predicted, ["no", "yes"], OPTIONS)
    x, y, threshold = zip(*(astuple(point)[1:] for point in tables["roc"]), strict=True)
    assert np.trapezoid(y, x) == pytest.approx(6 / 9, abs=1e-15)
    assert threshold == (curves.ABOVE_ONE, *[1.0] * (len(x) - 1))  # shown as probabilities
    assert len(tables["precision_recall"]) == 1 + len(labels)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("scale", [1, 15, 400])
def test_areas_of_logits_are_those_of_scikit_learn_on_the_log_odds(scale: float, dtype: type) -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(120) % 4
    logits = (scale * (rng.normal(size=(120, 4)) + 1.2 * np.eye(4)[labels])).astype(dtype)
    scores = log_odds(logits)
    exact = logits.astype(np.longdouble)
    others = [np.logaddexp.reduce(np.delete(exact, c, axis=1), axis=1) for c in range(4)]
    np.testing.assert_allclose(scores, (exact - np.stack(others, axis=1)).astype(float), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(to_probs(logits), scipy.special.expit(scores), atol=1e-12)
    indicator = np.eye(4)[labels]
    for own, theirs in (
        (per_class.auc_score, sk.roc_auc_score),
        (per_class.average_precision_score, sk.average_precision_score),
    ):
        np.testing.assert_allclose(own(labels, scores), theirs(indicator, scores, average=None), atol=1e-12)
    assert scalar.micro_auc_score(labels, scores) == pytest.approx(sk.roc_auc_score(indicator, scores, average="micro"))
    if scale == 400:
        assert (per_class.auc_score(labels, to_probs(logits)) != per_class.auc_score(labels, scores)).any()


def test_only_equal_scores_are_constant() -> None:
    logits = np.array([[1.0, 2.0, 30.0], [1.0, 2.5, 30.0]], np.float32)
    assert not is_constant(log_odds(logits))  # the third class is predicted for both, and they are told apart
    assert is_constant(log_odds(logits[[0, 0, 0]]))
    assert is_constant(log_odds(logits[[0, 0]] + np.array([[0.0], [5.0]], np.float32)))  # equal probabilities


LABELS, PROBS = np.array([0, 1]), np.array([[0.7, 0.3], [0.4, 0.6]])
REFUSED = {
    "labels: expected integers": (LABELS.astype(float), PROBS),
    "labels: expected integers (N,)": (LABELS[:, None], PROBS),
    "N >= 1": (LABELS[:0], PROBS[:0]),
    "expected 0 to 1, got 0 to 2": (np.array([0, 2]), PROBS),
    "got -1": (np.array([-1, 1]), PROBS),
    "probs: expected floats": (LABELS, PROBS.astype(int)),
    "probs: expected shape (2,": (LABELS, PROBS[:1]),
    "2 or more": (LABELS, PROBS[:, :1]),
    "probs: expected floats (N, num_classes)": (LABELS, PROBS[:, 1]),
    "row 1 is not finite": (LABELS, np.array([[0.7, 0.3], [np.nan, 0.6]])),
    "Are they logits?": (LABELS, np.array([[2.0, -1.0], [0.4, 0.6]])),
    "row 1 sums to 0.9": (LABELS, np.array([[0.7, 0.3], [0.4, 0.5]])),
}


@pytest.mark.parametrize("message", REFUSED)
@pytest.mark.parametrize("metric", [checked_inputs, scalar.log_loss, scalar.brier_loss, reliability])
def test_what_is_not_probabilities_is_refused(metric: Callable[..., object], message: str) -> None:
    with pytest.raises(DataError) as error:
        metric(*REFUSED[message])
    assert message in str(error.value)


NO_MATTER_OF_RANKS = ("probs: ", "Are they logits?", "row 1 sums to 0.9")


@pytest.mark.parametrize("message", [message for message in REFUSED if not message.startswith(NO_MATTER_OF_RANKS)])
@pytest.mark.parametrize("metric", [checked_scores, per_class.auc_score, scalar.micro_average_precision_score])
def test_what_is_not_scores_is_refused(metric: Callable[..., object], message: str) -> None:
    with pytest.raises(DataError) as error:
        metric(*REFUSED[message])
    assert message in str(error.value)
    with pytest.raises(DataError, match=r"scores: expected shape \(2, 2 or more\)"):
        metric(LABELS, PROBS[:1])


@pytest.mark.parametrize("metric", [checked_decided, scalar.accuracy_score, per_class.f1_score])
def test_what_is_not_decisions_is_refused(metric: Callable[..., object]) -> None:
    for decisions, message in (
        (PROBS, "decided: expected booleans (N, num_classes), got float64"),
        (np.array([[True, False], [True, True]]), "decided: row 1 decides for 2 classes; expected one"),
        (np.array([[False, False], [True, False]]), "decided: row 0 decides for 0 classes; expected one"),
    ):
        with pytest.raises(DataError) as error:
            metric(LABELS, decisions)
        assert message in str(error.value)


def test_an_area_needs_every_class() -> None:
    with pytest.raises(DataError, match="none is of class 1"):
        scalar.auc_score(np.array([0, 0]), PROBS)
    with pytest.raises(DataError, match="is negative"):
        curves.roc_curve(np.array([True]), np.array([0.5]))


@pytest.mark.parametrize("logits", [np.zeros(3), np.zeros((3, 0)), np.array([[0.0, np.inf]])])
def test_what_is_not_logits_is_refused(logits: np.ndarray) -> None:
    with pytest.raises(DataError, match="logits"):
        to_probs(logits)
