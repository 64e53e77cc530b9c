"""The models that are used: a bundle in a folder, or that of a commit or a DVC experiment."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from retinue.bundle import Bundle
from retinue.experiments.outcomes import file_of, outcome_named
from retinue.pipeline.artifacts import BUNDLE, DECISION, KNOWN, MODEL, TRAINED_ON, WEIGHTS
from retinue.pipeline.files import link_or_copy


@contextmanager
def model_folder(folder: Path | None, revision: str | None) -> Iterator[Path]:
    """The folder of a bundle, or of that which was recorded by a DVC experiment or a commit, out of DVC's cache.

    Args:
        folder: None: models/, where no revision is named.
        revision: name of an experiment, or a branch, tag or commit; None: the folder.

    Raises:
        RetinueError: there is no such result, or a file of it is not in the cache.
    """
    if revision is None:
        yield folder or MODEL
        return
    outcome = outcome_named(revision)
    with tempfile.TemporaryDirectory(prefix="retinue-bundle-") as copied:
        for path in (BUNDLE, WEIGHTS, DECISION, KNOWN, TRAINED_ON):
            if path in (BUNDLE, WEIGHTS) or path.as_posix() in outcome.hashes():  # the others came with later versions
                link_or_copy(file_of(outcome, path), Path(copied) / path.name)
        yield Path(copied)


def load_model(folder: Path | None, revision: str | None) -> Bundle:
    """The bundle in `model_folder`.

    Raises:
        RetinueError: there is none, or it cannot be used.
    """
    with model_folder(folder, revision) as found:
        return Bundle.load(found)


def tensors_digest(module: nn.Module) -> str:
    """SHA-256 of the weights and buffers of a module, by their names, wherever they are; hexadecimal."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
