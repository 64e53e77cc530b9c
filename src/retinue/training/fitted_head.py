"""The head of a network, fitted before the first epoch to what the initial weights make of the training images."""

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from retinue.engine.loading import StoredImages
from retinue.engine.trainer import make_trainer
from retinue.images.preprocessing import Preprocessing
from retinue.models.network import Network
from retinue.pipeline.artifacts import FittedHead
from retinue.pipeline.errors import ModelError
from retinue.pipeline.numbers import figure, significant
from retinue.training.images import TrainingImages
from retinue.training.logistic_head import PENALTIES, HeadLoss, LabelledFeatures, LinearHead, choose_head
from retinue.training.losses import balanced_weights, predicted_classes
from retinue.training.plan import TrainPlan
from retinue.transfer.probing import HeadReader, gather_features


def fit_head(plan: TrainPlan, network: Network, images: TrainingImages) -> FittedHead:
    """Replaces the head of `network` by the logistic regression on its inputs, over the training images as they are.

    Copies that augment has made have no part in it. Class weights and label smoothing are those of `plan.train`;
    `sampling=balanced`, which draws each class alike, is the balanced class weights. Auxiliary heads stay as they are.
    Behind a convolution with several outputs may stand a ReLU: all biases are raised, which no softmax sees, by twice
    what lifts the lowest output of any training image above 0, so that the logits are those of the regression.

    Args:
        plan: of the training.
        network: with its initial weights, on the CPU; changed in place.
        images: of the training.

    Raises:
        ModelError: the head is neither a linear layer nor a 1 × 1 convolution, or has no bias.
        TrainingError: its inputs are not finite.
    """
    layer, count = _last_layer(network), len(images.stores[0])
    own = StoredImages(images.stores[:1], images.labels[:count])
    reader = HeadReader(network, images.preprocessing)
    train = LabelledFeatures(_read(plan, reader, own), images.labels[:count])
    val = LabelledFeatures(_read(plan, reader, images.stored_val()), images.val_labels)
    balances = "balanced" in (plan.train.class_weights, plan.train.sampling)
    counts = np.bincount(train.labels, minlength=len(images.dataset.classes)).tolist()
    loss = HeadLoss(balanced_weights(counts) if balances else None, plan.train.label_smoothing)
    chosen = choose_head(train, val, layer.weight.shape[0], loss, units=images.units(), seed=plan.seed)
    _copy_into(layer, chosen.head)
    if isinstance(layer, nn.Conv2d) and layer.weight.shape[0] > 1:
        lowest = _read(plan, _LowestOutput(network, layer, images.preprocessing), own).min()
        _copy_into(layer, chosen.head, lift=2 * max(0.0, -float(lowest)))
    logits = chosen.head.logits(train.features)
    total, weight = loss.sums(logits, torch.from_numpy(train.labels))
    right = float((predicted_classes(logits).numpy() == train.labels).mean())
    found = FittedHead(chosen.penalty, chosen.chosen_by, PENALTIES, chosen.log_losses, total.item() / weight, right)
    rank_zero_only(print)(
        f"train.fit_head: the head is fitted to {figure(count)} training images; of {len(PENALTIES)} L2 penalties "
        f"{significant(found.penalty)} has the lowest log loss on {found.held_out}, {figure(min(found.log_losses))}"
    )
    return found


class _LowestOutput(nn.Module):
    """The lowest value a layer gives anywhere in an image: uint8 (N, H, W, C) -> float32 (N, 1)."""

    def __init__(self, network: Network, layer: nn.Module, preprocessing: Preprocessing):
        super().__init__()
        self._network, self._layer, self._preprocessing = network, layer, preprocessing

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []
        # at once, for what follows may change the values in place
        hook = self._layer.register_forward_hook(lambda _, inputs, outputs: found.append(outputs.flatten(1).amin(1)))
        try:
            self._network(self._preprocessing.normalise(images).contiguous())
        finally:
            hook.remove()
        return found[-1][:, None].float()


def _last_layer(network: Network) -> nn.Linear | nn.Conv2d:
    layer = network.get_submodule(network.head)
    pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
    if (isinstance(layer, nn.Linear) or pointwise) and layer.bias is not None:
        assert isinstance(layer, (nn.Linear, nn.Conv2d))
        return layer
    raise ModelError(
        f"train.fit_head: {network.head} of {type(network).__name__} is {layer}: expected a linear layer or a 1 × 1 "
        "convolution, with biases, for the last one. Set train.fit_head=false."
    )


def _read(plan: TrainPlan, reader: nn.Module, images: StoredImages) -> np.ndarray:
    """What `reader` makes of `images`, float32 (N, D)."""
    size, workers = plan.train.eval_batch_size, plan.trainer.train_workers
    trainer = make_trainer(plan.trainer, seed=plan.seed)
    return gather_features(reader, images, trainer, batch_size=size, num_workers=workers).numpy()


@torch.no_grad()
def _copy_into(layer: nn.Linear | nn.Conv2d, head: LinearHead, *, lift: float = 0.0) -> None:
    """Copies `head` into `layer`.

    Args:
        layer: changed in place.
        head: fitted.
        lift: added to all biases: the softmax stays as it is, and a ReLU behind the layer (SqueezeNet) passes all on.
    """
    assert layer.bias is not None
    layer.weight.copy_(torch.from_numpy(head.weight).reshape(layer.weight.shape))
    layer.bias.copy_(torch.from_numpy(head.bias + lift))
