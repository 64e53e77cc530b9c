"""The part of the image an activation can depend on, followed operation by operation (Araujo et al. 2019, "Computing
Receptive Fields of Convolutional Neural Networks", equations 1 to 3).

A window of k positions, d apart, over a map whose neighbours lie s px apart sees (k - 1) · d · s px more; its stride
multiplies s. Where branches meet, the largest counts. Sizes are theoretical: padding does not cap them, nor does the
image. What normalisation layers compute of a whole map (group, instance, batch statistics) is not counted.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

Atom = tuple[int | None, int]
"""Part of a tensor's dimension: image axis its positions lie along (0 down, 1 across, None neither), and extent."""
Dim = tuple[Atom, ...]


@dataclass(frozen=True)
class Field:
    """What an element of a tensor sees.

    Attributes:
        size: height and width of its window on the image, px; for what was pooled over a whole map, that of the map.
        stride: distance of neighbouring positions on the image, px, down and across.
        whole_image: it depends on all positions, too: after a global pool, a flattening layer, attention or a gate.
        dims: of each dimension of the tensor, what it is made of, outermost first.
    """

    size: tuple[int, int]
    stride: tuple[Fraction, Fraction]
    whole_image: bool
    dims: tuple[Dim, ...]

    @property
    def has_positions(self) -> bool:
        """Whether different elements belong to different places of the image."""
        return any(_axes(dim) for dim in self.dims)


class ReceptiveFields(TorchDispatchMode):
    """Follows the receptive field through all that is computed from `images` (N, C, H, W) while this mode is on.

    Results are upper bounds: a reduction over part of the positions counts as one over all.
    """

    def __init__(self, images: torch.Tensor):
        super().__init__()
        self._fields = WeakTensorKeyDictionary()
        n, c, h, w = images.shape
        dims: tuple[Dim, ...] = (((None, n),), ((None, c),), ((0, h),), ((1, w),))
        self._fields[images] = Field((1, 1), (Fraction(1), Fraction(1)), False, dims)

    def of(self, tensor: torch.Tensor) -> Field | None:
        """The field of `tensor`; None if it does not depend on the images, or in a way this mode does not know."""
        return self._fields.get(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = _named_arguments(func, args, kwargs or {})
        sources = [(t, self._fields[t]) for t in tree_leaves(named) if _is_tensor(t) and t in self._fields]
        out = func(*args, **(kwargs or {}))
        if sources:
            known = [(tensor, field) for tensor, field in sources if field is not None]
            rule = _RULES.get(func.overloadpacket, _elementwise)
            for result in filter(_is_tensor, tree_leaves(out)):
                self._fields[result] = rule(known, named, result) if len(known) == len(sources) else None
        return out


Sources = Sequence[tuple[torch.Tensor, Field]]
Arguments = Mapping[str, Any]
Rule = Callable[[Sources, Arguments, torch.Tensor], Field | None]


def _elementwise(sources: Sources, _: Arguments, result: torch.Tensor) -> Field | None:
    """Broadcasting: the largest field; what was pooled over the image and meets a map is a gate of it."""
    shape = tuple(result.shape)
    for tensor, _field in sources:
        missing = len(shape) - tensor.ndim
        if missing < 0 or any(n not in (1, m) for n, m in zip(tensor.shape, shape[missing:], strict=True)):
            return None
    dims = []
    for back in range(len(shape), 0, -1):
        candidates = [field.dims[-back] for _, field in sources if len(field.dims) >= back]
        fitting = [dim for dim in candidates if _extent(dim) == shape[-back]]
        dims.append(max(fitting, key=lambda dim: len(_axes(dim)), default=((None, shape[-back]),)))
    return _merged(sources, tuple(dims))


def _merged(sources: Sources, dims: tuple[Dim, ...]) -> Field:
    fields = [field for _, field in sources]
    maps = [field for field in fields if field.has_positions] or fields
    return Field(
        (max(f.size[0] for f in maps), max(f.size[1] for f in maps)),
        (max(f.stride[0] for f in maps), max(f.stride[1] for f in maps)),
        any(f.whole_image for f in fields),
        dims,
    )


def _convolution(sources: Sources, named: Arguments, result: torch.Tensor) -> Field | None:
    if named["transposed"]:
        return None
    field = _window(sources[0][1], named["weight"].shape[2:], named["stride"], named["dilation"], result)
    return replace(field, whole_image=True) if _axes(sources[0][1].dims[1]) else field  # positions among the channels


def _pool(sources: Sources, named: Arguments, result: torch.Tensor) -> Field | None:
    return _window(
        sources[0][1], named["kernel_size"], named["stride"] or named["kernel_size"], named.get("dilation", (1,)), result
    )


def _adaptive_pool(sources: Sources, _: Arguments, result: torch.Tensor) -> Field | None:
    """Windows of ⌈(i + 1) · in / out⌉ - ⌊i · in / out⌋ positions, in / out apart."""
    tensor, field = sources[0]
    kernel, stride = [], []
    for n, m in zip(tensor.shape[-2:], result.shape[-2:], strict=True):
        kernel.append(max(-(-(i + 1) * n // m) - i * n // m for i in range(m)))
        stride.append(Fraction(n, m))
    pooled = _window(field, kernel, stride, (1,), result)
    reaches_all = result.shape[-2:] == (1, 1) and field.has_positions
    return replace(pooled, whole_image=True) if reaches_all else pooled


def _window(
    field: Field, kernel: Sequence[int], stride: Sequence[int | Fraction], dilation: Sequence[int], result: torch.Tensor
) -> Field:
    """A window over the last dimensions; it sees more of the image along those that hold positions."""
    count = max(len(kernel), len(stride))
    size, step, dims, whole = list(field.size), list(field.stride), list(field.dims), field.whole_image
    for i in range(count):
        d = i - count
        k, s, gap = (values[i] if len(values) > 1 else values[0] for values in (kernel, stride, dilation))
        axes = _axes(dims[d])
        if len(axes) == 1:
            (axis,) = axes
            size[axis] += math.ceil((k - 1) * gap * step[axis])
            step[axis] *= s
        whole = whole or (len(axes) > 1 and k > 1)
        dims[d] = _resized(dims[d], result.shape[d])
    if result.ndim > count:
        dims[-count - 1] = _resized(dims[-count - 1], result.shape[-count - 1])
    return Field((size[0], size[1]), (step[0], step[1]), whole, tuple(dims))


def _reduction(sources: Sources, named: Arguments, result: torch.Tensor) -> Field | None:
    tensor, field = sources[0]
    given = named.get("dim")
    chosen = range(tensor.ndim) if given is None or given == [] else [given] if isinstance(given, int) else given
    reduced = {d % max(tensor.ndim, 1) for d in chosen}
    whole = field.whole_image or any(_axes(field.dims[d]) for d in reduced)
    if result.shape == tensor.shape:  # a softmax, or a dimension of one element
        dims = field.dims
    elif result.ndim == tensor.ndim:
        dims = tuple(() if d in reduced else dim for d, dim in enumerate(field.dims))
    else:
        dims = tuple(dim for d, dim in enumerate(field.dims) if d not in reduced)
    return replace(field, whole_image=whole, dims=dims)


def _product(sources: Sources, named: Arguments, _: torch.Tensor) -> Field | None:
    """(…, n, k) times (…, k, m): each element sums over k."""
    left, right = (named[a] for a in (("mat1", "mat2") if "mat1" in named else ("self", "mat2")))
    return _contracted(sources, left, right)


def _batched_product(sources: Sources, named: Arguments, _: torch.Tensor) -> Field | None:
    left, right = (named[a] for a in (("batch1", "batch2") if "batch1" in named else ("self", "mat2")))
    return _contracted(sources, left, right)


def _contracted(sources: Sources, left: torch.Tensor, right: torch.Tensor) -> Field:
    first, second = (_dims_of(tensor, sources) for tensor in (left, right))
    mixes = bool(_axes(first[-1]) or _axes(second[-2]))
    merged = _merged(sources, (*first[:-1], second[-1]))
    return replace(merged, whole_image=merged.whole_image or mixes)


def _attention(sources: Sources, _: Arguments, result: torch.Tensor) -> Field | None:
    merged = _elementwise(sources[:1], _, result)
    return merged and replace(merged, whole_image=True)


def _view(sources: Sources, _: Arguments, result: torch.Tensor) -> Field | None:
    """The same elements under another shape: dimensions are merged, split, or both."""
    field = sources[0][1]
    waiting = deque(atom for dim in field.dims for atom in dim if atom[1] > 1)
    dims: list[Dim] = []
    for wanted in result.shape:
        dim: list[Atom] = []
        while wanted > 1:
            axis, extent = waiting.popleft()
            taken = math.gcd(wanted, extent)
            if taken not in (wanted, extent):
                return None  # the shape cuts across positions
            if taken < extent:
                waiting.appendleft((axis, extent // taken))
            dim.append((axis, taken))
            wanted //= taken
        dims.append(tuple(dim))
    return replace(field, dims=tuple(dims))


def _permutation(sources: Sources, named: Arguments, result: torch.Tensor) -> Field | None:
    field = sources[0][1]
    order = list(range(len(field.dims)))
    if "dims" in named:
        order = [d % result.ndim for d in named["dims"]]
    elif result.ndim > 1:
        first, second = (named["dim0"], named["dim1"]) if "dim0" in named else (0, 1)
        order[first], order[second] = order[second], order[first]
    return replace(field, dims=tuple(field.dims[d] for d in order))


def _selection(sources: Sources, named: Arguments, result: torch.Tensor) -> Field | None:
    """One place along a dimension, which is gone afterwards."""
    dims = list(sources[0][1].dims)
    del dims[named["dim"]]
    return replace(sources[0][1], dims=tuple(dims))


def _resizing(sources: Sources, named: Arguments, result: torch.Tensor) -> Field | None:
    """Slices, pads and concatenations: the dimensions stay what they are, at other extents."""
    field = _merged(sources, sources[0][1].dims)
    step, stride = named.get("step") or 1, list(field.stride)
    if step > 1:
        for axis in _axes(field.dims[named["dim"]]):
            stride[axis] *= step
    dims = tuple(_resized(dim, n) for dim, n in zip(field.dims, result.shape, strict=True))
    return replace(field, stride=(stride[0], stride[1]), dims=dims)


def _unknown(*_: Any) -> None:
    return None


def _axes(dim: Dim) -> set[int]:
    return {axis for axis, extent in dim if axis is not None and extent > 1}


def _extent(dim: Dim) -> int:
    return math.prod(extent for _, extent in dim)


def _resized(dim: Dim, extent: int) -> Dim:
    """`dim` at another extent; of one that holds both axes (a row of patches), only that it holds both is kept."""
    if _extent(dim) == extent:
        return dim
    axes = {axis for axis, _ in dim if axis is not None}
    return ((None, extent),) if not axes else tuple((axis, extent if axis == min(axes) else 2) for axis in sorted(axes))


def _dims_of(tensor: torch.Tensor, sources: Sources) -> tuple[Dim, ...]:
    known = [field.dims for source, field in sources if source is tensor]
    return known[0] if known else tuple(((None, n),) for n in tensor.shape)


def _named_arguments(func: Any, args: Sequence[Any], kwargs: Arguments) -> dict[str, Any]:
    """The arguments of an operation by name, defaults included."""
    arguments = func._schema.arguments
    named = {a.name: a.default_value for a in arguments if a.has_default_value()}
    named.update((a.name, value) for a, value in zip(arguments, args, strict=False))
    return {**named, **kwargs}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
