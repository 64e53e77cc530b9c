"""Train: fits a network on the training split; the best epoch on the validation split becomes the model bundle."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from pytorch_lightning.utilities import rank_zero_only

from retinue import artifacts
from retinue.artifacts import Dataset, Epoch, Sample
from retinue.bundle import Bundle, build_network
from retinue.config import Settings, build
from retinue.description.describe import describe
from retinue.errors import SettingsError, TrainingError, unknown
from retinue.images.augmentation import Policy
from retinue.images.loading import Batches, StoredImages
from retinue.images.preprocessing import Preprocessing
from retinue.images.store import ImageStore
from retinue.models.network import Network, TrainingOutputs
from retinue.reproducibility import draw_seed, seed_everything
from retinue.stage import main
from retinue.tracking import Tracker
from retinue.trainer import TrainerSettings, make_trainer
from retinue.training.checkpoints import (
    AtomicCheckpointIO,
    checkpoint_callback,
    early_stopping,
    has_ended,
    load_checkpoint,
    resume_folder,
)
from retinue.training.losses import balanced_weights, main_logits, predicted_classes, training_loss
from retinue.training.validation import MONITORS, validation_metrics
from retinue.transfer import TransferSettings, freeze, keep_frozen_in_eval
from retinue.weights import WeightsSettings, load_weights

SECTIONS = ("seed", "model", "weights", "transfer", "optimizer", "schedule", "train", "trainer")

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


@dataclass(frozen=True)
class TrainSettings:
    """conf/train.

    Attributes:
        max_epochs: >= 1.
        batch_size: images of a step, per device, >= 1.
        eval_batch_size: images of a validation batch, per device, >= 1.
        precision: one of PRECISIONS, as Lightning spells them.
        channels_last: NHWC memory layout; faster for convolutions on most CPUs and GPUs.
        monitor: one of MONITORS; decides on the best epoch and on early stopping.
        patience: epochs without a better value before training stops, >= 1; None: never.
        label_smoothing: in [0, 1).
        class_weights: "none" or "balanced".
        gradient_clip_norm: largest L2 norm of all gradients together, > 0; None: no clipping.
    """

    max_epochs: int
    batch_size: int
    eval_batch_size: int
    precision: str
    channels_last: bool
    monitor: str
    patience: int | None
    label_smoothing: float
    class_weights: str
    gradient_clip_norm: float | None

    def __post_init__(self) -> None:
        for key in ("max_epochs", "batch_size", "eval_batch_size"):
            if getattr(self, key) < 1:
                raise SettingsError(f"train.{key}: expected >= 1, got {getattr(self, key)}.")
        for key, allowed in (
            ("precision", PRECISIONS),
            ("monitor", MONITORS),
            ("class_weights", ("none", "balanced")),
        ):
            if getattr(self, key) not in allowed:
                raise SettingsError(f"train.{key}: {unknown('value', getattr(self, key), allowed)}")
        if self.patience is not None and self.patience < 1:
            raise SettingsError(f"train.patience: expected >= 1 or null, got {self.patience}.")
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(f"train.label_smoothing: expected a fraction in [0, 1), got {self.label_smoothing}.")
        if self.gradient_clip_norm is not None and self.gradient_clip_norm <= 0:
            raise SettingsError(f"train.gradient_clip_norm: expected > 0 or null, got {self.gradient_clip_norm}.")


class Classifier(L.LightningModule):
    """A network with its loss, optimizer, schedule and validation metrics.

    Draws (order, augmentation, dropout) are functions of the seed and the epoch, and the history travels in the
    checkpoint: a training resumed at an epoch boundary is the uninterrupted one, bit for bit on the CPU.

    Args:
        network: images float (N, C, H, W) -> logits (N, K), or (N, 1) for two classes.
        preprocessing: normalises the images.
        settings: conf/train.
        optimizer, schedule: the sections of the settings.
        class_weights: float (num_classes,) or None.
        val_labels: int64 (N,) of the whole validation split.
        seed: of the run.
    """

    def __init__(
        self,
        network: Network,
        preprocessing: Preprocessing,
        settings: TrainSettings,
        *,
        optimizer: Mapping[str, Any],
        schedule: Mapping[str, Any],
        class_weights: torch.Tensor | None,
        val_labels: np.ndarray,
        seed: int,
    ):
        super().__init__()
        self.network = network
        self.history: list[dict[str, Any]] = []
        self._preprocessing, self._train_settings = preprocessing, settings
        self._optimizer, self._schedule = optimizer, schedule
        self._val_labels, self._seed = val_labels, seed
        self._class_weights: torch.Tensor | None
        self.register_buffer("_class_weights", class_weights, persistent=False)
        self._sums = torch.zeros(3, dtype=torch.float64)  # of loss, of correct, of images
        self._val_logits = torch.empty(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor | TrainingOutputs:
        """Images uint8 (N, H, W, C) -> logits, with those of auxiliary heads while these are in training mode."""
        normalised = self._preprocessing.normalise(images)
        if not self._train_settings.channels_last:
            normalised = normalised.contiguous()
        return self.network(normalised)

    def train(self, mode: bool = True) -> "Classifier":
        """Training mode for what is trained; what is frozen stays in eval mode."""
        super().train(mode)
        keep_frozen_in_eval(self.network)
        return self

    def on_train_epoch_start(self) -> None:
        seed_everything(draw_seed(self._seed, "epoch", self.current_epoch, self.global_rank))
        self._sums = torch.zeros(3, dtype=torch.float64, device="cpu" if self.device.type == "mps" else self.device)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        outputs, labels = self(batch["images"]), batch["labels"]
        loss = training_loss(outputs, labels, self._class_weights, self._train_settings.label_smoothing)
        with torch.no_grad():
            correct = (predicted_classes(main_logits(outputs)) == labels).sum()
            self._sums += torch.stack(
                [loss.detach().double() * len(labels), correct.double(), correct * 0 + len(labels)]
            )
        return loss

    def on_validation_epoch_start(self) -> None:
        self._val_logits = torch.zeros(0)

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        logits = self(batch["images"]).float()
        if not len(self._val_logits):
            self._val_logits = logits.new_zeros(len(self._val_labels), logits.shape[1])
        self._val_logits[batch["index"]] = logits

    def on_validation_epoch_end(self) -> None:
        """Closes the epoch: all its training steps are done when the validation split has been seen."""
        # Every rank filled its own rows of a table of zeros, so the sum over ranks is the table.
        logits = self.trainer.strategy.reduce(self._val_logits, reduce_op="sum")
        loss, correct, images = self.trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        if not math.isfinite(loss):
            raise TrainingError(self._diverged("the training loss is not finite"))
        if not torch.isfinite(logits).all():
            raise TrainingError(self._diverged("a logit of the validation split is not finite"))
        metrics = {"train/loss": loss / images, "train/accuracy_score": correct / images}
        metrics.update(validation_metrics(self._val_labels, logits))
        self.log_dict(metrics)
        row = Epoch(
            epoch=self.current_epoch,
            lr=self.trainer.optimizers[0].param_groups[0]["lr"],
            val_predicted_classes=len(predicted_classes(logits).unique()),
            **{name.replace("/", "_"): value for name, value in metrics.items()},
        )
        self.history.append(asdict(row))

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = build(self._optimizer, parameters, where="optimizer")
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = build(self._schedule, optimizer, steps, where="schedule")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])

    def _diverged(self, what: str) -> str:
        return (
            f"epoch {self.current_epoch + 1}: {what}. Training has diverged. Lower optimizer.lr, set "
            "train.gradient_clip_norm, or use train.precision=32-true. Earlier results are untouched."
        )


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads the stores of train and val and the policy, fits, writes models/."""
    own = settings.section("train", TrainSettings)
    dataset = artifacts.read_dataset()
    stores, labels = _training_images()
    val_labels = _labels(artifacts.PROCESSED / "val")
    policy = Policy.load(artifacts.AUGMENTED / "policy.json")
    batches = Batches(
        StoredImages([ImageStore(artifacts.PROCESSED / "val")], val_labels),
        StoredImages(stores, labels, None if policy.is_empty else policy),
        batch_size=own.batch_size,
        eval_batch_size=own.eval_batch_size,
        num_workers=settings.section("trainer", TrainerSettings).train_workers,
        seed=settings.seed,
    )
    network, start = _initial_network(settings, dataset)
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    description = describe(network, shape, own.batch_size, settings.plain("optimizer")).document()
    classifier = _make_classifier(settings, own, dataset, network, labels, val_labels)
    resume = resume_folder(_shaping_sections(settings), _input_files(settings))
    leader = _fit(settings, own, tracker, classifier, batches, resume)
    if not leader:
        return
    best = _take_best(classifier, own, resume)
    bundle = Bundle(network, settings.plain("model"), dataset, {**best, "initial_weights": start})
    with artifacts.replacing(artifacts.MODEL) as folder:
        bundle.save(folder)
        artifacts.write_json(folder / artifacts.ARCHITECTURE.name, description)
        artifacts.write_table(folder / "history.csv", Epoch, [Epoch(**row) for row in classifier.history])
    shutil.rmtree(resume)
    tracker.summary({f"best/{key}": value for key, value in best.items()} | {"initial_weights": start})
    tracker.summary({key: description[key] for key in ("parameters", "multiply_adds", "weight_bytes")})
    tracker.artifact(artifacts.MODEL, "model")
    print(f"best epoch {best['best_epoch'] + 1} of {len(classifier.history)}: {own.monitor} {best['value']:.4f}")


def _training_images() -> tuple[list[ImageStore], np.ndarray]:
    """The training images and, where augment made some, the extra ones."""
    folders = [artifacts.PROCESSED / "train"]
    if (artifacts.AUGMENTED / "manifest.csv").exists():
        folders.append(artifacts.AUGMENTED)
    return [ImageStore(folder) for folder in folders], np.concatenate([_labels(folder) for folder in folders])


def _labels(folder: Path) -> np.ndarray:
    return np.array([s.label for s in artifacts.iterate_table(folder / "manifest.csv", Sample)], np.int64)


def _initial_network(settings: Settings, dataset: Dataset) -> tuple[Network, dict[str, Any]]:
    """The network before training, its frozen parts frozen, and what the bundle says of its initial weights."""
    seed_everything(settings.seed)
    network = build_network(settings.plain("model"), dataset)
    weights = settings.section("weights", WeightsSettings)
    transfer = settings.section("transfer", TransferSettings)
    start: dict[str, Any] = {"name": weights.name}
    if weights.given:
        path = weights.fetch()
        report = load_weights(network, path)
        rank_zero_only(print)(f"{path}: {report}")
        start.update(sha256=artifacts.sha256(path), **report.document())
    elif transfer.frozen != "none":
        raise SettingsError(
            f"transfer.frozen: {transfer.frozen!r} without initial weights would freeze random ones. "
            "Give weights=imagenet or weights=file weights.path=PATH, or transfer=scratch."
        )
    freeze(network, transfer)
    return network, start


def _make_classifier(
    settings: Settings,
    own: TrainSettings,
    dataset: Dataset,
    network: Network,
    labels: np.ndarray,
    val_labels: np.ndarray,
) -> Classifier:
    if own.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    counts = np.bincount(labels, minlength=len(dataset.classes)).tolist()
    return Classifier(
        network,
        Preprocessing.from_dataset(dataset),
        own,
        optimizer=settings.plain("optimizer"),
        schedule=settings.plain("schedule"),
        class_weights=balanced_weights(counts) if own.class_weights == "balanced" else None,
        val_labels=val_labels,
        seed=settings.seed,
    )


def _fit(
    settings: Settings,
    own: TrainSettings,
    tracker: Tracker,
    classifier: Classifier,
    batches: Batches,
    resume: Path,
) -> bool:
    """Fits, from the last epoch boundary where there is one; True on the rank that saves the result."""
    callbacks: list[L.Callback] = [checkpoint_callback(resume, own.monitor)]
    if own.patience is not None:
        callbacks.append(early_stopping(own.monitor, own.patience))
    trainer = make_trainer(
        settings.section("trainer", TrainerSettings),
        seed=settings.seed,
        logger=tracker.lightning_logger(),
        callbacks=callbacks,
        max_epochs=own.max_epochs,
        precision=own.precision,
        gradient_clip_val=own.gradient_clip_norm,
        enable_checkpointing=True,
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=1,  # nothing is logged per step; a larger number makes Lightning warn of short epochs
    )
    last = resume / "last.ckpt"
    checkpoint = load_checkpoint(last) if last.exists() else None
    if checkpoint is not None and has_ended(checkpoint, own.max_epochs, own.patience):
        classifier.on_load_checkpoint(checkpoint)
        return trainer.is_global_zero
    if checkpoint is not None:
        rank_zero_only(print)(f"resuming after epoch {checkpoint['epoch'] + 1} from {last}")
    trainer.fit(classifier, batches, ckpt_path=last if checkpoint is not None else None, weights_only=True)
    return trainer.is_global_zero


def _take_best(classifier: Classifier, own: TrainSettings, resume: Path) -> dict[str, Any]:
    """Loads the weights of the best epoch into the network; what the bundle says of the training."""
    checkpoint = load_checkpoint(resume / "best.ckpt")
    classifier.load_state_dict(checkpoint["state_dict"])
    row = classifier.history[checkpoint["epoch"]]
    if row["val_predicted_classes"] == 1:
        raise TrainingError(
            f"epoch {checkpoint['epoch'] + 1}, the best: the network predicts one class for every validation image. "
            "Nothing was learnt: check the labels, lower optimizer.lr, train longer, or set "
            "train.class_weights=balanced. Earlier results are untouched."
        )
    return {
        "best_epoch": checkpoint["epoch"],
        "monitor": own.monitor,
        "value": row[own.monitor.replace("/", "_")],
    }


def _shaping_sections(settings: Settings) -> dict[str, Any]:
    return {key: settings.plain(key) for key in SECTIONS}


def _input_files(settings: Settings) -> list[Path]:
    folders = (artifacts.PROCESSED / "train", artifacts.PROCESSED / "val", artifacts.AUGMENTED)
    files = [path for folder in folders for path in sorted(folder.iterdir())]
    weights = settings.section("weights", WeightsSettings).path
    return [artifacts.PROCESSED / "dataset.json", *files, *([Path(weights)] if weights else [])]


if __name__ == "__main__":
    main("train", run, SECTIONS)
