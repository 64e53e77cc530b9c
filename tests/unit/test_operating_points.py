"""The operating point and the temperature against numbers derived by hand, scikit-learn and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn import metrics as sk

from retinue.metrics.at_point import (
    abstention_document,
    costs_document,
    point_document,
    predictive_intervals,
    predictive_values,
    uncalibrated_document,
)
from retinue.metrics.coverage import coverage_curve
from retinue.metrics.deciding import decide, decide_probs
from retinue.metrics.intervals import UNKNOWN, Interval, accuracy_interval
from retinue.metrics.operating_points import PointRule, choose_point, cuts_of
from retinue.metrics.probabilities import to_probs
from retinue.metrics.registry import Predicted
from retinue.metrics.temperature import HIGHEST, LOWEST, fit_temperature
from retinue.pipeline.artifacts import DecisionRule
from retinue.pipeline.errors import DataError

POSITIVE = np.array([1, 1, 0, 1, 0, 0, 0, 0], bool)
SCORES = np.array([4.0, 2.0, 1.0, 0.0, -1.0, -1.0, -3.0, -5.0])
"""Cuts, of 3 positives and 5 negatives: at 3 and above 1 + 0, at 1.5 2 + 0, at 0.5 2 + 1, at -0.5 3 + 1, …"""


@pytest.mark.parametrize(
    ("rule", "cut"),
    [
        (PointRule("youden"), -0.5),  # 3/3 - 1/5 = 0.8, before 2/3 at 1.5
        (PointRule("f_beta"), -0.5),  # F1 6/7, before 4/5
        (PointRule("f_beta", beta=0.25), 1.5),  # precision counts
        (PointRule("sensitivity", at_least=0.6), 1.5),
        (PointRule("sensitivity", at_least=0.9), -0.5),
        (PointRule("specificity", at_least=0.8), -0.5),
        (PointRule("specificity", at_least=0.9), 1.5),
        (PointRule("cost", costs=((0, 1), (1, 0))), 1.5),  # one error in eight, as at -0.5; equal, so the highest
        (PointRule("cost", costs=((0, 1), (5, 0))), -0.5),
        (PointRule("cost", costs=((0, 5), (1, 0))), 1.5),
        (PointRule("cost", costs=((0, 1), (5, 0)), prevalence=0.01), 1.5),  # nearly all are negative
        (PointRule("cost", costs=((0, 1), (100, 0)), prevalence=0.999), -0.5),
    ],
    ids=str,
)
def test_points_by_hand(rule: PointRule, cut: float) -> None:
    assert choose_point(POSITIVE, SCORES, rule) == cut


def test_to_call_nobody_may_be_cheapest() -> None:
    rule = PointRule("cost", costs=((0, 10), (1, 0)))
    assert choose_point(np.array([False, True]), np.array([2.0, 1.0]), rule) == 3


def test_cuts_lie_between_scores_and_beyond_their_ends() -> None:
    cuts = cuts_of(POSITIVE, SCORES)
    np.testing.assert_array_equal(cuts.log_odds, [5, 3, 1.5, 0.5, -0.5, -2, -4, -6])
    np.testing.assert_array_equal(cuts.true_positives, [0, 1, 2, 2, 3, 3, 3, 3])
    np.testing.assert_array_equal(cuts.false_positives, [0, 0, 0, 1, 1, 3, 4, 5])


def test_saturated_scores_are_cut_by_their_log_odds() -> None:
    """As probabilities all of them are 1.0."""
    logits = np.array([[38.0], [41.0], [45.0], [50.0]])
    cut = choose_point(np.array([0, 0, 1, 1], bool), logits[:, 0], PointRule("youden"))
    assert cut == 43
    np.testing.assert_array_equal(decide(logits, DecisionRule(log_odds=cut)).predicted, [0, 0, 1, 1])


def test_a_point_needs_both_classes() -> None:
    with pytest.raises(DataError, match="both classes"):
        choose_point(np.ones(3, bool), np.arange(3.0), PointRule("youden"))


@st.composite
def validation(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Positives and scores with ties, rare to common."""
    size = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    positive = rng.random(size) < draw(st.sampled_from([0.1, 0.5]))
    positive[:2] = [True, False]
    return positive, np.round(rng.normal(size=size) + positive, draw(st.integers(0, 3)))


@pytest.mark.slow
@given(validation(), st.sampled_from([0.5, 0.8, 0.9, 0.99]))
@settings(max_examples=60)
def test_no_cut_is_better_than_the_chosen_one(data: tuple[np.ndarray, np.ndarray], least: float) -> None:
    positive, scores = data
    every = [*np.unique(scores), np.inf]
    rates = {t: ((scores[positive] >= t).mean(), (scores[~positive] < t).mean()) for t in every}

    def at(rule: PointRule) -> tuple[float, float]:
        cut = choose_point(positive, scores, rule)
        return (scores[positive] >= cut).mean(), (scores[~positive] < cut).mean()

    assert sum(at(PointRule("youden"))) == pytest.approx(max(map(sum, rates.values())))
    sensitivity, specificity = at(PointRule("sensitivity", at_least=least))
    assert sensitivity >= least - 1e-9
    assert specificity == pytest.approx(max(spec for sens, spec in rates.values() if sens >= least - 1e-9))
    sensitivity, specificity = at(PointRule("specificity", at_least=least))
    assert specificity >= least - 1e-9
    assert sensitivity == pytest.approx(max(sens for sens, spec in rates.values() if spec >= least - 1e-9))
    best = max(sk.fbeta_score(positive, scores >= t, beta=2, zero_division=0) for t in every)
    cut = choose_point(positive, scores, PointRule("f_beta", beta=2))
    assert sk.fbeta_score(positive, scores >= cut, beta=2, zero_division=0) == pytest.approx(best)
    costs = ((0.0, 1.0), (7.0, 0.0))
    paid = [(positive & (scores < t)).sum() * 7 + (~positive & (scores >= t)).sum() for t in every]
    cut = choose_point(positive, scores, PointRule("cost", costs=costs))
    assert (positive & (scores < cut)).sum() * 7 + (~positive & (scores >= cut)).sum() == min(paid)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("scale", [0.3, 1.0, 6.0])
def test_the_temperature_has_the_lowest_log_loss(outputs: int, scale: float) -> None:
    rng = np.random.default_rng(outputs)
    num_classes = max(outputs, 2)
    labels = np.arange(300) % num_classes
    logits = rng.normal(size=(300, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    logits = scale * (logits if outputs > 1 else 2 * (logits[:, 1:] - logits[:, :1]))
    found = fit_temperature(labels, logits.astype(np.float32))
    loss = minimize_scalar(
        lambda t: sk.log_loss(labels, to_probs(logits / t)),
        bounds=(0.05, 20),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found.value == pytest.approx(loss.x, rel=1e-4)
    assert ("less sure" in found.why) == (found.value > 1)


def test_a_temperature_that_cannot_be_fitted_is_said() -> None:
    labels = np.array([0, 1, 0, 1])
    right = np.array([[-2.0], [3.0], [-1.0], [0.1]])
    assert fit_temperature(labels, right) == (1.0, "All 4 validation images are predicted right, so it stays at 1.")
    assert fit_temperature(labels, -right).value == HIGHEST
    nearly = np.array([[-0.01]] * 49 + [[0.01]] * 50 + [[-1e-4]])  # one error by next to nothing
    assert fit_temperature(np.repeat([0, 1], [49, 51]), nearly).value == LOWEST


def test_costs_decide_for_the_cheapest_class() -> None:
    """By hand: of (0.5, 0.3, 0.2) class 0 costs 0.2·10, class 1 0.5 + 0.2·10, class 2 0.5 + 0.3."""
    costs = ((0, 1, 1), (0, 0, 1), (10, 10, 0))
    found = decide(np.log(np.array([[0.5, 0.3, 0.2], [0.9, 0.08, 0.02]])), DecisionRule(costs=costs, reject_below=0.3))
    np.testing.assert_array_equal(found.predicted, [2, 0])
    np.testing.assert_allclose(found.confidence, [0.2, 0.9])
    np.testing.assert_array_equal(found.abstained, [True, False])
    np.testing.assert_array_equal(decide_probs(found.probs, DecisionRule(costs=costs)).predicted, [2, 0])


def test_decisions_by_probabilities_are_those_by_logits() -> None:
    rng = np.random.default_rng(0)
    for outputs in (1, 3):
        logits = rng.normal(size=(50, outputs))
        decision = DecisionRule(temperature=1.7, log_odds=0.4 if outputs == 1 else 0.0, reject_below=0.6)
        by_logits = decide(logits, decision)
        by_probs = decide_probs(by_logits.probs, decision)
        np.testing.assert_array_equal(by_logits.predicted, by_probs.predicted)
        np.testing.assert_array_equal(by_logits.abstained, by_probs.abstained)
        np.testing.assert_allclose(by_logits.probs, to_probs(logits / 1.7))
    np.testing.assert_array_equal(decide_probs(np.array([[0.0, 1.0], [1.0, 0.0]])).predicted, [1, 0])


MATRIX = np.array([[90, 10], [4, 16]])
"""Specificity 0.9, sensitivity 0.8."""


def intervals_of(matrix: np.ndarray) -> dict[str, list[Interval]]:
    """Of images that belong to nothing else."""

    def ends(right: int, total: int) -> Interval:
        return accuracy_interval(right, total, confidence_level=0.95) if total else UNKNOWN

    return {
        "recall_score": [ends(matrix[c, c], matrix[c].sum()) for c in (0, 1)],
        "precision_score": [ends(matrix[c, c], matrix[:, c].sum()) for c in (0, 1)],
    }


def test_predictive_values_by_bayes_rule() -> None:
    assert predictive_values(0.8, 0.9, 20 / 120) == pytest.approx((16 / 26, 90 / 94))
    assert predictive_values(0.8, 0.9, 0.01) == pytest.approx((0.008 / (0.008 + 0.099), 0.891 / (0.891 + 0.002)))
    assert predictive_values(0.0, 1.0, 0.1) == (None, pytest.approx(0.9))


def test_the_document_of_a_point() -> None:
    decision = DecisionRule(operating_point="youden", log_odds=-1.0)
    found = point_document(MATRIX, intervals_of(MATRIX), decision)
    assert (found["rule"], found["prevalence_is_stated"], found["prevalence"]) == ("youden", False, 20 / 120)
    assert (found["sensitivity_score"], found["specificity_score"]) == (0.8, 0.9)
    assert (found["ppv_score"], found["npv_score"]) == pytest.approx((16 / 26, 90 / 94))
    assert all(low < found[name] < high for name, (low, high) in found["intervals"].items())
    stated = point_document(MATRIX, intervals_of(MATRIX), DecisionRule(prevalence=0.01))
    assert stated["ppv_score"] == pytest.approx(0.008 / 0.107)
    low, high = stated["intervals"]["ppv_score"]
    assert low < stated["ppv_score"] < high < found["intervals"]["ppv_score"][0]
    nobody = np.array([[100, 0], [20, 0]])
    for decision in (DecisionRule(prevalence=0.01), DecisionRule()):
        document = point_document(nobody, intervals_of(nobody), decision)
        assert document["ppv_score"] is None
        assert "ppv_score" not in document["intervals"]


@pytest.mark.parametrize(
    ("images", "rates"), [((30, 200), (0.85, 0.93)), ((30, 200), (0.85, 0.99)), ((5, 200), (0.8, 0.9))]
)
def test_predictive_intervals_cover(images: tuple[int, int], rates: tuple[float, float]) -> None:
    """In at least 93 % of 1,000 simulated tests, at a prevalence of 5 %, with 30 positives and with 5."""
    rng = np.random.default_rng(1)
    truth = predictive_values(*rates, 0.05)
    hits, drawn = np.zeros(2), [rng.binomial(n, rate, 1000) for n, rate in zip(images, rates, strict=True)]
    for right in zip(*drawn, strict=True):
        shares = [
            (k / n, *accuracy_interval(int(k), n, confidence_level=0.95)) for k, n in zip(right, images, strict=True)
        ]
        ends = predictive_intervals(*shares, 0.05)
        hits += [low <= value <= high for value, (low, high) in zip(truth, ends, strict=True)]
    assert (hits / 1000 >= 0.93).all()


def test_costs_and_abstention_by_hand() -> None:
    decision = DecisionRule(costs=((0, 1), (5, 0)))
    assert costs_document(MATRIX, np.array([[100, 0], [20, 0]]), decision) == {
        "mean_cost_loss": pytest.approx((10 + 20) / 120),
        "most_probable_mean_cost_loss": pytest.approx(100 / 120),
    }
    predicted = Predicted.from_logits(np.log(np.array([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])))
    found = abstention_document(np.array([0, 0, 2]), predicted, np.arange(3), 0.6, confidence_level=0.95)
    assert (found["num_abstained"], found["coverage"], found["accuracy_score"]) == (1, 2 / 3, 0.5)
    nothing = abstention_document(np.array([0, 0, 2]), predicted, np.arange(3), 0.99, confidence_level=0.95)
    assert (nothing["num_abstained"], nothing["accuracy_score"]) == (3, None)


def test_coverage_by_hand_and_thinned() -> None:
    right, confidence = np.array([True, False, True, True]), np.array([0.9, 0.5, 0.5, 0.7])
    curve = coverage_curve(right, confidence, 100)
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 1.0])  # the two at 0.5 come together
    np.testing.assert_allclose(curve.accuracy, [1, 1, 0.75])
    rng = np.random.default_rng(0)
    thin = coverage_curve(rng.random(5000) < 0.8, rng.random(5000), 40)
    assert len(thin.coverage) <= 40
    assert thin.coverage[-1] == 1


def test_metrics_without_temperature_are_those_of_the_logits() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(90) % 3
    logits = rng.normal(size=(90, 3)) + np.eye(3)[labels]
    predicted = Predicted.from_logits(logits, DecisionRule(temperature=2.5))
    plain = uncalibrated_document(labels, predicted, calibration_bins=15)
    assert plain["log_loss"] == pytest.approx(sk.log_loss(labels, to_probs(logits)), abs=1e-12)
    np.testing.assert_array_equal(predicted.scores, Predicted.from_logits(logits).scores)
