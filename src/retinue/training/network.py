"""A network before its first epoch: initial weights, transfer scenario, frozen part."""

from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only

from retinue.bundle import build_network
from retinue.engine.reproducibility import seed_everything
from retinue.images.image_digests import NO_DIGESTS
from retinue.models.network import Network
from retinue.pipeline.artifacts import Dataset, FittedHead
from retinue.pipeline.errors import SettingsFaults
from retinue.training.classifier import Classifier, Forward
from retinue.training.images import TrainingImages
from retinue.training.losses import balanced_weights
from retinue.training.plan import TrainPlan, unfreezing_faults
from retinue.transfer.automatic import Auto, Decision
from retinue.transfer.freeze_check import FreezeCheck
from retinue.transfer.freezing import Freezing, freeze
from retinue.transfer.initial import load_initial
from retinue.transfer.learning_rates import parameter_groups
from retinue.transfer.probing import measure_similarity
from retinue.transfer.scenario import Scenario
from retinue.transfer.similarity import Similarity
from retinue.transfer.trained_on import checked_record


class PreparedNetwork(NamedTuple):
    """A network before its first epoch.

    Attributes:
        network: with its initial weights, frozen as `freezing` says.
        initial_weights: what the bundle says of them.
        decision: the scenario, with reasons where transfer=auto chose it.
        freezing: what of the network is frozen.
        trained_on: digests of the images behind the initial weights, uint64 (N,); none where they are not known.
    """

    network: Network
    initial_weights: dict[str, Any]
    decision: Decision
    freezing: Freezing
    trained_on: np.ndarray = NO_DIGESTS

    @property
    def scenario(self) -> Scenario:
        """The transfer scenario that is trained."""
        return self.decision.scenario

    @property
    def is_pretrained(self) -> bool:
        """Whether the initial weights come from an earlier training; not where transfer=auto chose scratch."""
        return bool(self.initial_weights["name"] != "none")

    def classifier(self, plan: TrainPlan, images: TrainingImages, forward: Forward) -> Classifier:
        """The module that a Trainer fits."""
        if plan.train.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        balanced = plan.train.class_weights == "balanced"
        return Classifier(
            self.network,
            forward,
            plan.train,
            optimizer=plan.optimizer,
            schedule=plan.schedule,
            loss=plan.loss,
            groups=partial(parameter_groups, self.network, self.freezing, self.scenario, plan.optimizer),
            class_weights=balanced_weights(images.class_counts()) if balanced else None,
            val_labels=images.val_labels,
            seed=plan.seed,
        )

    def transfer_document(
        self, cache: str | None, check: FreezeCheck, fitted_head: FittedHead | None = None
    ) -> dict[str, Any]:
        """models/transfer.json: the scenario, why it was chosen, what was frozen, and the freeze ledger.

        Args:
            cache: see `retinue.training.data.TrainingData`.
            check: after the last epoch.
            fitted_head: None where the head was not fitted.
        """
        blocks = self.freezing.blocks
        return {
            "scenario": asdict(self.scenario),
            "reasons": list(self.decision.reasons),
            "measured": dict(self.decision.measured),
            "frozen": {
                "blocks": [block.name for block in blocks[: self.freezing.num_frozen]],
                "layers": len(self.freezing.layers),
                "layers_before_head": sum(len(block.layers) for block in blocks),
            },
            "prefix_cache": cache,
            **({} if fitted_head is None else {"fitted_head": asdict(fitted_head)}),
            "layers": [asdict(row) for row in check.layers],
            "epochs": [asdict(row) for row in check.epochs],
        }


def prepare_network(plan: TrainPlan, images: TrainingImages) -> PreparedNetwork:
    """Builds the network, loads its initial weights, chooses the scenario and freezes what that freezes.

    Raises:
        SettingsFaults: transfer=auto chose a scenario that several processes cannot train.
        ModelError: the weights cannot be had, do not fit, or have learnt images of the test split.
    """
    trained_on = checked_record(plan.weights) if plan.weights.is_bundle else NO_DIGESTS
    network, document = _untrained(plan, images.dataset), {"name": plan.weights.name}
    if plan.weights.given:
        document.update(load_initial(network, plan.weights, plan.download, images.dataset))
    if isinstance(plan.transfer, Auto):
        per_class = len(images.labels) / len(images.dataset.classes)
        decision = plan.transfer.decide(per_class, partial(_similarity, plan, images, network))
        rank_zero_only(print)("\n".join(f"transfer=auto: {reason}" for reason in decision.reasons))
        if not decision.scenario.transfers:
            network, document, trained_on = _untrained(plan, images.dataset), {"name": "none"}, NO_DIGESTS
    else:
        decision = Decision(plan.transfer)
    if faults := [*unfreezing_faults(decision.scenario, plan.trainer)]:
        raise SettingsFaults(faults)
    freezing = freeze(network, decision.scenario)
    if decision.scenario.frozen_fraction > 0:
        rank_zero_only(print)(f"transfer={decision.scenario.name}: {freezing}")
    return PreparedNetwork(network, document, decision, freezing, trained_on)


def _untrained(plan: TrainPlan, dataset: Dataset) -> Network:
    seed_everything(plan.seed)
    return build_network(plan.model, dataset)


def _similarity(plan: TrainPlan, images: TrainingImages, network: Network, limit: int, folds: int) -> Similarity:
    """How far the initial weights of `network` serve the training images already."""
    return measure_similarity(
        {"transferred": network, "untrained": _untrained(plan, images.dataset)},
        images.stored(),
        images.preprocessing,
        plan.trainer,
        limit=limit,
        folds=folds,
        batch_size=plan.train.eval_batch_size,
        seed=plan.seed,
    )
