"""Which functions of a module are metrics, and what they give."""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from retinue.pipeline.errors import SettingsError, unknown

SUFFIXES = ("_score", "_error", "_loss")
"""A `*_score` is better when higher, an `*_error` and a `*_loss` when lower."""


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
    module: ModuleType, labels: np.ndarray, probs: np.ndarray, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Every metric of `module` on the same predictions.

    Args:
        module: `metrics.scalar` or `metrics.per_class`.
        labels: int64 (N,).
        probs: float (N, num_classes), rows sum to 1.
        settings: where the keyword arguments of the metrics come from, by name; None: their defaults.

    Raises:
        SettingsError: a metric has a keyword argument that is not among `settings`.
        DataError: the predictions are not what metrics take.
    """
    values = {}
    for name, metric in metrics_of(module).items():
        options = {}
        if settings is not None:
            for key, parameter in inspect.signature(metric).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    if key not in settings:
                        raise SettingsError(f"evaluate ({name}): {unknown('key', key, settings)}")
                    options[key] = settings[key]
        values[name] = metric(labels, probs, **options)
    return values
