"""The artifacts of a whole run, made up in a second: what the report is tested on.

Labels and logits are drawn from a seed; metrics and curves are those of `retinue.metrics` on them, so everything on the
page belongs together as it does after a real run.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinue.describe.describe import describe
from retinue.engine.store import ImageStore, RowFile
from retinue.metrics import summary
from retinue.metrics.against_baselines import against_baselines
from retinue.metrics.deciding import decide
from retinue.metrics.registry import Predicted
from retinue.models.lenet5 import LeNet5
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import (
    UNCALIBRATED,
    CalibrationFit,
    Dataset,
    DecisionRule,
    Epoch,
    Explanation,
    FittedMethod,
    FittedMethods,
    ImageMeasures,
    Inside,
    LayerEntry,
    Leaks,
    LedgerEpoch,
    LeftOutMethod,
    NearCopy,
    Neighbour,
    Outlier,
    Outliers,
    PointOnVal,
    PolicyAudit,
    Prediction,
    Quarantined,
    RawImage,
    RawLevels,
    Sample,
    Seen,
    ShortcutCheck,
    ShortcutGroup,
    ShownLayer,
)
from retinue.pipeline.composition import load_params
from retinue.pipeline.files import read_table, write_json, write_table
from retinue.transfer.depth import blocks_of
from retinue.transfer.freezing import freeze_blocks

ROOT = Path(__file__).resolve().parents[2]
DIGITS = tuple("0123456789")
INSECTS = ("ants", "bees")


JUDGES = 50
"""Images of the validation split, as `CalibrationFit` below has it."""


@dataclass(frozen=True)
class Scene:
    """What is made up.

    Attributes:
        name: of the data set.
        classes: names.
        image_size, channels: of the stored images.
        per_class: images of each class in the test split.
        skill: how far the logit of the right class stands above the others, in standard deviations.
        epochs: of the training.
        quarantine, duplicates, near_copies: what acquire found.
        corrections: what acquire has applied.
        leaks: what preprocess found.
        seen: what preprocess left out; None: nothing.
        applicable: whether the explainer has something to show.
        frozen_blocks: of the network, from the first one on; 0 is transfer=scratch.
        reasons: for the scenario, as transfer=auto gives them.
        prefix: of the image ids.
        outliers: how often acquire lists its first image as dark.
        shortcut: features from which the label can be told; "" is none.
        decision: of the bundle.
        dark_is_wrong: whether the misclassified test images are the darkest.
        strange: the first test images, so many, that are as unlike the training images as an image can be.
        wrong_labels: validation images whose logits speak for another class than their label.
        sections: what differs from params.yaml, section -> key -> value.
    """

    name: str = "made_up"
    classes: Sequence[str] = DIGITS
    image_size: int = 32
    channels: int = 1
    per_class: int = 36
    skill: float = 4.0
    epochs: int = 18
    quarantine: Sequence[Quarantined] = ()
    duplicates: Sequence[Sequence[Mapping[str, str]]] = ()
    leaks: Leaks = field(default_factory=lambda: Leaks((), (), ()))
    near_copies: Sequence[NearCopy] = ()
    seen: Seen | None = None
    corrections: Sequence[Mapping[str, str]] = ()
    applicable: bool = True
    frozen_blocks: int = 0
    reasons: Sequence[str] = ()
    prefix: str = "scan/"
    outliers: int = 1
    shortcut: str = ""
    decision: DecisionRule = UNCALIBRATED
    dark_is_wrong: bool = False
    strange: int = 0
    wrong_labels: int = 0
    sections: Mapping[str, Any] | None = None


BINARY = Scene(
    classes=INSECTS,
    image_size=112,
    channels=3,
    per_class=70,
    skill=2.2,
    quarantine=[Quarantined("train/ants/imageNotFound.gif", "ants", "format GIF is not among JPEG, PNG, WEBP")],
    prefix="val/photo-",
    sections={"augment": {"name": "none", "copies_per_image": 0, "transforms": []}},
)
TRANSFERRED = replace(
    BINARY,
    frozen_blocks=2,
    reasons=["122 training images per class: few (transfer.small_below 150).", "Chosen: small_different."],
    sections={**(BINARY.sections or {}), "transfer": {"name": "auto"}},
)


def settings_values(scene: Scene) -> dict[str, Any]:
    """The committed settings with the scene's changes."""
    values = copy.deepcopy(load_params(ROOT / "params.yaml"))
    for name, changes in (scene.sections or {}).items():
        values[name] = {**values[name], **changes} if isinstance(changes, Mapping) else changes
    return values


def write_artifacts(scene: Scene) -> None:
    """Writes data/, models/, evaluation/ and explanations/ below the current folder."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(scene.classes)), scene.per_class))
    logits = _logits(rng, labels, scene)
    dataset = _dataset(scene)
    artifacts.write_dataset(artifacts.PROCESSED / "dataset.json", dataset)
    artifacts.write_leaks(artifacts.LEAKS, scene.leaks)
    seen = scene.seen or Seen(sum(map(len, dataset.counts.values())), 0.0, 0.0, 0, 0, 0, ())
    write_json(artifacts.PROCESSED / "seen/shares.json", asdict(seen))
    _write_png(artifacts.PROCESSED / "seen/sheet.png", np.full((158, 372, 3), 200, np.uint8))
    for split in artifacts.SPLITS:
        count = len(labels) if split == "test" else sum(dataset.counts[split].values())
        held = labels if split == "test" else np.arange(count) % len(scene.classes)
        rows = [Sample(f"{scene.prefix}{split}-{i:04d}.png", int(label), "", i) for i, label in enumerate(held)]
        write_table(artifacts.PROCESSED / split / "manifest.csv", Sample, rows)
    store = _test_images(rng, labels, scene)
    _training_images(rng, scene)
    _raw(scene, dataset)
    _checks(rng, scene)
    _augmented(rng, scene)
    _model(rng, scene)
    _evaluation(labels, logits, scene)
    _known_images(labels, logits, scene)
    _explanations(labels, logits, store, scene)


def _logits(rng: np.random.Generator, labels: np.ndarray, scene: Scene) -> np.ndarray:
    if len(scene.classes) == 2:
        return (scene.skill * (labels - 0.5) + rng.normal(size=len(labels))).astype(np.float32)[:, None] * 1.5
    logits = rng.normal(size=(len(labels), len(scene.classes)))
    logits[np.arange(len(labels)), labels] += scene.skill
    return (1.5 * logits).astype(np.float32)


def _dataset(scene: Scene) -> Dataset:
    train = {name: 4 * scene.per_class + 3 * i for i, name in enumerate(scene.classes)}
    val = {name: scene.per_class - i % 5 for i, name in enumerate(scene.classes)}
    test = dict.fromkeys(scene.classes, scene.per_class)
    counts = {"train": train, "val": val, "test": test}
    mean, std = (0.3,) * scene.channels, (0.35,) * scene.channels
    size = scene.image_size
    return Dataset(scene.name, tuple(scene.classes), counts, size, size * 8 // 7, scene.channels, mean, std)


def _pattern(rng: np.random.Generator, label: int, scene: Scene) -> np.ndarray:
    """A ring whose size tells the class, uint8 (S, S, C)."""
    side = scene.image_size
    y, x = np.mgrid[:side, :side] / side - 0.5 - rng.uniform(-0.06, 0.06, size=(2, 1, 1))
    radius = 0.08 + 0.34 * label / len(scene.classes)
    ring = np.exp(-(((np.hypot(x, 1.2 * y) - radius) / 0.05) ** 2))
    tint = rng.uniform(0.6, 1.0, size=scene.channels)
    noise = rng.normal(0, 0.03, size=(side, side, 1))
    return np.clip(255 * (0.12 + 0.8 * ring[..., None] * tint + noise), 0, 255).astype(np.uint8)


def _test_images(rng: np.random.Generator, labels: np.ndarray, scene: Scene) -> ImageStore:
    shape = (scene.image_size, scene.image_size, scene.channels)
    store = ImageStore.create(artifacts.PROCESSED / "test", len(labels), shape)
    for row, label in enumerate(labels):
        store.write(row, _pattern(rng, int(label), scene))
    return store


def _training_images(rng: np.random.Generator, scene: Scene) -> None:
    """The store of the training split; its first images, those that are shown, are drawn, the others black."""
    shape = (scene.image_size, scene.image_size, scene.channels)
    for split in ("train", "val"):
        rows = read_table(artifacts.PROCESSED / split / artifacts.MANIFEST, Sample)
        store = ImageStore.create(artifacts.PROCESSED / split, len(rows), shape)
        for row, sample in enumerate(rows[: 4 * len(scene.classes)]):
            store.write(row, _pattern(rng, sample.label, scene))
        store.close()


def _checks(rng: np.random.Generator, scene: Scene) -> None:
    """What acquire found, `scene.shortcut` being what tells the label and the first image of all being dark."""
    outlier = Outlier(0, f"{scene.prefix}train-0000.png", scene.classes[0], "dark", 0.02, 0.4)
    found = Outliers({"dark": scene.outliers, "blurred": 0}, [outlier] * scene.outliers)
    write_json(artifacts.OUTLIERS, asdict(found))
    _write_png(artifacts.original_path(0), _pattern(rng, 0, scene))
    groups = [
        ShortcutGroup("file format", True, 0.5, 0.5, 0.5, "", ""),
        ShortcutGroup("dimensions", False, 0.52, 0.44, 0.6, scene.classes[0], "width, px, 32 (median), others 32"),
        ShortcutGroup(
            "mean brightness", False, 0.58, 0.52, 0.63, scene.classes[0], "brightness 0.4 (median), others 0.3"
        ),
    ]
    if scene.shortcut:
        told = f"{scene.shortcut} of {scene.classes[0]}"
        groups.append(ShortcutGroup(scene.shortcut, False, 0.9312, 0.9011, 0.9533, scene.classes[0], told))
    groups.append(ShortcutGroup("everything together", False, 0.61, 0.55, 0.67, scene.classes[0], ""))
    check = ShortcutCheck(200, 190, len(scene.classes), 0, 0.95, 0.6, "", groups)
    write_json(artifacts.SHORTCUTS, asdict(check))


def _raw(scene: Scene, dataset: Dataset) -> None:
    totals = {c: sum(dataset.counts[s][c] for s in artifacts.SPLITS) for c in scene.classes}
    digest = "0" * 64
    rows = [
        RawImage(f"{scene.prefix}train-{i:04d}.png", c, "", "", digest, 500, 32, 32, "L", "PNG")
        for i, c in enumerate(totals)
    ]
    write_table(artifacts.RAW / "manifest.csv", RawImage, rows)
    write_table(artifacts.NEAR_COPIES, NearCopy, scene.near_copies)
    write_json(artifacts.RAW / "quarantine.json", [asdict(entry) for entry in scene.quarantine])
    card = {
        "name": scene.name,
        "description": "Rings of different sizes; the class is the radius.",
        "licence": "MIT",
        "origin": "drawn by the tests",
        "images": sum(totals.values()),
        "quarantined": len(scene.quarantine),
        "classes": totals,
        "given_splits": {"test": len(scene.classes) * scene.per_class},
        "modes": {"L": sum(totals.values())},
        "formats": {"PNG": sum(totals.values())},
        "width": {"min": 32, "median": 32, "max": 32},
        "height": {"min": 32, "median": 40.5, "max": 64},
        "duplicates": scene.duplicates,
        "strays": {"number": 0, "endings": "", "first": []},
        "wrong_endings": {"number": 0, "kinds": {}, "first": []},
        "corrections": list(scene.corrections),
    }
    write_json(artifacts.RAW / "card.json", card)
    write_json(artifacts.RAW / "levels.json", asdict(RawLevels(0, None, None, None, is_from_data=False)))


def _augmented(rng: np.random.Generator, scene: Scene) -> None:
    transforms = settings_values(scene)["augment"]["transforms"]
    write_json(artifacts.AUGMENTED / "policy.json", {"transforms": transforms})
    write_json(artifacts.AUDIT, asdict(PolicyAudit(32, 4, 0.9, 21.5, 0.1, 0.0, 0.0, [])))
    tiles = [[_pattern(rng, label, scene) for _ in range(8)] for label in range(min(4, len(scene.classes)))]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in tiles]).repeat(2, 0).repeat(2, 1)
    _write_png(artifacts.AUGMENTED / "preview.png", sheet)


def _model(rng: np.random.Generator, scene: Scene) -> None:
    artifacts.MODEL.mkdir(parents=True)
    (artifacts.MODEL / "weights.safetensors").write_bytes(rng.bytes(1000))
    history = []
    for epoch in range(scene.epochs):
        left = np.exp(-epoch / 4)
        val = 0.06 + 1.9 * left + 0.02 * max(0, epoch - 9) + rng.uniform(0, 0.01)
        history.append(
            Epoch(
                epoch=epoch + 1,
                lr=0.002 * np.cos(epoch / scene.epochs * np.pi / 2) ** 2,
                train_loss=0.02 + 2.2 * left,
                train_accuracy_score=1 - 0.8 * left,
                val_log_loss=val,
                val_accuracy_score=0.985 - 0.75 * left,
                val_auc_score=0.9995 - 0.4 * left**2,
                val_predicted_classes=len(scene.classes),
            )
        )
    write_table(artifacts.MODEL / "history.csv", Epoch, history)
    best = min(history, key=lambda row: row.val_log_loss)
    training = {
        "best_epoch": best.epoch,
        "monitor": "val/log_loss",
        "value": best.val_log_loss,
        "initial_weights": {"name": "none"},
    }
    shape, values = (scene.channels, scene.image_size, scene.image_size), settings_values(scene)
    network = LeNet5(scene.channels, 1 if len(scene.classes) == 2 else len(scene.classes), scene.image_size)
    write_json(artifacts.ARCHITECTURE, describe(network, shape, 32, values["optimizer"]).document())
    write_json(artifacts.MODEL / "bundle.json", {"format": 1, "training": training})
    write_json(artifacts.TRANSFER, _transfer(network, scene))
    write_json(artifacts.DECISION, asdict(scene.decision))
    point = PointOnVal(scene.decision.threshold, 20, 18, 30, 27) if len(scene.classes) == 2 else None
    fit = CalibrationFit(50, scene.decision.temperature, "Fitted on 50 validation images.", 0.3, 0.29, point, ())
    write_json(artifacts.CALIBRATION_FIT, asdict(fit))


def _transfer(network: LeNet5, scene: Scene) -> dict[str, Any]:
    """What a training writes whose head learns at 0.002 and whose other layers, where some are frozen, at a tenth."""
    blocks, transfers = blocks_of(network), scene.frozen_blocks > 0
    freezing = freeze_blocks(network, blocks, scene.frozen_blocks)
    layers = []
    for name, module in network.named_modules():
        parameters = list(module.parameters(recurse=False))
        if parameters:
            frozen, lr = name in freezing.layers, 0.0002 if transfers and name != network.head else 0.002
            layers.append(
                LayerEntry(
                    layer=name,
                    type=type(module).__name__,
                    parameters=sum(p.numel() for p in parameters),
                    frozen=frozen,
                    trained_from=None if frozen else 1,
                    in_optimizer=not frozen,
                    batch_norm=None,
                    lr=None if frozen else lr,
                )
            )
    tensors = 2 * len(freezing.layers)
    digest = hashlib.sha256(str(freezing.layers).encode()).hexdigest()
    return {
        "scenario": {
            "name": "small_different" if transfers else "scratch",
            "frozen_fraction": 0.4 if transfers else 0.0,
            "lr_factor": 0.1 if transfers else 1.0,
            "block_decay": 1.0,
            "unfreeze_every": None,
            "prefix_cache": "float32",
            "prefix_cache_gb": 8.0,
        },
        "reasons": list(scene.reasons),
        "measured": {},
        "frozen": {
            "blocks": [block.name for block in blocks[: freezing.num_frozen]],
            "layers": len(freezing.layers),
            "layers_before_head": sum(len(block.layers) for block in blocks),
        },
        "prefix_cache": "float32" if transfers else None,
        "layers": [asdict(row) for row in layers],
        "epochs": [asdict(LedgerEpoch(1 + n, tensors, digest, 10 - tensors, 0)) for n in range(scene.epochs)],
    }


def _evaluation(labels: np.ndarray, logits: np.ndarray, scene: Scene) -> None:
    rows = RowFile.create(artifacts.PREDICTIONS / "logits.npy", logits.shape, np.float32)
    for i, row in enumerate(logits):
        rows.write(i, row)
    rows.close()
    options = settings_values(scene)["evaluate"]
    predicted, units = Predicted.from_logits(logits, scene.decision), np.arange(len(labels))
    document = summary.metrics_document(labels, predicted, scene.classes, options, units=units, decision=scene.decision)
    artifacts.write_metrics(document)
    _baselines(labels, predicted, options, scene)
    for name, table in summary.curve_tables(labels, predicted, scene.classes, options).items():
        write_table(artifacts.CURVES / f"{name}.csv", type(table[0]), table)


def _known_images(labels: np.ndarray, logits: np.ndarray, scene: Scene) -> None:
    """Predictions and measures of the test images, and the logits of the validation images."""
    rng = np.random.default_rng(7)
    found = Predicted.from_logits(logits, scene.decision)
    right = found.predicted == labels
    brightness = np.where(right, rng.uniform(0.3, 0.7, len(labels)), rng.uniform(0, 0.29, len(labels)))
    if not scene.dark_is_wrong:
        rng.shuffle(brightness)
    samples = read_table(artifacts.PROCESSED / "test" / "manifest.csv", Sample)
    confidence = found.probs.max(axis=1)
    rows = zip(samples, found.predicted.tolist(), confidence.tolist(), strict=True)
    table = (Prediction(sample.image_id, sample.label, *said, sample.unit) for sample, *said in rows)
    write_table(artifacts.PREDICTIONS / "predictions.csv", Prediction, table)
    ranks = np.arange(len(labels)) % (JUDGES + 1)  # uniform, as those of usual images are
    ranks[: scene.strange] = 0
    np.save(artifacts.USUAL_SHARES, ((1 + ranks) / (JUDGES + 1)).astype(np.float32)[:, np.newaxis])
    measures = (
        ImageMeasures(sample.image_id, light, *[0.5] * 10, 0, "", 1)
        for sample, light in zip(samples, brightness.tolist(), strict=True)
    )
    write_table(artifacts.RAW / "measures.csv", ImageMeasures, measures)
    val = np.array([sample.label for sample in read_table(artifacts.PROCESSED / "val" / "manifest.csv", Sample)])
    val[: scene.wrong_labels] = (val[: scene.wrong_labels] + 1) % len(scene.classes)
    artifacts.VAL_LOGITS.parent.mkdir(parents=True, exist_ok=True)
    np.save(artifacts.VAL_LOGITS, _logits(rng, val, replace(scene, skill=8.0)))


def _baselines(labels: np.ndarray, network: Predicted, options: Mapping[str, Any], scene: Scene) -> None:
    """Two methods beside the network: one that knows nothing, and one that is right where it is half as sure."""
    constant = np.zeros((len(labels), network.probs.shape[1]))
    noise = np.random.default_rng(1).normal(size=constant.shape)
    fitted = [
        FittedMethod("majority", "majority", "the most frequent class.", 0, "", 100, converged=True),
        FittedMethod("hog_linear_svm", "HOG + linear SVM", "gradients.", 324, "C 0.1", 100, converged=False),
    ]
    left_out = [LeftOutMethod("frozen_logistic", "frozen features + logistic regression", "there are no weights.")]
    write_json(artifacts.METHODS, asdict(FittedMethods(fitted, left_out)))
    said = [Predicted.from_logits(logits) for logits in (constant, 0.5 * network.scores + noise)]
    score = partial(summary.metrics_document, classes=scene.classes, settings=options)
    found = against_baselines(
        labels,
        network,
        zip(fitted, said, strict=True),
        left_out,
        score,
        units=np.arange(len(labels)),
        confidence_level=options["confidence_level"],
    )
    write_json(artifacts.AGAINST_BASELINES, asdict(found))


def _explanations(labels: np.ndarray, logits: np.ndarray, store: ImageStore, scene: Scene) -> None:
    document = {
        "explainer": "gradcam",
        "target_layer": "features.3",
        "applicable": scene.applicable,
        "reason": None if scene.applicable else "the network has no convolution",
        "images": [],
    }
    if scene.applicable:
        document["images"] = [asdict(entry) for entry in _chosen(labels, logits, scene)]
        for entry in document["images"]:
            image = store[entry["row"]].astype(float).mean(axis=2)
            overlay = np.stack([image, image * 0.6, 255 - image], axis=2).astype(np.uint8)
            _write_png(artifacts.EXPLANATIONS / "overlays" / entry["overlay"], overlay.repeat(2, 0).repeat(2, 1))
    write_json(artifacts.EXPLANATIONS / "gallery.json", document)
    _neighbours(document["images"], scene)
    _inside(scene)


def _neighbours(gallery: Sequence[Mapping[str, Any]], scene: Scene) -> None:
    """Of each explained image two training images of its class and one of the next, among those that are drawn."""
    count, rows = len(scene.classes), []
    for entry in gallery:
        near = [entry["label"], entry["label"] + count, (entry["label"] + 1) % count]
        for distance, row in zip((0.0, 0.0213, 0.25), near, strict=True):
            image_id = f"{scene.prefix}train-{row:04d}.png"
            rows.append(Neighbour(entry["map"], image_id, row, row % count, distance))
    write_table(artifacts.NEIGHBOURS, Neighbour, rows)


def _inside(scene: Scene) -> None:
    image_id = f"{scene.prefix}test-0000.png"
    found = Inside([], "The weights of the first layer, hidden1 (Linear), are no images.", image_id, [])
    if scene.applicable:
        layers = [ShownLayer("features.c1", 6, 6, 28, 28), ShownLayer("features.c3", 16, 400, 10, 10)]
        found = Inside([ShownLayer("features.c1", 6, 6, 5, 5)], "", image_id, layers)
        for path in (artifacts.FILTERS, artifacts.FEATURE_MAPS):
            _write_png(path, np.full((102, 402, 3), 127, np.uint8))
    write_json(artifacts.INSIDE, asdict(found))


def _chosen(labels: np.ndarray, logits: np.ndarray, scene: Scene) -> list[Explanation]:
    """Of each class the first two right ones and the first wrong one, eight other errors as confident ones, and what is
    left of the errors as of frequent confusions."""
    found = decide(logits, scene.decision)
    predicted, confidence = found.predicted, found.confidence
    wrong = np.flatnonzero(predicted != labels)
    rows = [
        (int(r), "right")
        for c in range(len(scene.classes))
        for r in np.flatnonzero((labels == c) & (predicted == c))[:2]
    ]
    firsts = [int(wrong[labels[wrong] == c][0]) for c in np.unique(labels[wrong])]
    rows += [(r, "wrong") for r in firsts]
    rows += [
        (int(r), "confident_error") for r in sorted(set(wrong.tolist()) - set(firsts), key=lambda r: -confidence[r])[:8]
    ]
    shown = {row for row, _ in rows}
    rows += [(int(r), "confused") for r in wrong if r not in shown]
    return [
        Explanation(
            f"{scene.prefix}test-{row:04d}.png",
            row,
            int(labels[row]),
            int(predicted[row]),
            float(confidence[row]),
            outcome,
            int(predicted[row]),
            f"{i:05d}.png",
            i,
        )
        for i, (row, outcome) in enumerate(rows)
    ]


def _write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)
