"""The one engine: every stage that computes runs on the Lightning Trainer made here."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as L

from retinue.engine.allocator import keep_freed_memory
from retinue.engine.progress import EpochLines, RateBar
from retinue.engine.reproducibility import seed_everything, use_deterministic_algorithms
from retinue.pipeline.errors import Fault, SettingsFaults
from retinue.pipeline.ranges import Checked, allowed


@dataclass(frozen=True)
class TrainerSettings(Checked, section="trainer"):
    """conf/trainer: where and on how many devices the stages run.

    Attributes:
        name: of the choice.
        accelerator: "cpu", "gpu" or what else Lightning takes.
        devices: number of devices (processes) per node.
        num_nodes: number of machines.
        strategy: Lightning's name: "auto" for one device, "ddp" for several.
        num_threads: torch CPU threads per process. Sums depend on it, so it changes results. None: all cores, divided
            by the processes.
        num_workers: DataLoader processes per device of the stages that decode files; never changes a result.
        train_workers: the same while training, where images are decoded already.
        progress_bar: a line per epoch and, on a terminal, a bar; false: neither.
    """

    name: str
    accelerator: str
    devices: int = field(metadata=allowed(ge=1, most=1024))
    num_nodes: int = field(metadata=allowed(ge=1, most=65_536))
    strategy: str
    num_threads: int | None = field(metadata=allowed(ge=1, most=1024))
    num_workers: int = field(metadata=allowed(ge=0, most=1024))
    train_workers: int = field(metadata=allowed(ge=0, most=1024))
    progress_bar: bool

    @property
    def num_processes(self) -> int:
        """Number of processes on all nodes together."""
        return self.devices * self.num_nodes


def make_trainer(
    settings: TrainerSettings,
    *,
    seed: int,
    logger: Any = False,
    callbacks: Sequence[L.Callback] = (),
    decodes_files: bool = False,
    validates_first: bool = False,
    **options: Any,
) -> L.Trainer:
    """A deterministic, seeded Trainer that leaves no files of its own.

    Args:
        settings: conf/trainer.
        seed: of the run.
        logger: a Lightning logger, or False.
        callbacks: of the stage; the progress display is added.
        decodes_files: whether the process, or its workers, decode files of any size: what they free goes back at once.
        validates_first: whether a training that is not resumed goes through the validation split before its first
            epoch; Lightning calls that a sanity check.
        options: further arguments of `pytorch_lightning.Trainer`.

    Raises:
        SettingsFaults: Lightning refuses the combination (no such accelerator, unknown strategy).
    """
    _silence()
    if not decodes_files:
        keep_freed_memory()
    use_deterministic_algorithms(settings.num_threads)
    if settings.num_threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(settings.num_threads)  # unset, Lightning's ddp divides the cores instead
    seed_everything(seed)
    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    display: list[L.Callback] = []
    if settings.progress_bar:
        display = [EpochLines(), RateBar()] if on_terminal else [EpochLines()]
    return _lightning(
        settings,
        deterministic=True,
        logger=logger,
        callbacks=[*callbacks, *display],
        enable_progress_bar=bool(display) and on_terminal,
        enable_checkpointing=options.pop("enable_checkpointing", False),
        use_distributed_sampler=False,  # images.loading shards by itself, with the same order for any rank count
        num_sanity_val_steps=-1 if validates_first else 0,
        **options,
    )


def check_devices(settings: TrainerSettings, **options: Any) -> None:
    """Refuses what this machine has no devices for, without using any.

    Args:
        settings: conf/trainer.
        options: further arguments of `pytorch_lightning.Trainer`.

    Raises:
        SettingsFaults: as `make_trainer`.
    """
    _silence()
    _lightning(settings, logger=False, enable_progress_bar=False, enable_checkpointing=False, **options)


def _lightning(settings: TrainerSettings, **options: Any) -> L.Trainer:
    try:
        return L.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            enable_model_summary=False,
            **options,
        )
    except ModuleNotFoundError as error:
        hint = f"It needs a library that is not installed: {error}."
        raise SettingsFaults([Fault("trainer.accelerator", settings.accelerator, "cpu, gpu or auto", hint)]) from error
    except (ValueError, L.utilities.exceptions.MisconfigurationException) as error:
        asked = ", ".join(f"{key}={getattr(settings, key)}" for key in ("accelerator", "devices", "strategy"))
        hint = f"{error} (Lightning was asked for {asked}.) conf/trainer/cpu.yaml as it stands runs on any machine."
        fault = Fault("trainer", settings.name, "what Lightning can run on this machine", hint)
        raise SettingsFaults([fault]) from error


def _silence() -> None:
    """Leaves out what Lightning says of every run: devices found, tips, advice on the number of workers."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*recommended to use `self.log.*sync_dist=True.*")  # already reduced
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode at the start of training.*")  # frozen ones
    warnings.filterwarnings("ignore", message=".*Grad strides do not match bucket view strides.*")  # of slices, in ddp
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
