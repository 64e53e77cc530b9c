"""What a training reads in every epoch: images, or, behind frozen layers, what these make of the images."""

from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_only

from retinue.engine.loading import Batches, StoredImages
from retinue.training.classifier import Forward, ImageForward
from retinue.training.images import TrainingImages
from retinue.training.mixing import MixedImages
from retinue.training.network import PreparedNetwork
from retinue.training.plan import TrainPlan, input_digests
from retinue.transfer.prefix_cache.cache import PrefixCache
from retinue.transfer.prefix_cache.cut import Suffix
from retinue.transfer.prefix_cache.features import StoredFeatures


class TrainingData(NamedTuple):
    """What a training reads, and by which part of the network it is computed.

    Attributes:
        batches: images, or what the frozen layers make of them.
        forward: the network, or what follows its frozen layers.
        cache: "float32" or "float16" where the frozen layers' outputs come from disk, else "off: " and why; None where
            nothing is frozen.
    """

    batches: Batches
    forward: Forward
    cache: str | None


def prepare_data(plan: TrainPlan, prepared: PreparedNetwork, images: TrainingImages) -> TrainingData:
    """Images for the whole network, or, where its frozen part gives the same in every epoch, features for the rest."""
    channels_last = plan.train.channels_last
    whole = ImageForward(prepared.network, images.preprocessing, channels_last=channels_last)
    if not prepared.freezing.num_frozen:
        return TrainingData(plan.batches(changing_images(plan, images), images.stored_val()), whole, None)
    cache = PrefixCache(
        prepared.network,
        prepared.freezing,
        prepared.scenario,
        images.preprocessing,
        {"train": images.stored(), "val": images.stored_val()},
        channels_last=channels_last,
    )
    reason = cache.why_not_cached(augments=not images.policy.is_empty, mixes=plan.train.mixes)
    state = f"off: {reason}" if reason else prepared.scenario.prefix_cache
    rank_zero_only(print)(f"frozen-prefix cache {state}")
    if reason:
        return TrainingData(plan.batches(changing_images(plan, images), images.stored_val()), whole, state)
    inputs = {
        "model": plan.model,
        "precision": plan.train.precision,
        "threads": plan.trainer.num_threads,
        "inputs": input_digests(),
    }
    folder = cache.folder(inputs, plan.make_trainer, lambda stored: plan.batches(None, stored))
    train = StoredFeatures(folder / "train.npy", images.labels)
    val = StoredFeatures(folder / "val.npy", images.val_labels)
    return TrainingData(plan.batches(train, val), Suffix(prepared.network, prepared.freezing), state)


def changing_images(plan: TrainPlan, images: TrainingImages) -> StoredImages | MixedImages:
    """The training images as an epoch sees them: drawn anew, and mixed, where the settings say so."""
    drawn, train = images.augmented(), plan.train
    if not train.mixes:
        return drawn
    weights = plan.sampling_weights(drawn.labels)
    return MixedImages(drawn, mixup=train.mixup, cutmix=train.cutmix, seed=plan.seed, weights=weights)
