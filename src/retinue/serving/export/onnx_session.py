"""ONNX files, run by onnxruntime alone: no torch, which a runtime may not have."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from retinue.pipeline.errors import ModelError, SettingsError
from retinue.pipeline.settings import first_line
from retinue.serving.export.outputs import INPUT


def read_onnx(
    path: Path, num_threads: int | None = None
) -> tuple[dict[str, str], Callable[[np.ndarray], tuple[np.ndarray, ...]]]:
    """The metadata of a file, and what runs it on the CPU.

    Args:
        path: of the file.
        num_threads: that compute; None: one for each core.

    Raises:
        SettingsError: onnxruntime is not installed.
        ModelError: there is no file, or it is no ONNX file.
    """
    runtime = onnx_runtime()
    state = runtime.capi.onnxruntime_pybind11_state
    refusals = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile)
    options = runtime.SessionOptions()
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    options.log_severity_level = 3  # errors, which are raised as well; warnings speak of its own optimisations
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (*refusals, state.NotImplemented, state.RuntimeException) as error:
        raise ModelError(f"{path}: not a whole ONNX file ({first_line(error)}). Export the bundle again.") from error

    def run_session(images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(session.run(None, {INPUT: images}))

    return dict(session.get_modelmeta().custom_metadata_map), run_session


def onnx_runtime() -> ModuleType:
    """The module onnxruntime.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise SettingsError(
            "An ONNX file needs onnxruntime, which is not installed: pip install onnxruntime."
        ) from error
    return onnxruntime
