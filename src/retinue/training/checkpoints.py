"""Where an interrupted training is picked up: checkpoints at epoch boundaries, keyed by all that shapes the result."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as L
from filelock import FileLock
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only

from retinue.metrics.registry import higher_is_better
from retinue.pipeline.artifacts import SHARED_CACHE
from retinue.pipeline.errors import ModelError, TrainingError
from retinue.transfer.weights import load_plain

BEST, LAST = "best.ckpt", "last.ckpt"

_CHECKPOINT = {
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "history": list,
}
"""What Lightning, `has_ended` and `take_best` look for in a checkpoint, and its types."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a killed process leaves the old one whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        partial = Path(f"{path}.partial")
        super().save_checkpoint(checkpoint, partial, storage_options)
        partial.replace(path)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Waits until no other process works in `folder`, which several checkouts may share. Rank 0 answers for all."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        yield
        return
    locks = SHARED_CACHE / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{folder.name}.lock"):
        yield


def discard(folder: Path) -> None:
    """Deletes the checkpoints in `folder`; what is left where that does not end is never resumed from.

    Without last.ckpt a training begins anew; with it alone, it would go on and not find the best epoch.
    """
    (folder / LAST).unlink(missing_ok=True)
    shutil.rmtree(folder)


class EpochCheckpoints(ModelCheckpoint):
    """Writes last.ckpt after every epoch; by itself Lightning does so only after an epoch that is the best so far.

    Where a validation comes before the first epoch, best.ckpt holds what training begins with until an epoch is better.
    """

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class EarlyStoppingFromStart(EarlyStopping):
    """Counts from the validation before the first epoch on, where there is one."""

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._run_early_stopping_check(trainer)


def checkpoint_callback(folder: Path, monitor: str) -> EpochCheckpoints:
    """Keeps best.ckpt and last.ckpt in `folder`, both written when an epoch has ended."""
    return EpochCheckpoints(
        dirpath=folder,
        filename=Path(BEST).stem,
        monitor=monitor,
        mode=direction(monitor),
        save_top_k=1,
        save_last=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def early_stopping(monitor: str, patience: int) -> EarlyStopping:
    """Ends training after `patience` epochs without a better `monitor`."""
    return EarlyStoppingFromStart(monitor, mode=direction(monitor), patience=patience, check_on_train_epoch_end=True)


def direction(monitor: str) -> str:
    """ "max" for a `_score`, "min" for a `_loss` or `_error`."""
    return "max" if higher_is_better(monitor) else "min"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint at `path`, weights-only.

    Raises:
        TrainingError: it cannot be read, or is no checkpoint of a training.
    """
    if not path.exists():
        raise _unusable(path, "is missing")
    try:
        checkpoint = load_plain(path)
    except ModelError as error:
        raise _unusable(path, f"cannot be read ({type(error.__cause__).__name__})") from error
    if not isinstance(checkpoint, dict):
        raise _unusable(path, f"is none: a {type(checkpoint).__name__}")
    for key, kind in _CHECKPOINT.items():
        if not isinstance(checkpoint.get(key), kind):
            raise _unusable(path, f"is none: it has no {key}")
    return checkpoint


def _unusable(path: Path, what: str) -> TrainingError:
    return TrainingError(
        f"{path}: this resume checkpoint {what}. Delete {path.parent} and run again; training then starts from the "
        "first epoch."
    )


def has_ended(checkpoint: Mapping[str, Any], max_epochs: int, patience: int | None) -> bool:
    """Whether the training of a checkpoint had reached its last epoch or its early stop."""
    if checkpoint["epoch"] + 1 >= max_epochs:
        return True
    waits = [s["wait_count"] for name, s in checkpoint["callbacks"].items() if name.startswith("EarlyStopping")]
    return patience is not None and any(wait >= patience for wait in waits)
