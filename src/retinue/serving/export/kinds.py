"""The kinds of exported files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from retinue.serving.export.onnx_file import write_onnx
from retinue.serving.export.pt2_file import write_pt2


class ExportKind(NamedTuple):
    """A kind of files.

    Attributes:
        file: name of the file for images of the network's size.
        any_size_file: name of the one that resizes.
        write: writes program, names of outputs and metadata to a path.
    """

    file: str
    any_size_file: str
    write: Callable[[torch.export.ExportedProgram, Sequence[str], Mapping[str, str], Path], None]


KINDS = {
    "onnx": ExportKind("model.onnx", "model_any_size.onnx", write_onnx),
    "pt2": ExportKind("model.pt2", "model_any_size.pt2", write_pt2),
}
"""Kinds of files by the name they have in the command, which is their ending, too."""
