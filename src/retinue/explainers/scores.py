"""What is explained: the score of a class, and the map that evidence for it becomes."""

import torch

from retinue.pipeline.errors import SettingsError

SCORES = ("logit", "probability")
"""The class's logit before the softmax, or its probability behind it (of one logit, behind the sigmoid)."""


def explained_classes(logits: torch.Tensor, classes: torch.Tensor | int | None, label: str) -> torch.Tensor:
    """The class that each map explains, int64 (N,).

    Args:
        logits: (N, K), K = 1 for two classes.
        classes: one for all, or (N,); None: the predicted class of each image.
        label: of the explainer, for the error.

    Raises:
        SettingsError: a class index out of range.
    """
    count, binary = len(logits), logits.shape[1] == 1
    if classes is None:
        return (logits[:, 0] >= 0).long() if binary else logits.argmax(dim=1)
    targets = torch.as_tensor(classes, dtype=torch.int64, device=logits.device).expand(count)
    num_classes = 2 if binary else logits.shape[1]
    if count and not 0 <= int(targets.min()) <= int(targets.max()) < num_classes:
        raise SettingsError(f"{label}: expected class indices from 0 to {num_classes - 1}, got {targets.tolist()}.")
    return targets.clone()


def score_of(logits: torch.Tensor, targets: torch.Tensor, score: str = "logit") -> torch.Tensor:
    """The score of each image's class, (N,).

    One logit is the log-odds of the second of two classes: its score is that logit for the second class and its
    negative for the first, so that the predicted class is explained by a negated logit exactly where p < 0.5.

    Args:
        logits: (N, K), K = 1 for two classes.
        targets: int64 (N,).
        score: one of `SCORES`.
    """
    if logits.shape[1] == 1:
        odds = torch.where(targets == 1, logits[:, 0], -logits[:, 0])
        return odds if score == "logit" else torch.sigmoid(odds)
    values = logits if score == "logit" else logits.softmax(dim=1)
    return values.gather(1, targets[:, None])[:, 0]


def log_odds_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The log-odds of each image's class against the others, (N,).

    The gradient of a probability p is p(1 − p) times that of its log-odds. A map that grows in proportion to the
    gradient and is divided by its maximum is therefore the same for both, but p(1 − p) is rounded to 0 where a network
    is sure, and then nothing is left of the map.

    Args:
        logits: (N, K), K = 1 for two classes.
        targets: int64 (N,).
    """
    own = score_of(logits, targets)
    if logits.shape[1] == 1:
        return own
    is_own = torch.nn.functional.one_hot(targets, logits.shape[1]).bool()
    return own - logits.masked_fill(is_own, -torch.inf).logsumexp(dim=1)


def to_unit(evidence: torch.Tensor) -> torch.Tensor:
    """What speaks for a class, divided by its maximum: float (N, H, W) in [0, 1].

    Args:
        evidence: float (N, H, W); what is negative speaks against the class, and becomes 0. Where nothing is positive
            the map is zero everywhere.
    """
    positive = evidence.relu()
    peaks = positive.amax(dim=(1, 2), keepdim=True)
    return positive / torch.where(peaks > 0, peaks, torch.ones_like(peaks))
