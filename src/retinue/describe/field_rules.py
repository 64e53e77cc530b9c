"""How torch's operations change what an element sees, on the level of ATen.

A window of k positions, d apart, over a map whose neighbours lie s px apart sees (k - 1) · d · s px more; its stride
multiplies s (Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks", section 2). Where
branches meet, the largest counts.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch

from retinue.describe.field import NEITHER, Atom, Dim, Field

Sources = Sequence[tuple[torch.Tensor, Field]]
"""The arguments that depend on the images."""
Rule = Callable[[Sources, Mapping[str, Any], torch.Tensor], Field | None]
"""A rule maps (input fields, named arguments, output) to the receptive field of the output; None if unknown."""


def elementwise(sources: Sources, _: Mapping[str, Any], result: torch.Tensor) -> Field | None:
    """Broadcasting; what was pooled over the image and meets a map is a gate of it."""
    shape = tuple(result.shape)
    for tensor, _field in sources:
        missing = len(shape) - tensor.ndim
        if missing < 0 or any(n not in (1, m) for n, m in zip(tensor.shape, shape[missing:], strict=True)):
            return None
    dims = []
    for back in range(len(shape), 0, -1):
        candidates = [field.dims[-back] for _, field in sources if len(field.dims) >= back]
        fitting = [dim for dim in candidates if dim.extent == shape[-back]]
        dims.append(max(fitting, key=lambda dim: len(dim.axes), default=Dim.along(NEITHER, shape[-back])))
    return _merged(sources, dims)


def _merged(sources: Sources, dims: Sequence[Dim]) -> Field:
    fields = [field for _, field in sources]
    maps = [field for field in fields if field.has_positions] or fields
    return Field(
        (max(f.size[0] for f in maps), max(f.size[1] for f in maps)),
        (max(f.stride[0] for f in maps), max(f.stride[1] for f in maps)),
        any(f.whole_image for f in fields),
        tuple(dims),
    )


def _convolution(sources: Sources, named: Mapping[str, Any], result: torch.Tensor) -> Field | None:
    """Transposed ones are not followed; places among the channels are all summed."""
    if named["transposed"]:
        return None
    before = sources[0][1]
    field = _window(before, named["weight"].shape[2:], named["stride"], named["dilation"], result)
    return replace(field, whole_image=field.whole_image or before.dims[1].has_places)


def _pool_field(sources: Sources, named: Mapping[str, Any], result: torch.Tensor) -> Field | None:
    kernel = named["kernel_size"]
    return _window(sources[0][1], kernel, named["stride"] or kernel, named.get("dilation", (1,)), result)


def _adaptive_pool(sources: Sources, _: Mapping[str, Any], result: torch.Tensor) -> Field | None:
    """Pools n positions to m: windows of ⌈(i + 1) · n/m⌉ - ⌊i · n/m⌋ of them, n/m apart."""
    tensor, field = sources[0]
    if result.shape[-2:] == (1, 1):
        reaches_all = field.whole_image or any(dim.has_places for dim in field.dims[-2:])
        return replace(field, whole_image=reaches_all, dims=(*field.dims[:-2], Dim(), Dim()))
    kernel, stride = [], []
    for n, m in zip(tensor.shape[-2:], result.shape[-2:], strict=True):
        kernel.append(max(-(-(i + 1) * n // m) - i * n // m for i in range(m)))
        stride.append(Fraction(n, m))
    return _window(field, kernel, stride, (1,), result)


def _window(
    field: Field, kernel: Sequence[int], stride: Sequence[int | Fraction], dilation: Sequence[int], result: torch.Tensor
) -> Field:
    """A window over the last dimensions; along those that hold channels it sees no more of the image."""
    count = max(len(kernel), len(stride))
    size, step, whole = list(field.size), list(field.stride), field.whole_image
    for i in range(count):
        k, s, gap = (values[i] if len(values) > 1 else values[0] for values in (kernel, stride, dilation))
        axes = field.dims[i - count].axes
        if len(axes) == 1:
            (axis,) = axes
            size[axis] += math.ceil((k - 1) * gap * step[axis])
            step[axis] *= s
        whole = whole or (len(axes) == 2 and k > 1)
    dims = (dim.resized(n) for dim, n in zip(field.dims, result.shape, strict=True))
    return Field((size[0], size[1]), (step[0], step[1]), whole, tuple(dims))


def _reduction(sources: Sources, named: Mapping[str, Any], result: torch.Tensor) -> Field | None:
    """Sums and the like over dimensions, kept with one element or dropped; a softmax keeps them as they are."""
    tensor, field = sources[0]
    given = named.get("dim")
    chosen = [given] if isinstance(given, int) else given or range(tensor.ndim)
    reduced = {d % max(tensor.ndim, 1) for d in chosen}
    whole = field.whole_image or any(field.dims[d].has_places for d in reduced)
    dims = field.dims
    if "half_to_float" not in named:
        left = [Dim() if d in reduced else dim for d, dim in enumerate(dims)]
        dims = tuple(left if result.ndim == tensor.ndim else [dim for d, dim in enumerate(dims) if d not in reduced])
    return replace(field, whole_image=whole, dims=dims)


def _product(sources: Sources, named: Mapping[str, Any], _: torch.Tensor) -> Field | None:
    """(…, n, k) times (…, k, m): each element sums over k."""
    pairs = (("mat1", "mat2"), ("batch1", "batch2"), ("self", "mat2"))
    first, second = next((named[a], named[b]) for a, b in pairs if a in named)
    left, right = _dims_of(first, sources), _dims_of(second, sources)
    merged = _merged(sources, (*left[:-1], right[-1]))
    return replace(merged, whole_image=merged.whole_image or left[-1].has_places or right[-2].has_places)


def _dims_of(tensor: torch.Tensor, sources: Sources) -> tuple[Dim, ...]:
    known = [field.dims for source, field in sources if source is tensor]
    return known[0] if known else tuple(Dim.along(NEITHER, n) for n in tensor.shape)


def _attention(sources: Sources, named: Mapping[str, Any], result: torch.Tensor) -> Field | None:
    queries = elementwise(sources[:1], named, result)
    return queries and replace(queries, whole_image=True)


def _view(sources: Sources, _: Mapping[str, Any], result: torch.Tensor) -> Field | None:
    """The same elements under another shape: dimensions are merged, or taken apart again."""
    field = sources[0][1]
    waiting = deque(atom for dim in field.dims for atom in dim.atoms if atom[1] > 1)
    dims = []
    for wanted in result.shape:
        atoms: list[Atom] = []
        while wanted > 1:
            axes, extent = waiting.popleft()
            taken = math.gcd(wanted, extent)
            if taken not in (wanted, extent) or (axes and taken < extent):
                return None  # as in space-to-depth: neighbours would come to lie in other dimensions
            if taken < extent:
                waiting.appendleft((axes, extent // taken))
            atoms.append((axes, taken))
            wanted //= taken
        dims.append(Dim(tuple(atoms)))
    return replace(field, dims=tuple(dims))


def _permutation(sources: Sources, named: Mapping[str, Any], result: torch.Tensor) -> Field | None:
    field = sources[0][1]
    order = list(range(result.ndim))
    if "dims" in named:
        order = [d % result.ndim for d in named["dims"]]
    elif result.ndim > 1:
        first, second = named.get("dim0", 0), named.get("dim1", 1)
        order[first], order[second] = order[second], order[first]
    return replace(field, dims=tuple(field.dims[d] for d in order))


def _selection(sources: Sources, named: Mapping[str, Any], _: torch.Tensor) -> Field | None:
    """One place along a dimension, which is gone afterwards."""
    dims = list(sources[0][1].dims)
    del dims[named["dim"]]
    return replace(sources[0][1], dims=tuple(dims))


def _resizing(sources: Sources, named: Mapping[str, Any], result: torch.Tensor) -> Field | None:
    """Slices, pads and concatenations: the dimensions stay what they are, at other extents."""
    field = _merged(sources, sources[0][1].dims)
    stride = list(field.stride)
    if named.get("step", 1) > 1:
        for axis in field.dims[named["dim"]].axes:
            stride[axis] *= named["step"]
    dims = (dim.resized(n) for dim, n in zip(field.dims, result.shape, strict=True))
    return replace(field, stride=(stride[0], stride[1]), dims=tuple(dims))


def _unknown_field(*_: Any) -> Field | None:
    return None


_OPERATIONS: dict[Rule, str] = {
    _convolution: "convolution",
    _pool_field: "max_pool2d_with_indices avg_pool2d max_pool3d_with_indices avg_pool3d",
    _adaptive_pool: "_adaptive_avg_pool2d adaptive_max_pool2d",
    _reduction: "mean sum amax amin max min prod var var_mean std linalg_vector_norm _softmax _log_softmax",
    _product: "mm addmm bmm baddbmm",
    _attention: "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu"
    " _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention",
    _view: "view _unsafe_view reshape _reshape_alias unsqueeze squeeze",
    _permutation: "permute transpose t",
    _selection: "select unbind",
    _resizing: "slice split split_with_sizes cat constant_pad_nd reflection_pad2d replication_pad2d",
    _unknown_field: "roll flip cumsum sort topk index gather scatter index_select",
}

RULES: dict[Any, Rule] = {
    getattr(torch.ops.aten, name): rule for rule, names in _OPERATIONS.items() for name in names.split()
}
"""Operation -> rule; any other is elementwise where its shapes allow that, and not known elsewhere."""
