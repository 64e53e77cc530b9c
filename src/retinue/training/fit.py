"""A training from its first epoch, or from where it was interrupted, to the weights of its best epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.utilities import rank_zero_only

from retinue.pipeline.artifacts import SHARED_CACHE, FittedHead
from retinue.pipeline.errors import TrainingError
from retinue.pipeline.numbers import figure, significant
from retinue.training.averaging import WeightAverage
from retinue.training.checkpoints import (
    BEST,
    LAST,
    AtomicCheckpointIO,
    checkpoint_callback,
    discard,
    early_stopping,
    exclusive,
    has_ended,
    load_checkpoint,
)
from retinue.training.data import TrainingData
from retinue.training.fitted_head import fit_head
from retinue.training.images import TrainingImages
from retinue.training.network import PreparedNetwork
from retinue.training.plan import TrainPlan
from retinue.training.sweep_reports import Pruned, SweepReports
from retinue.transfer.freeze_check import FreezeCheck
from retinue.transfer.unfreezing import GradualUnfreezing


class Fit:
    """A training that can be interrupted at any time and goes on at the last epoch boundary.

    Checkpoints are in `.cache/train/<fingerprint of the plan>`: a training that differs in a setting, in the code or in
    a byte of its inputs never resumes from them.

    Args:
        plan: all settings.
        prepared: the network before its first epoch.
        images: of the training.
        data: what each epoch reads.

    Attributes:
        classifier: what is fitted.
        check: the freeze ledger of its epochs.
    """

    def __init__(self, plan: TrainPlan, prepared: PreparedNetwork, images: TrainingImages, data: TrainingData):
        self._plan, self._prepared, self._images, self._data = plan, prepared, images, data
        self.classifier = prepared.classifier(plan, images, data.forward)
        self.check = FreezeCheck(prepared.network)
        self._folder = SHARED_CACHE / "train" / plan.fingerprint()

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """Holds the checkpoints for this process, and deletes them at the end, unless the training is to go on later.

        Two trials of a sweep may differ in nothing that training reads. A sweep that ends a trial does not go on with
        it.
        """
        with exclusive(self._folder):
            try:
                yield
            except Pruned:
                discard(self._folder)
                raise
            except (KeyboardInterrupt, SystemExit) as error:
                error.add_note(self._kept())
                raise
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                discard(self._folder)

    def run(self, logger: Any) -> bool:
        """Fits; True on the rank that saves the result.

        Args:
            logger: a Lightning logger, or False.

        Raises:
            TrainingError: the training has diverged, or something frozen has changed.
            Pruned: a sweep ends the trial.
        """
        train = self._plan.train
        last = self._folder / LAST
        checkpoint = load_checkpoint(last) if last.exists() else None
        trainer = self._plan.make_trainer(
            logger=logger,
            callbacks=self._callbacks(),
            max_epochs=train.max_epochs,
            **train.stepping(),
            enable_checkpointing=True,
            validates_first=self._fits_head and checkpoint is None,
            plugins=[AtomicCheckpointIO()],
            log_every_n_steps=1,  # nothing is logged per step; a larger number makes Lightning warn of short epochs
        )
        if checkpoint is not None and has_ended(checkpoint, train.max_epochs, train.patience):
            self.classifier.on_load_checkpoint(checkpoint)
            self.check.load_state_dict(checkpoint["callbacks"][self.check.state_key])
            return trainer.is_global_zero
        if checkpoint is not None:
            rank_zero_only(print)(f"resuming after epoch {checkpoint['epoch'] + 1} from {last}")
        elif self._fits_head:
            self.classifier.fitted_head = fit_head(self._plan, self._prepared.network, self._images)
        elif train.fit_head:
            rank_zero_only(print)("train.fit_head: the head begins as it is drawn, for no weights are transferred")
        path = last if checkpoint is not None else None
        trainer.fit(self.classifier, self._data.batches, ckpt_path=path, weights_only=True)
        return trainer.is_global_zero

    def take_best(self) -> dict[str, Any]:
        """Loads the weights of the best epoch into the network; what the bundle says of the training.

        Raises:
            TrainingError: the best epoch gives all images the same scores, or its weights are not what the freeze
                ledger says.
        """
        monitor = self._plan.train.monitor
        checkpoint = load_checkpoint(self._folder / BEST)
        self.classifier.load_state_dict(checkpoint["state_dict"])
        row = checkpoint["history"][-1]
        best = row["epoch"]
        if checkpoint["is_constant"]:
            raise TrainingError(
                f"epoch {best}, the best: all validation images get the same scores. Nothing was "
                "learnt: check the labels, lower optimizer.lr or train longer. Earlier results are untouched."
            )
        predicted, classes = row["val_predicted_classes"], len(self._images.dataset.classes)
        if predicted < classes:
            print(
                f"finding: epoch {best}, the best, predicts {predicted} of {classes} classes on "
                f"the validation split, at AUC {figure(row['val_auc_score'])}. train.class_weights=balanced weighs the "
                "rare ones up."
            )
        begin = self._average_begins()
        if begin is not None and 0 < checkpoint["global_step"] <= begin:
            print(
                f"finding: epoch {best}, the best, is before the mean of weights begins "
                f"(train.average_from={significant(self._plan.train.average_from or 0)} of train.max_epochs="
                f"{self._plan.train.max_epochs}): what is kept is not averaged. Lower one of them."
            )
        self.check.check_result()
        return {
            "best_epoch": best,
            "monitor": monitor,
            "value": row[monitor.replace("/", "_")],
            "initial_weights": self._prepared.initial_weights,
            **({} if self.head is None else {"fitted_head": self._what_became_of_the_head(best)}),
        }

    @property
    def head(self) -> FittedHead | None:
        """How the head was fitted before the first epoch; None where it was not."""
        return self.classifier.fitted_head

    @property
    def _fits_head(self) -> bool:
        return self._plan.train.fit_head and self._prepared.is_pretrained

    def _what_became_of_the_head(self, best: int) -> str:
        """A sentence for a person."""
        monitor, history = self._plan.train.monitor, self.classifier.history
        start, epochs = figure(history[0][monitor.replace("/", "_")]), figure(history[-1]["epoch"])
        if best:
            return f"The head was fitted before training, at {monitor} {start}; epoch {best} is better and kept."
        count = "the epoch" if epochs == "1" else f"none of the {epochs} epochs"
        has = "has no better" if epochs == "1" else "has a better"
        return (
            f"The network with the fitted head is kept as it was before training: {count} {has} {monitor} than {start}."
        )

    def _average_begins(self) -> int | None:
        """Optimizer steps before the plain mean of the weights begins; None where there is none."""
        train = self._plan.train
        if train.average_from is None:
            return None
        return int(train.average_from * train.steps(self._data.batches.steps_per_epoch))

    def _kept(self) -> str:
        """What of an interrupted training the next start takes up."""
        last = self._folder / LAST
        if not last.exists():
            return "No epoch was finished; the same command begins again."
        epochs = load_checkpoint(last)["epoch"] + 1
        return f"{epochs} of {self._plan.train.max_epochs} epochs are kept; the same command goes on after them."

    def _callbacks(self) -> list[L.Callback]:
        train, prepared = self._plan.train, self._prepared
        found: list[L.Callback] = [checkpoint_callback(self._folder, train.monitor), self.check]
        found.extend(SweepReports.wanted())
        if prepared.scenario.unfreeze_every is not None:
            unfreezing = (prepared.network, prepared.freezing, prepared.scenario, self._plan.optimizer)
            found.append(GradualUnfreezing(*unfreezing))
        if train.ema_decay is not None or train.average_from is not None:
            begin = self._average_begins() or 0
            found.append(WeightAverage(prepared.network, decay=train.ema_decay, begin=begin))
        if train.patience is not None:
            found.append(early_stopping(train.monitor, train.patience))
        return found
