"""What a policy does to images, measured: whether it changes them, leaves something of them, and draws anew each epoch.

A sample of the training images is drawn in several epochs. Every number is a function of the policy, the seed and the
images, so that it is the same on every machine of a kind.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from retinue.engine.loading import Draw, StoredImages, make_loader, raise_of_worker, usable_workers
from retinue.engine.store import ImageStore
from retinue.pipeline.artifacts import PolicyAudit
from retinue.pipeline.errors import TrainingError
from retinue.pipeline.numbers import percent, significant

NEARLY_CONSTANT, NEARLY_NOISE = 2.0, 64.0
"""Gray levels: px of a standard deviation below the one show nothing, and neighbours that differ on the average by the
other; those of uniform noise differ by 85, those of photographs by 5 to 20."""

IDLE_SHARE, LOST_SHARE, REPEATED_SHARE = 0.9, 0.05, 0.5
"""Shares of the draws, and of the images, from which a finding is told."""

IDLE_DIFFERENCE = 0.5
"""Gray levels: less is hardly seen."""

_DECIMALS = 6


def audit(images: Mapping[int, np.ndarray], draw: Draw, epochs: int) -> PolicyAudit:
    """Measures what `draw` makes of `images` in the epochs 0 to `epochs` - 1.

    Args:
        images: by number, uint8 (H, W, C); at least one.
        draw: (image, epoch, index) -> image of the same shape.
        epochs: at least 2.
    """
    rows = [
        _strength_of(image, [draw(image, epoch, index) for epoch in range(epochs)]) for index, image in images.items()
    ]
    changed, difference, identical, lost, repeated = (round(float(mean), _DECIMALS) for mean in np.mean(rows, axis=0))
    found = PolicyAudit(len(images), epochs, changed, difference, identical, lost, repeated, [])
    return replace(found, findings=list(_audit_findings(found)))


def check_workers(images: ImageStore, draw: Draw, keys: Sequence[tuple[int, int]]) -> None:
    """Draws once here, once in a worker process and once in two, and compares px by px.

    Args:
        images: the training images.
        draw: of the policy.
        keys: epoch and number of the image of each draw.

    Raises:
        TrainingError: with the first draw that differs.
    """
    loaded = StoredImages([images], np.zeros(len(images), np.int64), draw)
    for count in (1, 2):
        workers = usable_workers(count, loaded.item_bytes)
        batches = map(raise_of_worker, make_loader(loaded, workers, batch_size=1, sampler=keys))
        for (epoch, index), batch in zip(keys, batches, strict=True):
            if not np.array_equal(batch["images"][0].numpy(), draw(images[index], epoch, index)):
                raise TrainingError(
                    f"augment: the draw of training image {index} in epoch {epoch} is another one in {workers} worker "
                    "process(es) than in this one, so a training could not be repeated. Expected transforms that draw "
                    "from the generator of their policy alone; find the one by leaving out one at a time."
                )


def _strength_of(image: np.ndarray, drawn: Sequence[np.ndarray]) -> tuple[float, float, float, float, float]:
    """Means over the draws of one image: share of px changed, difference, share identical, lost, and all equal."""
    changed = [float(np.any(each != image, axis=-1).mean()) for each in drawn]
    difference = [float(np.abs(each.astype(np.int16) - image).mean()) for each in drawn]
    lost = [_shows_nothing(each) and not _shows_nothing(image) for each in drawn]
    repeated = all(np.array_equal(each, drawn[0]) for each in drawn[1:])
    identical = [share == 0 for share in changed]
    return (
        float(np.mean(changed)),
        float(np.mean(difference)),
        float(np.mean(identical)),
        float(np.mean(lost)),
        repeated,
    )


def _shows_nothing(image: np.ndarray) -> bool:
    steps = np.abs(np.diff(image.astype(np.int16), axis=1))
    return bool(image.std(axis=(0, 1)).max() < NEARLY_CONSTANT or (steps.size and steps.mean() >= NEARLY_NOISE))


def _audit_findings(found: PolicyAudit) -> Iterator[str]:
    """What is wrong with the policy, a sentence each, with the figures it rests on."""
    sample = f"of {found.images} images in {found.epochs} epochs"
    if found.identical_share >= IDLE_SHARE:
        share = percent(found.identical_share)
        yield f"The policy changes next to nothing: {share} of the draws {sample} are the images themselves."
    elif found.mean_difference < IDLE_DIFFERENCE:
        yield (
            f"The policy hardly changes anything: the draws {sample} differ from the images by "
            f"{significant(found.mean_difference, 2)} of 255 gray levels on the average."
        )
    elif found.repeated_share >= REPEATED_SHARE:
        yield (
            f"The policy is hardly random: {percent(found.repeated_share)} {sample} are drawn the same in every epoch."
        )
    if found.lost_share >= LOST_SHARE:
        share = percent(found.lost_share)
        yield (
            f"The policy destroys images: {share} of the draws {sample} are nearly of one colour or noise, though the "
            "images are not."
        )
