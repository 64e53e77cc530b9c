"""Train: fits a network on the training split; the best epoch on the validation split becomes the model bundle."""

import shutil
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.utilities import rank_zero_only

from retinue.bundle import Bundle
from retinue.describe.describe import describe
from retinue.engine.loading import Batches
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Epoch, LayerEntry
from retinue.pipeline.errors import TrainingError
from retinue.pipeline.files import replacing, write_json, write_table
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.training.assembly import PreparedNetwork, TrainingImages, make_classifier, prepare_network
from retinue.training.checkpoints import (
    AtomicCheckpointIO,
    checkpoint_callback,
    early_stopping,
    exclusive,
    has_ended,
    load_checkpoint,
    resume_folder,
)
from retinue.training.classifier import Classifier, TrainSettings
from retinue.training.prefix import prepare_data
from retinue.training.sweep_reports import Pruned, SweepReports
from retinue.transfer.features import FOLDER
from retinue.transfer.ledger import FreezeLedger
from retinue.transfer.unfreezing import GradualUnfreezing
from retinue.transfer.weights import WeightsSettings

SECTIONS = ("seed", "model", "weights", "transfer", "optimizer", "schedule", "train", "trainer")


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads the stores of train and val and the policy, fits, writes models/."""
    own = settings.section("train", TrainSettings)
    dataset = artifacts.read_dataset()
    images = TrainingImages.read()
    start = prepare_network(settings, dataset, images, own)
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    description = describe(start.network, shape, own.batch_size, settings.plain("optimizer")).document()
    with exclusive(FOLDER):
        inputs = prepare_data(settings, own, dataset, images, start)
    classifier = make_classifier(settings, own, dataset, images, start, inputs.forward)
    ledger = FreezeLedger(start.network)
    resume = resume_folder({key: settings.plain(key) for key in SECTIONS}, _input_files(settings))
    with exclusive(resume):  # two trials of a sweep may differ in nothing that training reads
        try:
            leader = _fit(settings, own, tracker, classifier, inputs.batches, start, ledger, resume)
        except Pruned:
            shutil.rmtree(resume)
            raise
        if not leader:
            return
        best = _take_best(classifier, own, resume)
        ledger.check_result()
        bundle = Bundle(start.network, settings.plain("model"), dataset, {**best, "initial_weights": start.weights})
        with replacing(artifacts.MODEL) as folder:
            bundle.save(folder)
            write_json(folder / artifacts.ARCHITECTURE.name, description)
            write_json(folder / artifacts.TRANSFER.name, _transfer(start, inputs.cache, ledger))
            write_table(folder / artifacts.HISTORY.name, Epoch, [Epoch(**row) for row in classifier.history])
        shutil.rmtree(resume)
    tracker.summary({f"best/{key}": value for key, value in best.items()} | {"initial_weights": start.weights})
    tracker.summary({key: description[key] for key in ("parameters", "multiply_adds", "weight_bytes")})
    tracker.table("freeze_ledger", [f.name for f in fields(LayerEntry)], [astuple(row) for row in ledger.layers])
    tracker.artifact(artifacts.MODEL, "model")
    print(f"best epoch {best['best_epoch']} of {len(classifier.history)}: {own.monitor} {figure(best['value'])}")


def _transfer(start: PreparedNetwork, cache: str | None, ledger: FreezeLedger) -> dict[str, Any]:
    """models/transfer.json: the scenario, why it was chosen, what was frozen, and the ledger."""
    blocks = start.freezing.blocks
    return {
        "scenario": asdict(start.decision.scenario),
        "reasons": list(start.decision.reasons),
        "measured": dict(start.decision.measured),
        "frozen": {
            "blocks": [block.name for block in blocks[: start.freezing.num_frozen]],
            "layers": len(start.freezing.layers),
            "layers_before_head": sum(len(block.layers) for block in blocks),
        },
        "prefix_cache": cache,
        "layers": [asdict(row) for row in ledger.layers],
        "epochs": [asdict(row) for row in ledger.epochs],
    }


def _fit(
    settings: Settings,
    own: TrainSettings,
    tracker: Tracker,
    classifier: Classifier,
    batches: Batches,
    start: PreparedNetwork,
    ledger: FreezeLedger,
    resume: Path,
) -> bool:
    """Fits, from the last epoch boundary where there is one; True on the rank that saves the result."""
    callbacks: list[L.Callback] = [checkpoint_callback(resume, own.monitor), ledger, *SweepReports.wanted()]
    scenario = start.decision.scenario
    if scenario.unfreeze_every is not None:
        callbacks.append(GradualUnfreezing(start.network, start.freezing, scenario, settings.plain("optimizer")))
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
        ledger.load_state_dict(checkpoint["callbacks"][ledger.state_key])
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
        "best_epoch": checkpoint["epoch"] + 1,
        "monitor": own.monitor,
        "value": row[own.monitor.replace("/", "_")],
    }


def _input_files(settings: Settings) -> list[Path]:
    weights = settings.section("weights", WeightsSettings)
    given = Path(weights.path) if weights.path is not None else None
    if given is not None and given.is_dir():
        return [*artifacts.training_files(), *sorted(given.iterdir())]
    return [*artifacts.training_files(), *([given] if given is not None else [])]


if __name__ == "__main__":
    main("train", run, SECTIONS)
