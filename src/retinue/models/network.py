"""What every architecture is, and the checks of their arguments."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import nn

from retinue.errors import SettingsError, unknown

STEMS = ("auto", "imagenet", "small")
LARGEST_SMALL_IMAGE = 64
"""px; up to this side stem="auto" is the small one, which keeps the resolution."""


class Network(nn.Module):
    """Base of the architectures: images float (N, in_channels, H, W), normalised, to logits (N, num_classes).

    A subclass takes `in_channels`, `num_classes` and `image_size` besides what its conf/model file says.

    Attributes:
        head: dotted name of the layer whose outputs are the classes; registered after all others.
        auxiliary_heads: dotted names of the layers whose outputs are the classes, too, in training only.
        dispensable: prefixes of published tensors that a variant of the network does without.
    """

    head: str
    auxiliary_heads: tuple[str, ...] = ()
    dispensable: tuple[str, ...] = ()

    def adopt(self, published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Published tensors under this network's own names; the names are the same unless a subclass says otherwise."""
        return dict(published)


class TrainingOutputs(NamedTuple):
    """What a network with auxiliary heads gives while these are in training mode; in eval mode it gives the logits.

    Attributes:
        logits: float (N, num_classes).
        auxiliary: of each auxiliary head, float (N, num_classes).
        auxiliary_weight: of each one's loss in the sum.
    """

    logits: torch.Tensor
    auxiliary: tuple[torch.Tensor, ...]
    auxiliary_weight: float


def uses_small_stem(stem: str, image_size: int) -> bool:
    """Whether `stem` ("auto", "imagenet" or "small") means the small one for images of `image_size` px.

    Raises:
        SettingsError: no such stem.
    """
    check_choice("stem", stem, STEMS)
    return stem == "small" or (stem == "auto" and image_size <= LARGEST_SMALL_IMAGE)


def check_choice(key: str, value: object, allowed: Collection[object]) -> None:
    """Refuses a `value` of model.`key` that is not one of `allowed`."""
    if value not in allowed:
        if all(isinstance(choice, str) for choice in allowed):
            raise SettingsError(f"model.{key}: {unknown(key, str(value), map(str, allowed))}")
        raise SettingsError(f"model.{key}: expected one of {', '.join(map(str, allowed))}, got {value!r}.")


def check_side(model: str, image_size: int, *, smallest: int, usual: int) -> None:
    """Refuses images of a side below `smallest` px; `usual` is what the error recommends."""
    if image_size < smallest:
        raise SettingsError(
            f"model {model}: expected images of at least {smallest} px, got {image_size}. "
            f"Raise preprocess.image_size; {usual} is usual."
        )


def check_probability(key: str, value: float) -> None:
    """Refuses a `value` of model.`key` outside [0, 1)."""
    if not 0 <= value < 1:
        raise SettingsError(f"model.{key}: expected a probability in [0, 1), got {value}.")


def check_positive(key: str, value: float) -> None:
    """Refuses a `value` of model.`key` that is not above 0."""
    if value <= 0:
        raise SettingsError(f"model.{key}: expected a value > 0, got {value}.")
