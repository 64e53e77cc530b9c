"""Explain: where the network looks, shown on chosen images of the test split and, where masks say where the object of
the class is, scored against them; and how good the explainers are that show it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from retinue.bundle import Bundle
from retinue.engine.loading import Batches
from retinue.engine.store import ImageStore
from retinue.engine.trainer import TrainerSettings, make_trainer
from retinue.engine.writing import picture_name, writing
from retinue.explainers.by_example import nearest_training_images
from retinue.explainers.chosen_images import ChosenImages, masks_of, predictions_on
from retinue.explainers.explainer import Explainer, NotApplicable
from retinue.explainers.inside import write_inside
from retinue.explainers.measures.measuring import measures_of_maps
from retinue.explainers.results import (
    FIRST,
    create_maps,
    further_explainers,
    gallery_document,
    marked_empty,
    places_of,
    write_localisation,
    write_measures,
)
from retinue.explainers.several import explainer_file, explainer_named, maps_of
from retinue.explainers.tracked_gallery import track_explanations
from retinue.images.outline import outlined
from retinue.images.overlay import overlay
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation, Neighbour, Prediction
from retinue.pipeline.errors import Fault, SettingsError
from retinue.pipeline.files import replacing, write_json, write_table
from retinue.pipeline.plan import load_plan, sections_of
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.settings import Settings, build
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker

EXPLAINED_CLASSES = ("predicted", "label")
MOST_CONFUSIONS = 60
"""Pairs of a class and a wrong answer of which images are added, the most frequent first: 30 classes have 870 pairs."""


def _each_explainer_once(explainer: dict[str, Any], also: list[str]) -> Fault | None:
    chosen = str(explainer.get("_target_", "")).rpartition(".")[0].rpartition(".")[2]
    for position, name in enumerate(also):
        if name in (chosen, *also[:position]):
            return Fault("also", name, "each explainer once")
        try:
            explainer_named(name, where="explain.also")
        except SettingsError as error:
            return Fault("also", "", "", str(error).partition(": ")[2])
    return None


@dataclass(frozen=True)
class ExplainSettings(Checked, section="explain"):
    """conf/explain.

    Attributes:
        name: of the explainer, as people read it, not empty.
        explainer: its `_target_` and arguments.
        also: further explainers, by the names of their files; with the settings that their classes have.
        explained_class: the class whose evidence is shown.
        images_per_outcome: of each class, at most this many right ones and this many wrong ones.
        confident_errors: at most this many of all wrong ones, the most confident.
        images_per_cell: of each frequent confusion, a cell of the confusion matrix, images are added up to this many.
        measured_images: at most this many of the explained ones, on which the explainers are measured; 0: none.
        batch_size: images of a pass.
        overlay_size: side of the overlays.
        opacity: of the heat map.
        nearest_images: training images shown beside each explained one, those nearest by the inputs of the head; 0
            spares the pass over the training images.
        feature_layers: layers whose maps of one image are shown; none: the first convolution, the middle and the last.
    """

    RELATIONS = (_each_explainer_once,)

    name: str = field(metadata=allowed(pattern=r".*\S.*", expected="what to call the explainer"))
    explainer: dict[str, Any]
    also: list[str]
    explained_class: str = field(metadata=allowed(choices=EXPLAINED_CLASSES))
    images_per_outcome: int = field(metadata=allowed(ge=0, most=1_000_000))
    confident_errors: int = field(metadata=allowed(ge=0, most=1_000_000))
    images_per_cell: int = field(metadata=allowed(ge=0, most=1_000))
    measured_images: int = field(metadata=allowed(ge=0, most=1_000_000))
    batch_size: int = field(metadata=allowed(ge=1, most=1_000_000))
    overlay_size: int = field(metadata=allowed(ge=1, most=16_384, unit="px"))
    opacity: float = field(metadata=allowed(ge=0, le=1))
    nearest_images: int = field(metadata=allowed(ge=0, le=8))
    feature_layers: list[str]


class Explain(L.LightningModule):
    """The maps of batches of `ChosenImages` by every explainer, their overlays, and how good they are.

    Args:
        bundle: the trained network and its preprocessing.
        explainers: key -> one made ready for the network.
        settings: size and opacity of the overlays.
        measured: positions in the gallery of the images on which the explainers are measured.
    """

    def __init__(
        self,
        bundle: Bundle,
        explainers: Mapping[str, Explainer],
        settings: ExplainSettings,
        measured: Collection[int],
    ):
        super().__init__()
        self.network, self._preprocessing = bundle.network, bundle.preprocessing
        self._explainers, self._settings, self._measured = explainers, settings, frozenset(measured)

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """The maps of `batch["images"]` for the classes `batch["targets"]`, masks outlined on their overlays."""
        inputs, index = self._preprocessing.normalise(batch["images"]), batch["index"]
        results: dict[str, Any] = {}
        maps = maps_of([*self._explainers.values()], self.network, inputs, batch["targets"])
        for key, explained in zip(self._explainers, maps, strict=True):
            results[f"maps/{key}"] = (index, explained.maps)
            results[f"overlays/{key}"] = (index, self._shown(batch, explained.maps))
        chosen = [i for i, position in enumerate(index.tolist()) if position in self._measured]
        if chosen:
            masks = batch["masks"][chosen].cpu().numpy() if "masks" in batch else None
            named = {explainer_file(explainer): explainer for explainer in self._explainers.values()}
            rows, targets = batch["rows"][chosen].tolist(), batch["targets"][chosen]
            found = measures_of_maps(named, self.network, inputs[chosen], targets, masks, rows)
            numbered = zip(index[chosen].tolist(), found, strict=True)
            results["measures"] = (index[chosen], [{"map": number, "rows": own} for number, own in numbered])
        return results

    def _shown(self, batch: dict[str, torch.Tensor], maps: torch.Tensor) -> list[np.ndarray]:
        """The overlays."""
        pairs = zip(batch["images"].cpu().numpy(), maps.cpu().numpy(), strict=True)
        size, opacity = self._settings.overlay_size, self._settings.opacity
        shown = [overlay(image, heat, size=size, opacity=opacity) for image, heat in pairs]
        if "masks" in batch:
            shown = [outlined(picture, mask) for picture, mask in zip(shown, batch["masks"].cpu().numpy(), strict=True)]
        return shown


@dataclass(frozen=True)
class ExplainPlan:
    """The settings of explain."""

    explain: ExplainSettings
    trainer: TrainerSettings


SECTIONS = sections_of(ExplainPlan)


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads models/, the predictions, the test and the training store, writes explanations/: maps.npy, overlays/,
    gallery.json, neighbours.csv (`Neighbour`), inside.json with its pictures, also/ for further explainers,
    measures.csv (`MeasuredMap`) and measures.json (`measures_document`) where images are measured, and localisation.csv
    (`Localisation`) and localisation.json (`mean_scores`) where the test split has masks."""
    plan = load_plan(ExplainPlan, settings)
    bundle = Bundle.load()
    store = ImageStore(artifacts.PROCESSED / "test")
    masks = masks_of(store)
    predictions = predictions_on(store, bundle.dataset)
    gallery = choose(predictions, len(bundle.classes), plan.explain)
    explainers, reasons = _located(plan.explain, bundle, store)
    reason, usable = reasons.get(FIRST), {key: e for key, e in explainers.items() if key not in reasons}
    gallery = gallery if reason is None else []
    measured = evenly_spaced(np.arange(len(gallery)), plan.explain.measured_images).tolist()
    # What the measures draw is the same in every run, so the seed of the run changes nothing and is not read.
    trainer = make_trainer(plan.trainer, seed=0, logger=tracker.lightning_logger(), inference_mode=False)
    with replacing(artifacts.EXPLANATIONS, leader=trainer.is_global_zero) as folder:
        if trainer.is_global_zero:
            create_maps(folder, usable, len(gallery), store.image_shape)
        if gallery:
            images = ChosenImages(store, masks, gallery)
            workers = plan.trainer.train_workers
            batches = Batches(images, batch_size=plan.explain.batch_size, num_workers=workers)
            with writing(trainer, places_of(folder, usable, trainer.global_rank)):
                trainer.predict(Explain(bundle, usable, plan.explain, measured), batches, return_predictions=False)
        neighbours = nearest_training_images(
            bundle,
            artifacts.PROCESSED / "train",
            gallery,
            store,
            count=plan.explain.nearest_images,
            trainer=trainer,
            batch_size=plan.explain.batch_size,
            num_workers=plan.trainer.train_workers,
            index=folder / "vectors.npy",
        )
        if not trainer.is_global_zero:
            return
        write_table(folder / artifacts.NEIGHBOURS.name, Neighbour, neighbours)
        looked_at = gallery[0].row if gallery else 0
        write_inside(folder, bundle, store[looked_at], predictions[looked_at].image_id, plan.explain.feature_layers)
        gallery = marked_empty(folder, gallery)
        also = further_explainers(folder, plan.explain.also, explainers, reasons)
        document = gallery_document(plan.explain.name, explainers[FIRST], reason, gallery, also)
        write_json(folder / artifacts.GALLERY.name, document)
        means = write_localisation(folder, gallery, masks) if masks is not None else {}
        measures = write_measures(folder, gallery, predictions) if measured else {"explainers": {}}
    tracker.summary({f"localisation/{key}": value for key, value in means.items()})
    track_explanations(
        tracker, gallery, bundle.classes, store, measures["explainers"].get(explainer_file(explainers[FIRST]))
    )
    layer = explainers[FIRST].target_layer
    print(reason or f"{plan.explain.name} of {layer}: {len(gallery)} of {len(store)} test images explained")


def choose(predictions: Sequence[Prediction], num_classes: int, settings: ExplainSettings) -> list[Explanation]:
    """The images to explain, each once, in the order of the gallery.

    The most confident errors of all are set aside first. Of the other images, right ones and wrong ones of each class
    are taken at even distances in the order of the store: a plain sample, not the best cases. The gallery shows the
    right ones, then the wrong ones, by class and row, then the confident errors, the most confident first; of equal
    ones the earlier row. Last are further images of the most frequent confusions, so that a cell of the confusion
    matrix has some to show.

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
    shown = np.array([row for row, _ in chosen], np.int64)
    chosen += [(row, "confused") for row in _confused(labels, predicted, shown, settings.images_per_cell)]
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


def _confused(labels: np.ndarray, predicted: np.ndarray, shown: np.ndarray, count: int) -> list[int]:
    """Rows to add to `shown` until each of the most frequent confusions has `count` of its images, or all."""
    pairs = np.stack([labels, predicted], axis=1)
    found, sizes = np.unique(pairs[labels != predicted], axis=0, return_counts=True)
    added: list[int] = []
    for pair in found[np.argsort(-sizes, kind="stable")][:MOST_CONFUSIONS]:
        rows = np.flatnonzero((pairs == pair).all(axis=1))
        left = np.setdiff1d(rows, shown)
        added += evenly_spaced(left, max(0, count - (len(rows) - len(left)))).tolist()
    return added


def evenly_spaced(values: np.ndarray, count: int) -> np.ndarray:
    """Chooses at most `count` of `values` (N,): the middles of `count` equal stretches.

    >>> evenly_spaced(np.arange(100), 2)
    array([25, 75])
    """
    if len(values) <= count:
        return values
    return values[(2 * np.arange(count) + 1) * len(values) // (2 * count)]


def _located(
    settings: ExplainSettings, bundle: Bundle, store: ImageStore
) -> tuple[dict[str, Explainer], dict[str, str]]:
    """The explainers by key, made ready for the network, and for some of them why they have nothing to show for it."""
    image = bundle.preprocessing.normalise(torch.from_numpy(store.read([0])))
    explainers: dict[str, Explainer] = {FIRST: build(settings.explainer, where="explain.explainer")}
    explainers |= {name: explainer_named(name, where="explain.also") for name in settings.also}
    reasons = dict[str, str]()
    for key, explainer in explainers.items():
        try:
            explainers[key] = explainer.located(bundle.network, image)
        except NotApplicable as error:
            reasons[key] = str(error)
    return explainers, reasons


if __name__ == "__main__":
    main("explain", run, SECTIONS)
