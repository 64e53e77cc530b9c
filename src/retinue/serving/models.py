"""The models that are used: a bundle in a folder, or that of a commit or a DVC experiment."""

import hashlib
import tempfile
from pathlib import Path

from torch import nn

from retinue.bundle import Bundle
from retinue.experiments.outcomes import file_of, outcome_named
from retinue.pipeline.artifacts import BUNDLE, DECISION, KNOWN, MODEL, WEIGHTS
from retinue.pipeline.files import link_or_copy


def load_model(folder: Path | None, revision: str | None) -> Bundle:
    """The bundle in a folder, or the one that was recorded by a DVC experiment or a commit, out of DVC's cache.

    Args:
        folder: None: models/, where no revision is named.
        revision: name of an experiment, or a branch, tag or commit; None: the folder.

    Raises:
        RetinueError: there is no such result, a file of it is not in the cache, or the bundle cannot be used.
    """
    if revision is None:
        return Bundle.load(folder or MODEL)
    outcome = outcome_named(revision)
    with tempfile.TemporaryDirectory(prefix="retinue-bundle-") as copied:
        for path in (BUNDLE, WEIGHTS, DECISION, KNOWN):
            if path in (BUNDLE, WEIGHTS) or path.as_posix() in outcome.hashes():  # the others came with later versions
                link_or_copy(file_of(outcome, path), Path(copied) / path.name)
        return Bundle.load(copied)


def tensors_digest(module: nn.Module) -> str:
    """SHA-256 of the weights and buffers of a module, by their names, wherever they are; hexadecimal."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
