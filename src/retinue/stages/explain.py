"""Explain: where the network looks, shown on chosen images of the test split and, where masks say where the object of
the class is, scored against them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from PIL import Image

from retinue import artifacts
from retinue.artifacts import Explanation, Prediction
from retinue.bundle import Bundle
from retinue.config import Settings, build
from retinue.errors import DataError, SettingsError, unknown
from retinue.explainers.explainer import Explained, Explainer, NotApplicable
from retinue.explainers.localisation import Localisation, energy_score, mean_scores, pointing_score
from retinue.images.loading import Batches
from retinue.images.outline import outlined
from retinue.images.overlay import overlay
from retinue.images.store import ImageStore, RowFile
from retinue.stage import main
from retinue.tracking import Tracker
from retinue.trainer import TrainerSettings, make_trainer

SECTIONS = ("explain", "trainer")

EXPLAINED_CLASSES = ("predicted", "label")


@dataclass(frozen=True)
class ExplainSettings:
    """conf/explain.

    Attributes:
        name: of the explainer.
        explainer: its `_target_` and arguments.
        explained_class: "predicted", or "label": the class whose evidence is shown.
        images_per_outcome: of each class, at most this many right ones and this many wrong ones, >= 0.
        confident_errors: at most this many of all wrong ones, the most confident, >= 0.
        batch_size: images of a pass, per device, >= 1.
        overlay_size: side of the overlays, px, >= 1.
        opacity: of the heat map, in [0, 1].
    """

    name: str
    explainer: dict[str, Any]
    explained_class: str
    images_per_outcome: int
    confident_errors: int
    batch_size: int
    overlay_size: int
    opacity: float

    def __post_init__(self) -> None:
        if self.explained_class not in EXPLAINED_CLASSES:
            raise SettingsError(f"explain.explained_class: {unknown('value', self.explained_class, EXPLAINED_CLASSES)}")
        for key, least in (("images_per_outcome", 0), ("confident_errors", 0), ("batch_size", 1), ("overlay_size", 1)):
            if getattr(self, key) < least:
                raise SettingsError(f"explain.{key}: expected >= {least}, got {getattr(self, key)}.")
        if not 0 <= self.opacity <= 1:
            raise SettingsError(f"explain.opacity: expected a fraction in [0, 1], got {self.opacity}.")


class ChosenImages(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The images of a gallery, a batch at a time: `images` uint8 (N, H, W, C), `targets` and `index` int64 (N,)."""

    def __init__(self, store: ImageStore, gallery: Sequence[Explanation]):
        self._store, self._gallery = store, gallery

    def __len__(self) -> int:
        return len(self._gallery)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        chosen = [self._gallery[index] for _, index in keys]
        return {
            "images": torch.from_numpy(self._store.read([entry.row for entry in chosen])),
            "targets": torch.tensor([entry.target for entry in chosen]),
            "index": torch.tensor([entry.map for entry in chosen]),
        }


class Explain(L.LightningModule):
    """The maps of batches of `ChosenImages`.

    Args:
        bundle: the trained network and its preprocessing.
        explainer: made ready for the network.
        writer: of what it gives.
    """

    def __init__(self, bundle: Bundle, explainer: Explainer, writer: L.Callback):
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer images than ranks
        self.network = bundle.network
        self._preprocessing, self._explainer, self._writer = bundle.preprocessing, explainer, writer

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> Explained:
        """The maps of `batch["images"]` uint8 (N, H, W, C) for the classes `batch["targets"]`."""
        return self._explainer.maps(self.network, self._preprocessing.normalise(batch["images"]), batch["targets"])

    def configure_callbacks(self) -> list[L.Callback]:
        return [self._writer]


class GalleryWriter(L.Callback):
    """Writes the maps and overlays of a batch to their places, whichever rank computed them.

    Args:
        folder: holds maps.npy and overlays/ when prediction begins.
        settings: size and opacity of the overlays.
        gallery: what is explained; an entry's `map` is its place.
        masks: of the test split, outlined on the overlays; None: there are none.
    """

    def __init__(
        self, folder: Path, settings: ExplainSettings, gallery: Sequence[Explanation], masks: ImageStore | None
    ):
        self._folder, self._settings, self._gallery, self._masks = folder, settings, gallery, masks

    def on_predict_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._maps = RowFile(self._folder / "maps.npy", writable=True)

    def on_predict_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        images, maps = batch["images"].cpu().numpy(), outputs.maps.cpu().numpy()
        for index, image, heat in zip(batch["index"].tolist(), images, maps, strict=True):
            self._maps.write(index, heat)
            shown = overlay(image, heat, size=self._settings.overlay_size, opacity=self._settings.opacity)
            if self._masks is not None:
                shown = outlined(shown, self._masks[self._gallery[index].row][..., 0] > 0)
            Image.fromarray(shown).save(self._folder / "overlays" / _overlay_name(index))

    def on_predict_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._maps.close()


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads models/, the predictions and the test store, writes explanations/: maps.npy, overlays/, gallery.json and,
    where the test split has masks, localisation.csv (`Localisation`) and localisation.json (`mean_scores`)."""
    own = settings.section("explain", ExplainSettings)
    trainer_settings = settings.section("trainer", TrainerSettings)
    bundle = Bundle.load()
    store = ImageStore(artifacts.PROCESSED / "test")
    masks = _masks(store)
    gallery = choose(_predictions(store), len(bundle.classes), own)
    explainer, reason = _located(build(own.explainer, where="explain.explainer"), bundle, store)
    if reason is not None:
        gallery = []
    # Nothing is drawn here, so the seed of the run changes nothing and is not read.
    trainer = make_trainer(trainer_settings, seed=0, logger=tracker.lightning_logger(), inference_mode=False)
    with artifacts.replacing(artifacts.EXPLANATIONS, leader=trainer.is_global_zero) as folder:
        if trainer.is_global_zero:
            (folder / "overlays").mkdir()
            shape = (len(gallery), *store.image_shape[:2])
            RowFile.create(folder / "maps.npy", shape, np.float32).close()
        if gallery:
            batches = Batches(
                ChosenImages(store, gallery), batch_size=own.batch_size, num_workers=trainer_settings.train_workers
            )
            module = Explain(bundle, explainer, GalleryWriter(folder, own, gallery, masks))
            trainer.predict(module, batches, return_predictions=False)
            # Rank 0 goes on with the maps of all ranks. Not in a hook: those of a rank without images are not called.
            trainer.strategy.barrier("maps")
        if not trainer.is_global_zero:
            return
        document = {
            "explainer": own.name,
            "target_layer": explainer.target_layer,
            "applicable": reason is None,
            "reason": reason,
            "images": [asdict(entry) for entry in gallery],
        }
        artifacts.write_json(folder / "gallery.json", document)
        if masks is not None:
            _localise(folder, gallery, masks, tracker)
    _mirror(tracker, gallery, bundle.classes)
    print(reason or f"{own.name} of {explainer.target_layer}: {len(gallery)} of {len(store)} test images explained")


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
            overlay=_overlay_name(position),
            map=position,
        )
        for position, (row, outcome) in enumerate(chosen)
    ]


def evenly_spaced(values: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `values` (N,): the middles of `count` equal stretches.

    >>> evenly_spaced(np.arange(100), 2)
    array([25, 75])
    """
    if len(values) <= count:
        return values
    return values[(2 * np.arange(count) + 1) * len(values) // (2 * count)]


def _predictions(store: ImageStore) -> list[Prediction]:
    file = artifacts.PREDICTIONS / "predictions.csv"
    predictions = artifacts.read_table(file, Prediction)
    if len(predictions) != len(store):
        raise DataError(
            f"{file}: {len(predictions)} predictions for the {len(store)} images of {store.folder}. "
            "Run `dvc repro`, which evaluates the images there are."
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
    folder = store.folder / "masks"
    return ImageStore(folder) if folder.is_dir() else None


def _localise(folder: Path, gallery: Sequence[Explanation], masks: ImageStore, tracker: Tracker) -> None:
    """Scores the maps of the images whose mask is not empty."""
    maps, rows = RowFile(folder / "maps.npy"), []
    for entry in gallery:
        mask = masks[entry.row][..., 0] > 0
        if mask.any():
            heat = maps[entry.map]
            scores = energy_score(heat, mask), pointing_score(heat, mask), float(mask.mean())
            rows.append(Localisation(entry.image_id, entry.map, entry.outcome, *scores))
    maps.close()
    artifacts.write_table(folder / "localisation.csv", Localisation, rows)
    document = mean_scores(rows)
    artifacts.write_json(folder / "localisation.json", document)
    tracker.summary({f"localisation/{key}": value for key, value in document["all"].items()})


def _overlay_name(position: int) -> str:
    return f"{position:05d}.png"


def _mirror(tracker: Tracker, gallery: Sequence[Explanation], classes: Sequence[str]) -> None:
    """Shows the tracker what was written."""
    captions = [
        f"{entry.outcome.replace('_', ' ')}: {classes[entry.label]}, predicted {classes[entry.predicted]} "
        f"({entry.confidence:.2f}), shown: evidence for {classes[entry.target]}"
        for entry in gallery
    ]
    tracker.images("explanations", [artifacts.EXPLANATIONS / "overlays" / e.overlay for e in gallery], captions)
    tracker.artifact(artifacts.EXPLANATIONS, "explanations")


if __name__ == "__main__":
    main("explain", run, SECTIONS)
