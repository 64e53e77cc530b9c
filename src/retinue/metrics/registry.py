"""Which functions of a module are metrics, and what they give."""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from retinue.metrics.deciding import decide
from retinue.metrics.probabilities import log_odds, one_hot
from retinue.pipeline.artifacts import UNCALIBRATED, DecisionRule
from retinue.pipeline.errors import SettingsError, unknown

SUFFIXES = ("_score", "_error", "_loss")
"""A `*_score` is better when higher, an `*_error` and a `*_loss` when lower."""


class Predicted(NamedTuple):
    """What metrics are computed of, in the three forms they take: each names the one it needs.

    Attributes:
        probs: float64 (N, num_classes), calibrated, rows sum to 1.
        scores: float64 (N, num_classes), the log-odds without temperature: a rank is the network's, not the
            calibration's.
        decided: bool (N, num_classes), in each row the class that is decided for.
    """

    probs: np.ndarray
    scores: np.ndarray
    decided: np.ndarray

    @classmethod
    def from_logits(cls, logits: np.ndarray, decision: DecisionRule = UNCALIBRATED) -> "Predicted":
        """The forms of logits float (N, K) for K > 1 classes, or (N, 1) for two, at the temperature and point of
        `decision`."""
        found = decide(logits, decision)
        return cls(found.probs, log_odds(logits), one_hot(found.predicted, found.probs.shape[1]))

    @property
    def predicted(self) -> np.ndarray:
        """The classes that are decided for, int64 (N,)."""
        return self.decided.argmax(axis=1)

    def rows(self, chosen: np.ndarray) -> "Predicted":
        """Those of some images: `chosen` is bool (N,) or their indices."""
        return Predicted(*(values[chosen] for values in self))


def higher_is_better(name: str) -> bool:
    """Whether a higher value of a metric is the better one; not for what is no metric, such as a count.

    >>> [higher_is_better(name) for name in ("auc_score", "val/log_loss", "parameters")]
    [True, False, False]
    """
    return name.endswith("_score")


def lower_is_better(name: str) -> bool:
    """Whether a lower value of a metric is the better one; not for what is no metric, such as a count.

    >>> [lower_is_better(name) for name in ("auc_score", "val/log_loss", "parameters")]
    [False, True, False]
    """
    return name.endswith(("_error", "_loss"))


def metrics_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The metrics that `module` defines, by name: its public functions whose names end in one of SUFFIXES."""
    return {
        name: function
        for name, function in sorted(vars(module).items())
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and name.endswith(SUFFIXES)
        and not name.startswith("_")
    }


def compute(
    module: ModuleType, labels: np.ndarray, predicted: Predicted, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Every metric of `module` on the same predictions.

    Args:
        module: `metrics.scalar` or `metrics.per_class`.
        labels: int64 (N,).
        predicted: of these images; a metric is given what its second parameter is called.
        settings: where the keyword arguments of the metrics come from, by name; None: their defaults.

    Raises:
        SettingsError: a metric has a keyword argument that is not among `settings`.
        DataError: the predictions are not what metrics take.
    """
    values = {}
    for name, metric in metrics_of(module).items():
        options, parameters = {}, inspect.signature(metric).parameters
        if settings is not None:
            for key, parameter in parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    if key not in settings:
                        raise SettingsError(f"evaluate ({name}): {unknown('key', key, settings)}")
                    options[key] = settings[key]
        values[name] = metric(labels, getattr(predicted, [*parameters][1]), **options)
    return values
