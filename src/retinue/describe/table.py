"""A description as text for a terminal of 100 columns."""

from collections.abc import Sequence

from retinue.describe.describe import Description
from retinue.describe.layers import Layer
from retinue.describe.wording import by, joined, receptive_field_px, window
from retinue.pipeline.numbers import figure, short

WIDTH = 100
COLUMNS = ("layer", "type", "output", "window", "parameters", "mult-adds", "field px")
WIDEST_TYPE = 15


def as_text(description: Description) -> str:
    """The layers as a table, then the totals with exact numbers; lines of at most 100 characters."""
    return "\n".join(
        [*_layer_lines(description.layers), "", *_total_lines(description), "", *_memory_lines(description)]
    )


def _layer_lines(layers: Sequence[Layer]) -> list[str]:
    rows = [COLUMNS, *map(_layer_cells, layers)]
    widths = [max(len(row[c]) for row in rows) for c in range(len(COLUMNS))]
    widths[1] = min(widths[1], WIDEST_TYPE)
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))
    lines = [_aligned(row, widths) for row in rows]
    lines.insert(1, "─" * max(map(len, lines)))
    frozen = [i for i, layer in enumerate(layers) if layer.frozen and layer.called == "always"]
    if frozen:
        lines.insert(frozen[-1] + len(lines) - len(layers) + 1, "── frozen up to here")
    for called, title in (("training", "in training only"), ("never", "not called by themselves")):
        places = [i for i, layer in enumerate(layers) if layer.called == called]
        if places:
            lines.insert(places[0] + len(lines) - len(layers), f"{title}:")
    return lines


def _layer_cells(layer: Layer) -> tuple[str, ...]:
    return (
        (layer.name or "(the network)") + (f" ({layer.use})" if layer.use > 1 else ""),
        layer.type,
        by(layer.output_shape or ()),
        window(layer),
        figure(layer.parameters) if layer.parameters else "",
        short(layer.multiply_adds) if layer.multiply_adds else "",
        receptive_field_px(layer),
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """Names lose their beginning where they are too long, types their end; numbers stand to the right."""
    name, kind = row[0], row[1]
    cells = [
        _ending(name, widths[0]),
        kind if len(kind) <= widths[1] else kind[: widths[1] - 1] + "…",
        *row[2:],
    ]
    adjusted = [
        cell.ljust(w) if c < 4 else cell.rjust(w) for c, (cell, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(adjusted).rstrip()


def _ending(name: str, width: int) -> str:
    return name if len(name) <= width else "…" + name[1 - width :]


def _total_lines(description: Description) -> list[str]:
    rows = [
        ("parameters", description.parameters, "", ""),
        ("  trainable", description.trainable_parameters, "", ""),
        ("  of auxiliary heads", description.auxiliary_parameters, "", "in training only"),
        ("multiply-adds", description.multiply_adds, "", "per image, of convolutions and matrix products"),
        ("weights", description.weight_bytes, "B", f"with {figure(description.buffers)} numbers in buffers"),
    ]
    lines = [_number_line(*row) for row in rows if row[1] or not row[0].startswith(" ")]
    return [*lines, *_last_map(description)]


def _last_map(description: Description) -> list[str]:
    last = description.feature_map
    if last is None:
        return [f"{'receptive field':<20}  the whole image: no feature map stands before the head"]
    place = f"{'  at':<20}  {_ending(last.layer, WIDTH // 3)}, {by(last.shape)}"
    if last.receptive_field is None or last.stride is None:
        return [f"{'receptive field':<20}  not known: an operation before is one that is not followed", place]
    stride = joined([round(side) if side == round(side) else round(side, 2) for side in last.stride])
    excess = f"more than the image's {joined(description.input_shape[1:])}" if last.exceeds_image else ""
    gates = "and by gates or attention the whole image" if last.whole_image else ""
    seen = ", ".join(part for part in (f"{joined(last.receptive_field)} px", excess, gates) if part)
    return [f"{'receptive field':<20}  {seen}", f"{place}, stride {stride} px"]


def _memory_lines(description: Description) -> list[str]:
    memory = description.memory
    rows = [
        ("  activations", memory.activation_bytes, "images and outputs of the layers"),
        ("  their gradients", memory.activation_gradient_bytes, ""),
        ("  parameters", memory.parameter_bytes, ""),
        ("  their gradients", memory.parameter_gradient_bytes, ""),
        ("  optimizer state", memory.optimizer_state_bytes, ""),
        ("counted", memory.total_bytes, "the sum"),
        ("alive at once", memory.peak_live_bytes, f"largest sum of all tensors; reached in: {memory.peak_phase}"),
    ]
    title = f"memory of a training step, {memory.batch_size} images of {by(description.input_shape)}:"
    return [title, *(_number_line(name, number, "B", comment) for name, number, comment in rows)]


def _number_line(name: str, number: int, unit: str, comment: str) -> str:
    return f"{name:<20}  {figure(number):>15}  {short(number, unit):>8}  {comment}".rstrip()
