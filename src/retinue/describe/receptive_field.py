"""The part of the image an activation can depend on, followed operation by operation.

Sizes are theoretical: neither padding nor the image's border caps them. The statistics that normalisation layers take
of a whole map (group, layer, instance norm, batch norm in training) are not counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from retinue.describe.field import Field
from retinue.describe.field_rules import RULES, elementwise


class ReceptiveFields(TorchDispatchMode):
    """Follows the receptive field through all that is computed from `images` while this mode is on.

    It sees operations, not modules, and so needs neither a traceable network nor knowledge of its branches. A sum
    over some positions of many counts as one over all.

    Args:
        images: (N, C, H, W), on any device.
    """

    def __init__(self, images: torch.Tensor):
        super().__init__()
        self._fields = WeakTensorKeyDictionary()
        n, channels, height, width = images.shape
        self._fields[images] = Field.of_images(n, channels, height, width)

    def of(self, tensor: torch.Tensor) -> Field | None:
        """What `tensor` sees; None if it does not depend on the images, or in a way this mode does not know."""
        return self._fields.get(tensor)

    def is_unknown(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` depends on the images in a way this mode does not know."""
        return tensor in self._fields and self._fields[tensor] is None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = _named_arguments(func, args, kwargs or {})
        sources = [(leaf, self._fields[leaf]) for leaf in _tensors(named) if leaf in self._fields]
        out = func(*args, **(kwargs or {}))
        if sources:
            known = [(tensor, field) for tensor, field in sources if field is not None]
            rule = RULES.get(func.overloadpacket, elementwise)
            for result in _tensors(out):
                self._fields[result] = rule(known, named, result) if len(known) == len(sources) else None
        return out


def _named_arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an operation by name, defaults included."""
    arguments = func._schema.arguments
    named = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    named.update((argument.name, value) for argument, value in zip(arguments, args, strict=False))
    return {**named, **kwargs}


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
