"""A chain of operations: named in the settings, checked before anything runs, the same wherever images are prepared."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Each file registers its operations.
from retinue.images.operations import bitwise, colour, edges, kernels, morphology, pages, pixels, smoothing, thresholds
from retinue.images.operations.operation import GRAY, HSV, LAB, OPERATIONS, RGB, Operation
from retinue.pipeline.errors import Fault, SettingsFaults, nearest
from retinue.pipeline.ranges import shown

FILES = (bitwise, colour, edges, kernels, morphology, pages, pixels, smoothing, thresholds)
"""The modules of the operations, in the order of the alphabet."""

MOST_STEPS = 64
"""Operations of a chain, which may be in a bundle of anybody's making."""

_HINTS = {
    (RGB, GRAY): "Put {name: gray} before it.",
    (GRAY, RGB): "Set preprocess.channels=3, and leave out what makes the image gray before it.",
    (HSV, RGB): "Put {name: hsv_to_rgb} before it.",
    (LAB, RGB): "Put {name: lab_to_rgb} before it.",
}
"""(What comes, what is taken) -> what to do."""


class ChainStep(NamedTuple):
    """An operation with all its arguments."""

    operation: Operation
    arguments: dict[str, Any]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The image afterwards, uint8 (H, W, C')."""
        made = self.operation.function(image, **self.arguments)
        return np.ascontiguousarray(made).reshape(*image.shape[:2], -1)


class Chain:
    """Operations one after the other, on images of one number of channels.

    Args:
        entries: mappings of `name` (of an operation) and its arguments.
        channels: of the images, 1 (gray) or 3 (RGB), before and after; where the last operation gives one channel and
            three are wanted, it is repeated, as that of a gray file is.

    Raises:
        SettingsFaults: an operation or argument is unknown, a value out of range, or an operation cannot take what the
            one before gives.

    Attributes:
        steps: the operations.
    """

    def __init__(self, entries: Sequence[Any], channels: int):
        self.steps, faults = _steps_of(entries, channels)
        self._channels = channels
        if faults:
            raise SettingsFaults(faults)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The image after the last operation, uint8 (H, W, channels)."""
        for step in self.steps:
            image = step(image)
        return image if image.shape[2] == self._channels else image.repeat(self._channels, axis=2)

    def stages(self, image: np.ndarray) -> list[np.ndarray]:
        """The image after each operation, uint8 (H, W, 1 or 3) each."""
        found = list[np.ndarray]()
        for step in self.steps:
            found.append(step(found[-1] if found else image))
        return found

    def entries(self) -> tuple[dict[str, Any], ...]:
        """The operations as settings, with every argument, so that a later default changes nothing."""
        return tuple({"name": step.operation.name, **step.arguments} for step in self.steps)

    @property
    def moves(self) -> tuple[str, ...]:
        """The operations after which things are elsewhere."""
        return tuple(step.operation.name for step in self.steps if step.operation.moves)


def chain_faults(entries: Sequence[Any], channels: int) -> list[Fault]:
    """What is wrong with the settings of a chain; their keys begin with `steps`."""
    return _steps_of(entries, channels)[1]


def _steps_of(entries: Sequence[Any], channels: int) -> tuple[tuple[ChainStep, ...], list[Fault]]:
    if len(entries) > MOST_STEPS:
        return (), [Fault("steps", f"{len(entries)} operations", f"at most {MOST_STEPS}")]
    steps, faults = list[ChainStep](), list[Fault]()
    space = GRAY if channels == 1 else RGB
    for index, entry in enumerate(entries):
        where = f"steps[{index}]"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            faults.append(Fault(where, shown(entry), "a mapping of name and arguments, as {name: median_blur}"))
            continue
        found = OPERATIONS.get(entry["name"])
        if found is None:
            faults.append(_unknown_operation(where, entry["name"]))
            continue
        given = {str(key): value for key, value in entry.items() if key != "name"}
        arguments, wrong = found.resolved(given, where)
        faults += wrong
        if space not in found.takes:
            hint = next((_HINTS[space, taken] for taken in found.takes if (space, taken) in _HINTS), "")
            faults.append(Fault(where, found.name, f"an operation of {space} images, which come here", hint))
        space = found.gives or space
        steps.append(ChainStep(found, arguments))
    return tuple(steps), faults


def _unknown_operation(where: str, name: str) -> Fault:
    match = nearest(name, OPERATIONS)
    hint = f"Did you mean {match!r}?" if match else ""
    return Fault(f"{where}.name", shown(name), f"one of {', '.join(sorted(OPERATIONS))}", hint)
