"""Intervals against scipy, scikit-learn, DeLong's variance, the bootstrap of units, and the truth of simulations."""

import numpy as np
import pytest
import sklearn.metrics as sk
from benchmarks import interval_coverage
from benchmarks.interval_models import SENSITIVITY, SeveralClasses, TwoClasses
from scipy.stats import binomtest

from retinue.metrics import estimates, intervals, per_class, scalar
from retinue.metrics.calibration import calibration_interval
from retinue.metrics.intervals import Bounded, Interval, averaged_interval, effective_images
from retinue.metrics.metric_intervals import MetricIntervals, metric_intervals
from retinue.metrics.probabilities import log_odds, to_probs
from retinue.metrics.registry import Predicted, compute

LEVEL = 0.95


def predictions(num_classes: int, size: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits with ties."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % num_classes
    logits = np.round(rng.normal(size=(size, num_classes)) + 1.2 * np.eye(num_classes)[labels], 1)
    return labels, logits if num_classes > 2 else logits[:, 1:] - logits[:, :1]


def made(labels: np.ndarray, logits: np.ndarray, units: np.ndarray | None = None) -> MetricIntervals:
    probs = to_probs(logits)
    units = np.arange(len(labels)) if units is None else units
    decided = probs.argmax(axis=1)
    return metric_intervals(
        labels, decided, probs, log_odds(logits), units, calibration_bins=15, confidence_level=LEVEL
    )


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (354, 360), (360, 360), (7, 20)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_a_fraction_of_single_images_agrees_with_scipy(correct: int, total: int, level: float) -> None:
    expected = binomtest(correct, total).proportion_ci(level, method="exact")
    ends = (expected.low, expected.high)
    assert intervals.accuracy_interval(correct, total, confidence_level=level) == pytest.approx(ends, abs=1e-12)
    estimate = estimates.fraction(np.arange(total) < correct, np.ones(total, bool))
    if 0 < correct < total:
        assert effective_images(estimate, np.arange(total)) == pytest.approx(total, rel=1e-12)
    found = intervals.estimate_interval(estimate, np.arange(total), confidence_level=level)
    assert found == pytest.approx(ends, abs=1e-12)


def test_a_fraction_of_no_image_is_not_known() -> None:
    nothing = estimates.fraction(np.ones(3, bool), np.zeros(3, bool))
    assert intervals.estimate_interval(nothing, np.arange(3), confidence_level=LEVEL) == (0.0, 1.0)


def test_an_area_of_single_images_has_delongs_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeLong, DeLong and Clarke-Pearson 1988, equations 4 to 6, from all pairs."""
    labels, logits = predictions(2, 90)
    positive, negative = (logits[labels == c, 0] for c in (1, 0))
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    estimate = estimates.area_under_roc(labels == 1, logits[:, 0])
    assert estimate.value == pytest.approx(wins.mean(), abs=1e-12)
    monkeypatch.setattr(intervals, "PRIOR_UNITS", 0.0)
    images = effective_images(estimate, np.arange(90))
    assert wins.mean() * (1 - wins.mean()) / images == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("c", [0, 1])
def test_the_influence_on_average_precision_is_its_derivative_by_the_weights(c: int) -> None:
    labels, logits = predictions(2, 40)
    positive, scores = labels == c, logits[:, 0] * (1 if c else -1)
    estimate = estimates.average_precision(positive, scores)
    assert estimate.value == pytest.approx(sk.average_precision_score(positive, scores), abs=1e-12)
    step = 1e-6
    moved = np.array(
        [
            sk.average_precision_score(positive, scores, sample_weight=1 + step * (np.arange(40) == i))
            - sk.average_precision_score(positive, scores, sample_weight=1 - step * (np.arange(40) == i))
            for i in range(40)
        ]
    ) / (2 * step)
    for side, own in enumerate((positive, ~positive)):
        np.testing.assert_allclose(estimate.influence[own, side], moved[own] - moved[own].mean(), atol=1e-8)
        assert not estimate.influence[~own, side].any()


@pytest.mark.parametrize("area", ["roc", "precision_recall"])
def test_the_variance_over_units_is_that_of_the_bootstrap_of_units(area: str) -> None:
    """Of pooled classes, whose (image, class) pairs belong together as well; units of one to five images."""
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(150), rng.integers(1, 6, 150))
    labels = rng.integers(0, 3, len(units))
    scores = rng.normal(size=(len(units), 3)) + rng.normal(size=(150, 3))[units] + 1.5 * np.eye(3)[labels]
    estimate = estimates.pooled_classes(labels, scores, area=area)
    score = scalar.micro_auc_score if area == "roc" else scalar.micro_average_precision_score
    assert estimate.value == pytest.approx(score(labels, scores), abs=1e-12)
    rows = [np.flatnonzero(units == unit) for unit in range(150)]
    drawn = []
    for _ in range(300):
        chosen = np.concatenate([rows[unit] for unit in rng.integers(0, 150, 150)])
        drawn.append(score(labels[chosen], scores[chosen]))
    error = np.sqrt(estimate.value * (1 - estimate.value) / effective_images(estimate, units))
    assert error == pytest.approx(np.std(drawn), rel=0.12)


@pytest.mark.parametrize(("num_classes", "size"), [(2, 60), (3, 90)])
def test_copies_in_their_units_change_no_interval(num_classes: int, size: int) -> None:
    """Four copies of every image are no four images; without units all would be narrower by half."""
    labels, logits = predictions(num_classes, size)
    once, units = made(labels, logits), np.tile(np.arange(size), 4)
    again, blind = (made(np.tile(labels, 4), np.tile(logits, (4, 1)), given) for given in (units, np.arange(4 * size)))
    for name, (low, high) in once.overall.items():
        width = again.overall[name].high - again.overall[name].low
        assert width == pytest.approx(high - low, rel=0.04), name
        assert blind.overall[name].high - blind.overall[name].low < 0.8 * width, name


def test_a_perfect_or_a_lonely_result_has_a_wide_interval() -> None:
    labels = np.array([1] * 3 + [0] * 50)
    found = made(labels, np.where(labels == 1, 9.0, -9.0)[:, None])
    assert found.overall["auc_score"] == pytest.approx((0.025 ** (1 / 3), 1.0))  # three units of the smaller side
    assert found.per_class["recall_score"][1] == pytest.approx((0.025 ** (1 / 3), 1.0))
    assert found.overall["balanced_accuracy_score"].low < 0.7
    never = made(labels, np.linspace(-9, -1, 53)[:, None])
    assert never.per_class["precision_score"][1] == (0.0, 1.0)
    one_patient = made(labels, np.where(labels == 1, 9.0, -9.0)[:, None], np.where(labels == 1, 0, 1 + np.arange(53)))
    assert one_patient.overall["auc_score"] == pytest.approx((0.025, 1.0))


@pytest.mark.parametrize("case", ["usual", "perfect", "reversed", "one positive", "one unit", "never predicted"])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_every_interval_holds_its_value_and_has_a_width(num_classes: int, case: str) -> None:
    labels, logits = predictions(num_classes, 40)
    units = np.zeros(40, np.int64) if case == "one unit" else np.arange(40)
    if case == "one positive":
        labels[labels == 1] = 0
        labels[1] = 1
    if case in ("perfect", "reversed"):
        sign = 8.0 if case == "perfect" else -8.0
        logits = sign * (2.0 * (labels[:, None] == 1) - 1) if num_classes == 2 else sign * np.eye(4)[labels]
    if case == "never predicted":
        logits[:, -1] -= 50
    found = made(labels, logits, units)
    settings, predicted = {"calibration_bins": 15}, Predicted.from_logits(logits)
    overall, by_class = (compute(module, labels, predicted, settings) for module in (scalar, per_class))
    for name, ends in found.overall.items():
        assert 0 <= ends.low <= overall[name] + 1e-12, name
        assert overall[name] - 1e-12 <= ends.high <= 1, name
        assert ends.high - ends.low > 0.01, name
    for name, of_classes in found.per_class.items():
        for value, ends in zip(by_class[name], of_classes, strict=True):
            assert 0 <= ends.low <= value + 1e-12 <= ends.high + 2e-12 <= 1 + 2e-12, name
            assert ends.high - ends.low > 0.01, name


def test_saturated_logits_have_the_intervals_of_their_ranks() -> None:
    """All probabilities are 1.0: positives 45 and 41 against negatives 38, 50."""
    labels, logits = np.array([0, 1, 1, 0, 1]), np.array([[38.0], [41.0], [45.0], [50.0], [47.0]], np.float32)
    assert set(to_probs(logits)[:, 1]) == {1.0}
    saturated, plain = made(labels, logits), made(labels, logits - 43)
    for name in ("auc_score", "average_precision_score"):
        assert saturated.overall[name] == plain.overall[name]
        assert saturated.per_class[name] == plain.per_class[name]
        assert saturated.overall[f"micro_{name}"] != (0.0, 1.0)


def test_a_mean_of_classes_adds_their_errors_as_they_are_correlated() -> None:
    first = Bounded(0.5, Interval(0.1, 0.9), np.array([1.0, 0.0]))
    alone = Bounded(0.9, Interval(0.6, 1.0), np.array([0.0, 2.0]))
    with_it = Bounded(0.9, Interval(0.6, 1.0), np.array([3.0, 0.0]))
    silent = Bounded(0.9, Interval(0.6, 1.0), np.zeros(2))
    apart = (0.7 - np.hypot(0.2, 0.15), 0.7 + np.hypot(0.2, 0.05))  # Newcombe's square-and-add
    assert averaged_interval([first, alone]) == pytest.approx(apart)
    assert averaged_interval([first, silent]) == pytest.approx(apart)
    assert averaged_interval([first, with_it]) == pytest.approx((0.35, 0.95))


def test_the_calibration_error_has_an_interval_that_knows_its_bias() -> None:
    """All probabilities are right: the error of a sample is noise alone, and 0 is what has to be held."""
    rng = np.random.default_rng(0)
    probs = to_probs(rng.normal(size=(400, 1)) * 2)
    labels = (rng.random(400) < probs[:, 1]).astype(np.int64)
    settings = {"calibration_bins": 15, "confidence_level": LEVEL}
    found = calibration_interval(labels, probs, np.arange(400), **settings)
    assert found.low == 0.0
    assert found.low < scalar.calibration_error(labels, probs) < found.high < 0.15
    assert calibration_interval(labels, probs, np.arange(400) // 10, **settings).high >= found.high
    shifted = to_probs(np.full((400, 1), 3.0))
    found = calibration_interval(np.arange(400) % 2, shifted, np.arange(400), **settings)
    gap = 1 / (1 + np.exp(-3)) - 0.5
    assert found.low == pytest.approx(gap - 0.025 * (1.959964 * np.sqrt(1 - 2 / np.pi) + np.sqrt(2 / np.pi)), abs=2e-3)
    assert found.high == pytest.approx(gap + 0.025 * 1.959964, abs=2e-3)


def test_the_bootstrap_of_the_benchmark_is_that_of_scikit_learn() -> None:
    sample = TwoClasses(9, 31, 0.8).draw(np.random.default_rng(0))
    counts = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), size=5)
    values = interval_coverage.resampled(sample, counts)
    for i, row in enumerate(counts):
        labels, scores, decided = (np.repeat(of, row) for of in (sample.labels, sample.scores[:, 1], sample.decided))
        assert values["AUC"][i] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
        assert values["AP"][i] == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)
        assert values["accuracy"][i] == pytest.approx(sk.accuracy_score(labels, decided), abs=1e-12)
        assert values["sensitivity"][i] == pytest.approx(sk.recall_score(labels, decided), abs=1e-12)


def test_the_truth_of_the_simulations_is_what_many_images_show() -> None:
    for model in (TwoClasses(20_000, 80_000, 0.9), TwoClasses(20_000, 80_000, 0.9, unit_size=4, shared=0.5)):
        sample = model.draw(np.random.default_rng(0))
        labels, truth = sample.labels, model.truth()
        assert scalar.auc_score(labels, sample.scores) == pytest.approx(truth["AUC"], abs=0.01)
        assert scalar.average_precision_score(labels, sample.scores) == pytest.approx(truth["AP"], abs=0.01)
        assert sk.recall_score(labels, sample.decided) == pytest.approx(SENSITIVITY, abs=0.01)
        assert sk.f1_score(labels, sample.decided) == pytest.approx(truth["F1"], abs=0.01)
        error = scalar.calibration_error(labels, sample.probs)
        assert error == pytest.approx(truth["calibration error"], abs=0.01)


@pytest.mark.parametrize(
    ("model", "samples"),
    [
        pytest.param(TwoClasses(5, 245, 0.95), 60, id="2 % positives"),
        pytest.param(TwoClasses(20, 60, 0.9, unit_size=5, shared=0.5), 500, id="units", marks=pytest.mark.slow),
        pytest.param(SeveralClasses((10, 10, 30), 2.0), 300, id="three classes", marks=pytest.mark.slow),
    ],
)
def test_intervals_hold_the_truth(model: TwoClasses | SeveralClasses, samples: int) -> None:
    """The table of docs/evaluation.md, in small; 0.95 would fall below this in 1 of 1,000 seeds."""
    found = interval_coverage.coverage(model, samples, seed=0)
    assert all(held.least > 0 for held in found.values())
    assert min(held.coverage for held in found.values()) >= 0.95 - 3.1 * np.sqrt(0.95 * 0.05 / samples)
