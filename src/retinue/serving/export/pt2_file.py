"""Files of torch.export (.pt2): written from the graph, run by torch without the code of this project."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from retinue.pipeline.errors import ModelError
from retinue.pipeline.settings import first_line


def write_pt2(
    program: torch.export.ExportedProgram, outputs: Sequence[str], texts: Mapping[str, str], path: Path
) -> None:
    """Writes the graph; each of `texts`, metadata by name, is an extra file in it. There, too, are the `outputs`."""
    torch.export.save(program, path, extra_files=dict(texts))


def read_pt2(
    path: Path, names: tuple[str, ...]
) -> tuple[dict[str, str], Callable[[np.ndarray], tuple[np.ndarray, ...]]]:
    """The metadata of a file, and what runs it on the CPU.

    torch unpickles parts of such a file with no limit on what they name: it may run any code.

    Args:
        path: of a file that is trusted as code is.
        names: of the extra files that are its metadata.

    Raises:
        ModelError: there is no file, or torch cannot load it.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file. Run `retinue export pt2`.")
    texts = dict.fromkeys(names, "")
    try:
        network = torch.export.load(path, extra_files=texts).module()
    except (RuntimeError, ValueError, LookupError, OSError, AssertionError) as error:
        raise ModelError(f"{path}: not a whole file of torch.export ({first_line(error)}). Export it again.") from error

    def run_program(images: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            return tuple(output.numpy() for output in network(torch.from_numpy(images)))

    return {name: text for name, text in texts.items() if text}, run_program
