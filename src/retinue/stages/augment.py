"""Freezes the augmentation policy, shows and measures what it does, and draws extra training images where asked for."""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as L
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.utils import data

from retinue.engine.loading import Batches
from retinue.engine.store import ImageStore
from retinue.engine.stored_split import check_split
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import Stores, writing
from retinue.images.audit import audit, check_workers
from retinue.images.augmentation import Policy
from retinue.images.sheet_margin import row_name
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import PolicyAudit, Sample
from retinue.pipeline.errors import Fault
from retinue.pipeline.files import read_table, replacing, write_json, write_table
from retinue.pipeline.numbers import figure
from retinue.pipeline.plan import UNDECLARED, load_plan, sections_of
from retinue.pipeline.ranges import Checked, allowed, shown
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker

PREVIEW_IMAGES, PREVIEW_DRAWS = 8, 7
AUDIT_IMAGES, AUDIT_EPOCHS, COMPARED_IMAGES = 32, 4, 8
"""The sample that is measured, at most, and the images of it that worker processes draw, too."""
_AUDIT_BYTES = 2**26

_BATCH_SIZE = 32  # images per message from a worker; no result depends on it
_PREVIEW = "preview"  # store of the preview's draws, gone when the sheet is made
_TILE, _GAP, _HEADER, _MARGIN, _FONT_SIZE = 128, 6, 24, 104, 13  # of the preview sheet, px


def _copies_differ(copies_per_image: int, transforms: list[Any]) -> Fault | None:
    if not copies_per_image or transforms:
        return None
    hint = "The copies would be equal to their originals. Set it to 0, or choose transforms."
    return Fault("copies_per_image", shown(copies_per_image), "0, because augment.transforms is empty", hint)


@dataclass(frozen=True)
class AugmentSettings(Checked, section="augment"):
    """conf/augment.

    Attributes:
        name: of the choice.
        copies_per_image: extra images drawn from each training image and stored.
        transforms: mappings of `name` (an Albumentations transform) and its arguments, applied in this order.
    """

    RELATIONS = (_copies_differ,)

    name: str
    copies_per_image: int = field(metadata=allowed(ge=0, most=10_000))
    transforms: list[Any]


class Draws(data.Dataset[dict[str, torch.Tensor]]):
    """Draws of a policy in one list: first those of the preview, then the copies.

    The preview shows what training draws in its first epochs; copies are draws of negative epochs, which no training
    repeats. A batch is a dict of `images` uint8 (N, H, W, C) and `index` int64 (N,).

    Args:
        images: the training images.
        policy: draws.
        shown: indices of the images on the preview.
        copies: per training image.

    Attributes:
        previewed, copied: number of draws of either kind.
        store_of: int (N,): 0 for the preview, 1 for the copies.
        row_of: int (N,): place among its kind.
    """

    def __init__(self, images: ImageStore, policy: Policy, shown: Sequence[int], copies: int):
        self._images, self._policy, self.shown, self._copies = images, policy, list(shown), copies
        self.previewed = len(self.shown) * PREVIEW_DRAWS
        self.copied = len(images) * copies
        numbers = np.arange(self.previewed + self.copied)
        self.store_of = (numbers >= self.previewed).astype(np.int64)
        self.row_of = numbers - self.previewed * self.store_of

    def __len__(self) -> int:
        return self.previewed + self.copied

    @property
    def item_bytes(self) -> int:
        """Bytes of an image in a batch."""
        return int(np.prod(self._images.image_shape))

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        numbers = [number for _, number in keys]
        drawn = np.stack([self._draw(number) for number in numbers])
        return {"images": torch.from_numpy(drawn), "index": torch.as_tensor(numbers, dtype=torch.int64)}

    def _draw(self, number: int) -> np.ndarray:
        if number < self.previewed:
            position, epoch = divmod(number, PREVIEW_DRAWS)
            index = self.shown[position]
        else:
            index, copy = divmod(number - self.previewed, self._copies)
            epoch = -1 - copy
        return self._policy(self._images[index], epoch, index)


class Augment(L.LightningModule):
    """Passes the draws on to their stores. All the work is drawing, which the loader's workers have done."""

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        return {"images": (batch["index"], batch["images"])}


@dataclass(frozen=True)
class AugmentPlan:
    """The settings of augment."""

    seed: int
    augment: AugmentSettings
    trainer: TrainerSettings = field(metadata=UNDECLARED)


SECTIONS = sections_of(AugmentPlan)


def run(settings: Settings, tracker: Tracker) -> None:
    """Writes data/augmented/: policy.json, preview.png, audit.json (`PolicyAudit`) and, for copies, a store and its
    manifest.csv (`Sample`)."""
    plan = load_plan(AugmentPlan, settings)
    policy = Policy(plan.augment.transforms, plan.seed)
    dataset = artifacts.read_dataset()
    images = ImageStore(artifacts.PROCESSED / "train")
    samples = read_table(artifacts.PROCESSED / "train" / artifacts.MANIFEST, Sample)
    check_split(images, np.array([sample.label for sample in samples], np.int64), dataset)
    policy.check(images[0])
    labels = [sample.label for sample in samples]
    shown = spread_indices(labels, len(dataset.classes), PREVIEW_IMAGES)
    draws = Draws(images, policy, shown, plan.augment.copies_per_image)
    trainer = make_trainer(plan.trainer, seed=plan.seed, logger=tracker.lightning_logger())
    with replacing(artifacts.AUGMENTED, leader=trainer.is_global_zero) as folder:
        stores = {folder / _PREVIEW: draws.previewed}
        if draws.copied:
            stores[folder] = draws.copied
        if trainer.is_global_zero:
            for path, count in stores.items():
                ImageStore.create(path, count, images.image_shape).close()
        batches = Batches(draws, batch_size=_BATCH_SIZE, num_workers=plan.trainer.num_workers)
        with writing(trainer, {"images": lambda: Stores(list(stores), draws.store_of, draws.row_of)}):
            trainer.predict(Augment(), batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        (folder / artifacts.POLICY.name).write_text(policy.to_json(), "utf-8")
        names = [dataset.classes[samples[index].label] for index in draws.shown]
        with closing(ImageStore(folder / _PREVIEW)) as drawn:
            preview_sheet(images, drawn, draws.shown, names).save(folder / artifacts.PREVIEW.name)
        shutil.rmtree(folder / _PREVIEW)
        audited = audit_policy(images, policy, labels, len(dataset.classes))
        write_json(folder / artifacts.AUDIT.name, asdict(audited))
        if draws.copied:
            write_table(folder / artifacts.MANIFEST, Sample, _copies(samples, plan.augment.copies_per_image))
    tracker.summary({"copies": draws.copied})
    for finding in audited.findings:
        print(f"warning: augment: {finding}", file=sys.stderr, flush=True)
    tracker.images("augmentation", [artifacts.PREVIEW], [f"policy {plan.augment.name}"])
    tracker.artifact(artifacts.AUGMENTED, "dataset")
    print(
        f"policy {plan.augment.name} of {len(plan.augment.transforms)} transform(s), {figure(draws.copied)} extra "
        f"images -> {artifacts.AUGMENTED}"
    )


def spread_indices(labels: Sequence[int], num_classes: int, count: int) -> list[int]:
    """Indices of at most `count` images, evenly over the classes, the first ones of each.

    >>> spread_indices([0, 0, 0, 1, 1, 1, 1, 1, 1, 1], 2, 8)
    [0, 1, 2, 3, 4, 5, 6]
    """
    wanted = Counter(i * num_classes // count for i in range(count))
    chosen = []
    for index in sorted(range(len(labels)), key=lambda i: labels[i]):
        if wanted[labels[index]]:
            wanted[labels[index]] -= 1
            chosen.append(index)
    return chosen


def audit_policy(images: ImageStore, policy: Policy, labels: Sequence[int], num_classes: int) -> PolicyAudit:
    """Measures the draws of a sample of the training images in the first epochs of a training.

    Raises:
        TrainingError: a draw depends on the process that makes it.
    """
    most = max(COMPARED_IMAGES, _AUDIT_BYTES // int(np.prod(images.image_shape)))
    sample = spread_indices(labels, num_classes, min(AUDIT_IMAGES, most))
    found = audit({index: images[index] for index in sample}, policy, AUDIT_EPOCHS)
    if policy.is_empty:  # chosen, so nothing to find
        return replace(found, findings=[])
    check_workers(images, policy, [(epoch, index) for epoch in range(2) for index in sample[:COMPARED_IMAGES]])
    return found


def preview_sheet(images: ImageStore, drawn: ImageStore, shown: Sequence[int], names: Sequence[str]) -> Image.Image:
    """One row per image: its class name, the original, the draws.

    Args:
        images: the training images.
        drawn: `PREVIEW_DRAWS` draws of each image of `shown`, in that order.
        shown: indices of the images.
        names: class name of each.
    """
    side = _tile(images[0]).shape[0]
    step = side + _GAP
    size = (_MARGIN + (1 + PREVIEW_DRAWS) * step, _HEADER + len(shown) * step)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for column, title in enumerate(["original", *(f"epoch {1 + epoch}" for epoch in range(PREVIEW_DRAWS))]):
        pen.text((_MARGIN + column * step, _HEADER // 2), title, "black", font, anchor="lm")
    for row, (index, name) in enumerate(zip(shown, names, strict=True)):
        top = _HEADER + row * step
        pen.text((_GAP, top + side // 2), row_name(name), "black", font, anchor="lm")
        draws = (drawn[row * PREVIEW_DRAWS + draw] for draw in range(PREVIEW_DRAWS))
        for column, image in enumerate((images[index], *draws)):
            sheet.paste(Image.fromarray(_tile(image)), (_MARGIN + column * step, top))
    return sheet


def _tile(image: np.ndarray) -> np.ndarray:
    """The image at about `_TILE` px: enlarged by a whole number, so that its px stay visible, or reduced."""
    side = image.shape[0]
    factor = _TILE // side
    if factor:
        tile = image.repeat(factor, 0).repeat(factor, 1)
    else:
        tile = cv2.resize(image, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
    return tile.squeeze()


def _copies(samples: Sequence[Sample], copies: int) -> Iterator[Sample]:
    for sample in samples:
        for copy in range(copies):
            yield replace(sample, image_id=f"{sample.image_id}#{1 + copy}")


if __name__ == "__main__":
    main("augment", run, SECTIONS)
