"""ONNX files, written from the graph."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from retinue.pipeline.errors import ModelError, SettingsError
from retinue.pipeline.numbers import short
from retinue.pipeline.settings import first_line
from retinue.serving.export.outputs import INPUT

LARGEST_BYTES = 2**31 - 1
"""A message of Protocol Buffers, which an ONNX file is, holds no more."""

_FREE = ("batch", "height", "width")
"""Names of the dimensions that are not fixed, by place."""


def onnx_packages() -> tuple[ModuleType, ModuleType]:
    """The modules onnx and onnxruntime, after a look at all that exporting takes.

    Raises:
        SettingsError: one is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch writes ONNX with it
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"retinue export onnx needs {error.name}, which is not installed: pip install 'retinue[onnx]'."
        ) from error
    return onnx, onnxruntime


def write_onnx(
    program: torch.export.ExportedProgram, outputs: Sequence[str], texts: Mapping[str, str], path: Path
) -> None:
    """Writes the graph as one file, weights included.

    Args:
        program: from `graph.follow`.
        outputs: names of what it gives.
        texts: metadata, by name.
        path: of the file.

    Raises:
        SettingsError: a package is not installed.
        ModelError: a layer has no counterpart in ONNX, or the weights are more than a file can hold.
    """
    onnx, _ = onnx_packages()
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size_bytes > LARGEST_BYTES:
        raise ModelError(
            f"weights of {short(size_bytes, 'B')}, expected at most {short(LARGEST_BYTES, 'B')} in one ONNX file. "
            "Run `retinue export pt2`."
        )
    try:
        with _told_nothing_of_other_packages():
            made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[*outputs])
    except torch.onnx.OnnxExporterError as error:
        raise ModelError(f"ONNX has no counterpart of this network ({first_line(error)}). Use pt2.") from error
    assert made is not None
    model = made.model_proto
    _without_traces(model)
    for key, text in texts.items():
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _without_traces(model: Any) -> None:
    """Takes out what names files of this machine, and names the free dimensions."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, _FREE, strict=False):
            if dimension.dim_param:
                dimension.dim_param = name
    del model.graph.value_info[:]  # shapes in between, which name the dimension otherwise; runtimes infer them


@contextmanager
def _told_nothing_of_other_packages() -> Iterator[None]:
    """Keeps to itself that torchvision is not installed and that torch calls what it has deprecated itself."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(before)
