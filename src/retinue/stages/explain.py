"""Explain: where the network looks, shown on chosen images of the test split and, where masks say where the object of
the class is, scored against them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from retinue.bundle import Bundle
from retinue.engine.loading import Batches
from retinue.engine.store import REMAKE, ImageStore, RowFile
from retinue.engine.stored_split import check_split
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import PngSink, ResultSink, picture_name, writing
from retinue.explainers.explainer import Explainer, NotApplicable
from retinue.explainers.localisation import energy_score, mean_scores, pointing_score
from retinue.images.outline import outlined
from retinue.images.overlay import overlay
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, Explanation, Localisation, Prediction
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_table, replacing, write_json, write_table
from retinue.pipeline.numbers import figure
from retinue.pipeline.plan import load_plan, sections_of
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.settings import Settings, build
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker

EXPLAINED_CLASSES = ("predicted", "label")


@dataclass(frozen=True)
class ExplainSettings(Checked, section="explain"):
    """conf/explain.

    Attributes:
        name: of the explainer, as people read it, not empty.
        module: its file in src/retinue/explainers/.
        explainer: its `_target_` and arguments.
        explained_class: the class whose evidence is shown.
        images_per_outcome: of each class, at most this many right ones and this many wrong ones.
        confident_errors: at most this many of all wrong ones, the most confident.
        batch_size: images of a pass.
        overlay_size: side of the overlays.
        opacity: of the heat map.
    """

    name: str = field(metadata=allowed(pattern=r".*\S.*", expected="what to call the explainer"))
    module: str
    explainer: dict[str, Any]
    explained_class: str = field(metadata=allowed(choices=EXPLAINED_CLASSES))
    images_per_outcome: int = field(metadata=allowed(ge=0, most=1_000_000))
    confident_errors: int = field(metadata=allowed(ge=0, most=1_000_000))
    batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))
    overlay_size: int = field(metadata=allowed(ge=1, most=16_384, unit="px"))
    opacity: float = field(metadata=allowed(ge=0, le=1))


class ChosenImages(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The images of a gallery, a batch at a time.

    A batch is a dict of `images` uint8 (N, H, W, C), `targets` and `index` int64 (N,) and, where the test split has
    masks, `masks` bool (N, H, W).
    """

    def __init__(self, images: ImageStore, masks: ImageStore | None, gallery: Sequence[Explanation]):
        self._images, self._masks, self._gallery = images, masks, gallery

    def __len__(self) -> int:
        return len(self._gallery)

    @property
    def item_bytes(self) -> int:
        """Bytes of an image, and of its mask, in a batch."""
        height, width, channels = self._images.image_shape
        return height * width * (channels + (self._masks is not None))

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        chosen = [self._gallery[index] for _, index in keys]
        rows = [entry.row for entry in chosen]
        batch = {
            "images": torch.from_numpy(self._images.read(rows)),
            "targets": torch.tensor([entry.target for entry in chosen]),
            "index": torch.tensor([entry.map for entry in chosen]),
        }
        if self._masks is not None:
            batch["masks"] = torch.from_numpy(self._masks.read(rows)[..., 0] > 0)
        return batch


class Explain(L.LightningModule):
    """The maps of batches of `ChosenImages`, and their overlays.

    Args:
        bundle: the trained network and its preprocessing.
        explainer: made ready for the network.
        settings: size and opacity of the overlays.
    """

    def __init__(self, bundle: Bundle, explainer: Explainer, settings: ExplainSettings):
        super().__init__()
        self.network, self._preprocessing = bundle.network, bundle.preprocessing
        self._explainer, self._settings = explainer, settings

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """The maps of `batch["images"]` for the classes `batch["targets"]`, masks outlined on their overlays."""
        inputs = self._preprocessing.normalise(batch["images"])
        maps = self._explainer.maps(self.network, inputs, batch["targets"]).maps
        pairs = zip(batch["images"].cpu().numpy(), maps.cpu().numpy(), strict=True)
        size, opacity = self._settings.overlay_size, self._settings.opacity
        shown = [overlay(image, heat, size=size, opacity=opacity) for image, heat in pairs]
        if "masks" in batch:
            shown = [outlined(picture, mask) for picture, mask in zip(shown, batch["masks"].cpu().numpy(), strict=True)]
        return {"maps": (batch["index"], maps), "overlays": (batch["index"], shown)}


@dataclass(frozen=True)
class ExplainPlan:
    """The settings of explain."""

    explain: ExplainSettings
    trainer: TrainerSettings


SECTIONS = sections_of(ExplainPlan)


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads models/, the predictions and the test store, writes explanations/: maps.npy, overlays/, gallery.json and,
    where the test split has masks, localisation.csv (`Localisation`) and localisation.json (`mean_scores`)."""
    plan = load_plan(ExplainPlan, settings)
    bundle = Bundle.load()
    store = ImageStore(artifacts.PROCESSED / "test")
    masks = _masks(store)
    gallery = choose(_predictions(store, bundle.dataset), len(bundle.classes), plan.explain)
    explainer, reason = _located(build(plan.explain.explainer, where="explain.explainer"), bundle, store)
    if reason is not None:
        gallery = []
    # Nothing is drawn here, so the seed of the run changes nothing and is not read.
    trainer = make_trainer(plan.trainer, seed=0, logger=tracker.lightning_logger(), inference_mode=False)
    with replacing(artifacts.EXPLANATIONS, leader=trainer.is_global_zero) as folder:
        if trainer.is_global_zero:
            (folder / artifacts.OVERLAYS.name).mkdir()
            shape = (len(gallery), *store.image_shape[:2])
            RowFile.create(folder / artifacts.MAPS.name, shape, np.float32).close()
        if gallery:
            batches = Batches(
                ChosenImages(store, masks, gallery),
                batch_size=plan.explain.batch_size,
                num_workers=plan.trainer.train_workers,
            )
            places: dict[str, Callable[[], ResultSink]] = {
                "maps": lambda: RowFile(folder / artifacts.MAPS.name, writable=True),
                "overlays": lambda: PngSink(folder / artifacts.OVERLAYS.name),
            }
            with writing(trainer, places):
                trainer.predict(Explain(bundle, explainer, plan.explain), batches, return_predictions=False)
        if not trainer.is_global_zero:
            return
        document = {
            "explainer": plan.explain.name,
            "target_layer": explainer.target_layer,
            "applicable": reason is None,
            "reason": reason,
            "images": [asdict(entry) for entry in gallery],
        }
        write_json(folder / artifacts.GALLERY.name, document)
        if masks is not None:
            _localise(folder, gallery, masks, tracker)
    _mirror_gallery(tracker, gallery, bundle.classes)
    print(
        reason
        or f"{plan.explain.name} of {explainer.target_layer}: {len(gallery)} of {len(store)} test images explained"
    )


def choose(predictions: Sequence[Prediction], num_classes: int, settings: ExplainSettings) -> list[Explanation]:
    """The images to explain, each once, in the order of the gallery.

    The most confident errors of all are set aside first. Of the other images, right ones and wrong ones of each class
    are taken at even distances in the order of the store: a plain sample, not the best cases. The gallery shows the
    right ones, then the wrong ones, by class and row, and last the confident errors, the most confident first; of equal
    ones the earlier row.

    Args:
        predictions: row i is of image i of the test store.
        num_classes: number of classes.
        settings: how many of which.
    """
    labels = np.array([p.label for p in predictions], np.int64)
    predicted = np.array([p.predicted for p in predictions], np.int64)
    confidence = np.array([p.confidence for p in predictions], np.float64)
    errors = np.flatnonzero(predicted != labels)
    worst = errors[np.argsort(-confidence[errors], kind="stable")][: settings.confident_errors]
    others = np.setdiff1d(np.arange(len(labels)), worst)
    chosen: list[tuple[int, str]] = []
    for outcome, is_right in (("right", True), ("wrong", False)):
        for label in range(num_classes):
            rows = others[(labels[others] == label) & ((predicted[others] == label) == is_right)]
            chosen += [(row, outcome) for row in evenly_spaced(rows, settings.images_per_outcome).tolist()]
    chosen += [(row, "confident_error") for row in worst.tolist()]
    return [
        Explanation(
            image_id=predictions[row].image_id,
            row=row,
            label=predictions[row].label,
            predicted=predictions[row].predicted,
            confidence=predictions[row].confidence,
            outcome=outcome,
            target=getattr(predictions[row], settings.explained_class),
            overlay=picture_name(position),
            map=position,
        )
        for position, (row, outcome) in enumerate(chosen)
    ]


def evenly_spaced(values: np.ndarray, count: int) -> np.ndarray:
    """Chooses at most `count` of `values` (N,): the middles of `count` equal stretches.

    >>> evenly_spaced(np.arange(100), 2)
    array([25, 75])
    """
    if len(values) <= count:
        return values
    return values[(2 * np.arange(count) + 1) * len(values) // (2 * count)]


def _predictions(store: ImageStore, dataset: Dataset) -> list[Prediction]:
    file, again = artifacts.PREDICTED, "Run `dvc repro`, which evaluates the images there are."
    predictions = read_table(file, Prediction)
    if len(predictions) != len(store):
        raise DataError(
            f"{file}: {len(predictions)} predictions for the {len(store)} images of {store.folder}. {again}"
        )
    check_split(store, np.array([entry.label for entry in predictions], np.int64), dataset, every_class=False)
    for row, entry in enumerate(predictions):
        if not (0 <= entry.predicted < len(dataset.classes) and 0 <= entry.confidence <= 1):
            raise DataError(
                f"{file}: row {row} says class {entry.predicted} with probability {entry.confidence}, expected a "
                f"class from 0 to {len(dataset.classes) - 1} and a probability in [0, 1]. {again}"
            )
    return predictions


def _located(explainer: Explainer, bundle: Bundle, store: ImageStore) -> tuple[Explainer, str | None]:
    """The explainer made ready for the network, or why it has nothing to show for it."""
    try:
        image = bundle.preprocessing.normalise(torch.from_numpy(store.read([0])))
        return explainer.located(bundle.network, image), None
    except NotApplicable as error:
        return explainer, str(error)


def _masks(store: ImageStore) -> ImageStore | None:
    """The masks of the test split, in the order of its images; None where the source has none."""
    folder = store.folder / artifacts.MASKS
    if not folder.is_dir():
        return None
    masks = ImageStore(folder)
    if (len(masks), *masks.image_shape) != (len(store), *store.image_shape[:2], 1):
        raise DataError(
            f"{folder}: {len(masks)} masks {masks.image_shape} for {len(store)} images {store.image_shape}. {REMAKE}"
        )
    return masks


def _localise(folder: Path, gallery: Sequence[Explanation], masks: ImageStore, tracker: Tracker) -> None:
    """Scores the maps of the images whose mask is not empty."""
    maps, rows = RowFile(folder / artifacts.MAPS.name), []
    for entry in gallery:
        mask = masks[entry.row][..., 0] > 0
        if mask.any():
            heat = maps[entry.map]
            scores = energy_score(heat, mask), pointing_score(heat, mask), float(mask.mean())
            rows.append(Localisation(entry.image_id, entry.map, entry.outcome, *scores))
    maps.close()
    write_table(folder / artifacts.LOCALISATION.name, Localisation, rows)
    document = mean_scores(rows)
    write_json(folder / artifacts.LOCALISATION_MEANS.name, document)
    tracker.summary({f"localisation/{key}": value for key, value in document["all"].items()})


def _mirror_gallery(tracker: Tracker, gallery: Sequence[Explanation], classes: Sequence[str]) -> None:
    """Shows the tracker what was written."""
    captions = [
        f"{entry.outcome.replace('_', ' ')}: {classes[entry.label]}, predicted {classes[entry.predicted]} "
        f"({figure(entry.confidence)}), shown: evidence for {classes[entry.target]}"
        for entry in gallery
    ]
    tracker.images("explanations", [artifacts.OVERLAYS / e.overlay for e in gallery], captions)
    tracker.artifact(artifacts.EXPLANATIONS, "explanations")


if __name__ == "__main__":
    main("explain", run, SECTIONS)
