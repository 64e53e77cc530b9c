"""What the report says first of a model that never names some of its classes, and of one that names them all."""

from types import SimpleNamespace

import numpy as np
import pytest

from retinue.pipeline.artifacts import Epoch, Leaks, RawLevels, Seen, ShortcutCheck
from retinue.reports.plots import training_charts
from retinue.reports.verdict import verdict_points


def points(counts: list[list[int]], never_predicted: list[str]) -> list[str]:
    """The points on a confusion matrix of rows that are actual classes; everything else calls for no second look."""
    classes = ("ant", "bee", "cat")[: len(counts)]
    metrics = {"auc_score": 0.8125, "calibration_error": 0.01, "never_predicted": never_predicted}
    return verdict_points(
        SimpleNamespace(
            dataset=SimpleNamespace(classes=classes),
            confusion=np.array(counts),
            metrics=metrics,
            history=[SimpleNamespace(epoch=epoch) for epoch in (1, 2, 3)],
            bundle={"training": {"best_epoch": 2}},
            card={"duplicates": []},
            quarantine=[],
            seen=Seen(80, 0.0, 0.0, 0, 0, 0, ()),
            levels=RawLevels(0, None, None, None, is_from_data=False),
            leaks=Leaks((), (), ()),
            shortcuts=ShortcutCheck(80, 80, 2, 0, 0.95, 0.6, "", []),
            audit=SimpleNamespace(findings=[]),
            fit=SimpleNamespace(findings=()),
        )  # type: ignore[arg-type]
    )


def test_the_charts_mark_a_fitted_head() -> None:
    history = [Epoch(e, 0.1, 1 / (e + 2), 0.5, 1 / (e + 3), 0.5, 0.5, 2) for e in range(3)]
    loss = training_charts(history, 0)[0]
    assert "Loss over 2 epochs. At the best epoch, 0: train 0.5, val 0.3333." in loss.svg
    assert "At the best epoch, 1: train 0.3333, val 0.25." in training_charts(history, 1)[0].svg


@pytest.mark.parametrize(
    ("counts", "absent", "named", "advice"),
    [
        (
            [[40, 0], [40, 0]],
            ["bee"],
            "“bee”",
            "calibrate.operating_point=youden chooses a threshold on validation data",
        ),
        ([[40, 0, 0], [40, 0, 0], [40, 0, 0]], ["bee", "cat"], "“bee”, “cat”", "set train.class_weights=balanced"),
    ],
)
def test_a_class_that_is_never_predicted_comes_first(
    counts: list[list[int]], absent: list[str], named: str, advice: str
) -> None:
    first = points(counts, absent)[0]
    assert first == (
        f"No test image is predicted as {named}: accuracy hides it, and the AUC 0.8125 only ranks; {advice}."
    )


def test_a_model_that_names_every_class_is_not_told_so() -> None:
    found = points([[39, 1], [2, 38]], [])
    assert not [point for point in found if "is predicted as" in point]
    assert found[0] == "Weakest class: “bee”, recall 0.9500, 2 of 40 missed."
