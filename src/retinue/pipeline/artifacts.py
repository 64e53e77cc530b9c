"""The files the stages pass to each other: where they are and what is in them.

Who has read dvc.yaml and this file has seen the system. Tables are CSV with one frozen dataclass per row, documents
are JSON, arrays are .npy (`files.py`).
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError, Fault, ModelError
from retinue.pipeline.files import REMADE, read_json, sha256, write_json
from retinue.pipeline.names import class_order
from retinue.pipeline.ranges import allowed, shown

CORRECTIONS = Path("data/corrections.csv")
"""Written by people and kept in git: what is wrong in the labels of the source."""

RAW = Path("data/raw")
FETCHED = RAW / "fetched"
"""Files of the web from which the source reads its images, as their publisher has them; missing where it has none."""
RAW_MANIFEST = RAW / "manifest.csv"
QUARANTINE = RAW / "quarantine.json"
CARD = RAW / "card.json"
NEAR_COPIES = RAW / "near_copies.csv"
MEASURES = RAW / "measures.csv"
OUTLIERS = RAW / "outliers.json"
SHORTCUTS = RAW / "shortcuts.json"
ORIGINALS = RAW / "originals"
"""Small copies of some images as they were before preprocessing, named by `original_path`."""
LEVELS = RAW / "levels.json"
ATTRIBUTES = RAW / "attributes.csv"
"""Where the source knows more of its images than class, group and split."""

PROCESSED = Path("data/processed")
DATASET = PROCESSED / "dataset.json"
LEAKS = PROCESSED / "leaks.json"
HELD_OUT = PROCESSED / "held_out.npy"
"""Digests of the images of the test split (`images/image_digests.py`), which show nothing of them."""
DIGESTS = Path("digests.npy")
"""Of the images of train and of val, in the folder of its store; as HELD_OUT."""
SEEN = PROCESSED / "seen"
SEEN_SHARES = SEEN / "shares.json"
SEEN_SHEET = SEEN / "sheet.png"
MANIFEST = Path("manifest.csv")
"""Of an image store, in its folder: those of the splits, and data/augmented where it holds extra images."""
MASKS = Path("masks")
"""Of the test split, in the folder of its store, where the source has masks."""

AUGMENTED = Path("data/augmented")
POLICY = AUGMENTED / "policy.json"
PREVIEW = AUGMENTED / "preview.png"
AUDIT = AUGMENTED / "audit.json"

MODEL = Path("models")
BUNDLE = MODEL / "bundle.json"
WEIGHTS = MODEL / "weights.safetensors"
HISTORY = MODEL / "history.csv"
ARCHITECTURE = MODEL / "architecture.json"
TRANSFER = MODEL / "transfer.json"
TRAINED_ON = MODEL / "trained_on.npy"
"""Digests of the images that the network was fitted to or chosen by, here and where its initial weights are from."""

DECISION = MODEL / "decision.json"
"""Written by calibrate: what the other files of the bundle do not say of how logits become decisions."""

KNOWN = MODEL / "known.safetensors"
"""Written by calibrate: what the head is given for training images, by which is told how unusual another one is."""

MODEL_CARD = MODEL / "model_card.json"
MODEL_CARD_TEXT = MODEL / "model_card.md"
"""Written by report: what goes with the network wherever it goes, as JSON and for people."""

CALIBRATED = Path("calibration")
VAL_LOGITS = CALIBRATED / "val_logits.npy"
"""float32 (N, K), of two classes (N, 1); row i is of row i of the manifest of the validation split. No temperature has
been applied."""
CALIBRATION_FIT = CALIBRATED / "fit.json"
BASELINES = Path("baselines")
METHODS = BASELINES / "methods.json"
"""What was fitted; the scores of each method are at `baseline_logits`."""

PREDICTIONS = Path("evaluation/predictions")
PREDICTED = PREDICTIONS / "predictions.csv"
LOGITS = PREDICTIONS / "logits.npy"
USUAL_SHARES = PREDICTIONS / "usual_shares.npy"
"""float32 (N, 1); row i is of row i of predictions.csv: the share of usual images that are as far from those of train
(`metrics/unusualness.py`). There is none where the bundle does not know these."""
CURVES = Path("evaluation/curves")
ROC = CURVES / "roc.csv"
PRECISION_RECALL = CURVES / "precision_recall.csv"
CONFUSION = CURVES / "confusion.csv"
CALIBRATION = CURVES / "calibration.csv"
UNCALIBRATED_BINS = CURVES / "uncalibrated.csv"
"""As `CALIBRATION`, of the logits without temperature."""
COVERAGE = CURVES / "coverage.csv"
METRICS = Path("evaluation/metrics.json")
CLASS_METRICS = Path("evaluation/class_metrics.json")
AGAINST_BASELINES = Path("evaluation/against_baselines.json")

EXPLANATIONS = Path("explanations")
GALLERY = EXPLANATIONS / "gallery.json"
MAPS = EXPLANATIONS / "maps.npy"
OVERLAYS = EXPLANATIONS / "overlays"
LOCALISATION = EXPLANATIONS / "localisation.csv"
LOCALISATION_MEANS = EXPLANATIONS / "localisation.json"
NEIGHBOURS = EXPLANATIONS / "neighbours.csv"
FILTERS = EXPLANATIONS / "filters.png"
FEATURE_MAPS = EXPLANATIONS / "feature_maps.png"
INSIDE = EXPLANATIONS / "inside.json"
"""What the two pictures show."""
ALSO = EXPLANATIONS / "also"
"""A folder for each further explainer, with maps.npy and overlays/ as those of the first."""
MEASURED = EXPLANATIONS / "measures.csv"
MEASURES_OF_EXPLAINERS = EXPLANATIONS / "measures.json"

REPORT = Path("report/index.html")
CACHE = Path(".cache")
"""Of this checkout: locks, and what only it needs."""

SHARED_CACHE = Path(os.environ.get("RETINUE_CACHE") or CACHE)
"""What is kept by hash and may serve several checkouts: training to be resumed, features of frozen layers."""

SPLITS = ("train", "val", "test")

LARGEST_SIDE = 16_384
"""px of an image of a store at most; twice what networks take for whole slides and satellite tiles."""

FITS = ("crop", "pad", "stretch")
"""How an image of any shape becomes a square."""

FILL = r"edge|mean|\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5]"
"""Regular expression of what fills a padded square."""

OUTS = (
    *(RAW, DATASET, LEAKS, HELD_OUT, SEEN, *(PROCESSED / split for split in SPLITS), AUGMENTED),
    *(BUNDLE, WEIGHTS, HISTORY, ARCHITECTURE, TRANSFER, TRAINED_ON, DECISION, KNOWN, CALIBRATED),
    *(BASELINES, PREDICTIONS, CURVES, METRICS, CLASS_METRICS, AGAINST_BASELINES, EXPLANATIONS, REPORT.parent),
    *(MODEL_CARD, MODEL_CARD_TEXT),
)
"""What the stages of dvc.yaml write."""


@dataclass(frozen=True)
class Correction:
    """A row of data/corrections.csv: what somebody has decided about an image of the source.

    Attributes:
        image: its id, as in the raw manifest; for a folder the path below it, with `/`.
        label: the class it is of; "" where it is dropped.
        drop: "yes" takes the image out; "" keeps it.
        reason: why, for the report.
    """

    image: str
    label: str
    drop: str
    reason: str


@dataclass(frozen=True, slots=True)
class RawImage:
    """A row of data/raw/manifest.csv: an image that decodes, in the order of the source.

    Attributes:
        image_id: what the source reads the image by; unique; for a folder the path below it, with `/`.
        label: class name.
        group: images of one group stay in one split (a patient, a photographed object); "" is no group.
        split: the split the source gives it to; "" leaves it to preprocess.
        sha256: of the encoded bytes.
        size_bytes: of the encoded bytes.
        width, height: px, after EXIF orientation.
        mode: Pillow's name of the stored pixel format (RGB, L, P, CMYK, I;16, …).
        format: Pillow's name of the file format (JPEG, PNG, …).
    """

    image_id: str
    label: str
    group: str
    split: str
    sha256: str
    size_bytes: int
    width: int
    height: int
    mode: str
    format: str


@dataclass(frozen=True)
class RawLevels:
    """data/raw/levels.json: what the numbers of the images with more than 8 bits a sample mean.

    Attributes:
        images: number of them.
        largest: of all their pixels; None without such images.
        white: the value that is white in all of them; None: in each what its file declares.
        gray_levels: of 256, those that the largest value reaches, in the image that uses most of them; None without
            such images.
        is_from_data: whether `white` was told from `largest`.
    """

    images: int = field(metadata=allowed(ge=0))
    largest: float | None
    white: float | None = field(metadata=allowed(gt=0))
    gray_levels: int | None = field(metadata=allowed(ge=1, le=256))
    is_from_data: bool

    @property
    def is_mostly_unused(self) -> bool:
        """Whether more than half of the gray levels are used by no image."""
        return self.gray_levels is not None and self.gray_levels <= 128


@dataclass(frozen=True)
class Quarantined:
    """An entry of data/raw/quarantine.json: a file that cannot be used, and why."""

    image_id: str
    label: str
    reason: str


@dataclass(frozen=True)
class NearCopy:
    """A row of data/raw/near_copies.csv: two images that are copies of each other, or nearly, but not to the byte.

    Of files with the same bytes the first alone has rows. Of an image with many copies the nearest have rows, and
    those that join, at every distance, what all pairs up to it would join: a unit is what rows join, not a row.

    Attributes:
        image_id, copy_id: as in the raw manifest, and in its order.
        distance: in [0, 0.25]; 0 for the same picture, about 1 for two that have nothing in common.
        turned_degrees: 0, 90, 180 or 270: by how much the image is turned counter-clockwise to be the copy.
    """

    image_id: str
    copy_id: str
    distance: float
    turned_degrees: int


@dataclass(frozen=True)
class Attribute:
    """A row of data/raw/attributes.csv: what a source knows of an image besides, as the age of a patient.

    Attributes:
        image_id: as in the raw manifest, in the order of it; an image may have any number of attributes.
        name: what is known, as the column of a table is called.
        value: not empty.
    """

    image_id: str
    name: str
    value: str


@dataclass(frozen=True)
class Sample:
    """A row of the manifest of an image store; row i describes image i of the store.

    Attributes:
        image_id: as in the raw manifest.
        label: index into the class names of data/processed/dataset.json.
        group: as in the raw manifest.
        unit: equal for images that belong together (a group, equal bytes, near copies), and so are not independent;
            numbers from 0 in the order of the first image of each, in this manifest.
    """

    image_id: str
    label: int
    group: str
    unit: int


@dataclass(frozen=True)
class LeakedPair:
    """An entry of `pairs` in data/processed/leaks.json: what belongs together lies in two given splits.

    Attributes:
        kind: "equal" (bytes), "near" (copies), "group" (the same), or "linked" by a chain of these.
        image_id, split: an image of "val" or "test", or one that is given to no split and follows it there.
        copy_id, copy_split: an image that is given to a split before it, "train" or "val".
    """

    kind: str = field(metadata=allowed(choices=("equal", "near", "group", "linked")))
    image_id: str
    split: str = field(metadata=allowed(choices=("val", "test")))
    copy_id: str
    copy_split: str = field(metadata=allowed(choices=("train", "val")))


@dataclass(frozen=True)
class LabelConflict:
    """An entry of `conflicts` in data/processed/leaks.json: files with equal bytes and different labels.

    Attributes:
        image_ids: of the files.
        labels: class names, one of each.
    """

    image_ids: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class DroppedImage:
    """An entry of `dropped` in data/processed/leaks.json: an image that is in no split.

    Attributes:
        image_id: as in the raw manifest.
        label: class name.
        reason: "copy" of an image in a later split, or "conflict" of its label.
    """

    image_id: str
    label: str
    reason: str = field(metadata=allowed(choices=("copy", "conflict")))


@dataclass(frozen=True)
class Leaks:
    """data/processed/leaks.json: what lies on both sides of given splits, and labels that disagree.

    Attributes:
        pairs: each image of a later split whose unit lies in an earlier one as well.
        conflicts: equal files with different labels.
        dropped: images in no split, because preprocess.leaks or preprocess.conflicts is drop.
    """

    pairs: tuple[LeakedPair, ...]
    conflicts: tuple[LabelConflict, ...]
    dropped: tuple[DroppedImage, ...]

    def of_test(self) -> frozenset[str]:
        """The images of the test split that have a copy in another split still, by id."""
        gone = {image.image_id for image in self.dropped}
        return frozenset(p.image_id for p in self.pairs if p.split == "test" and p.copy_id not in gone)


@dataclass(frozen=True, slots=True)
class ImageMeasures:
    """A row of data/raw/measures.csv: what is seen of an image without knowing what it shows; row i as in the manifest.

    They are taken of the upright image in 8 bits, reduced to a longer side of 128 px; smaller images are not enlarged.

    Attributes:
        image_id: as in the raw manifest.
        brightness, contrast: mean and standard deviation of the luma (ITU-R BT.601), black 0, white 1.
        black_fraction, white_fraction: of its px, with a luma below 8 and above 247 of 255.
        sharpness: variance of the Laplacian of the luma (Pech-Pacheco et al. 2000), in levels of 255, squared.
        red, green, blue: mean colour, in [0, 1].
        border_red, border_green, border_blue: that of its frame, a sixteenth of the shorter side wide, at least 1 px.
        exif_tags: number of EXIF tags; 0 where there are none or they cannot be read.
        camera: stands for the camera's maker and model, which it does not tell; "" where the file names none.
        orientation: that EXIF gives, 1 to 8; 1 where it gives none.
    """

    image_id: str
    brightness: float
    contrast: float
    black_fraction: float
    white_fraction: float
    sharpness: float
    red: float
    green: float
    blue: float
    border_red: float
    border_green: float
    border_blue: float
    exif_tags: int
    camera: str
    orientation: int


@dataclass(frozen=True)
class Outlier:
    """An entry of `images` in data/raw/outliers.json: an image unlike the others of its set.

    Attributes:
        row: of data/raw/manifest.csv.
        image_id, label: as there.
        kind: what is unusual.
        value: of the measure of that kind.
        usual: the median of the set.
    """

    row: int = field(metadata=allowed(ge=0))
    image_id: str
    label: str
    kind: str = field(metadata=allowed(choices=("dark", "blown out", "empty", "blurred", "odd aspect")))
    value: float
    usual: float


@dataclass(frozen=True)
class Outliers:
    """data/raw/outliers.json.

    Attributes:
        counts: kind -> number of images.
        images: the most unusual ones of each kind, the most unusual first.
    """

    counts: dict[str, int] = field(metadata=allowed(ge=0))
    images: list[Outlier]


@dataclass(frozen=True)
class ShortcutGroup:
    """An entry of `groups` in data/raw/shortcuts.json: how well the label is told from some features alone.

    Attributes:
        features: what they are, in words; "everything together" for all.
        is_constant: they are the same in all images, and tell nothing.
        auc_score: of labels that were not learnt from, in [0, 1]; chance is 0.5.
        low, high: its confidence interval.
        told_class: the class that is told best.
        told: how that class differs from the others in the features, in words.
    """

    features: str
    is_constant: bool
    auc_score: float = field(metadata=allowed(ge=0, le=1))
    low: float = field(metadata=allowed(ge=0, le=1))
    high: float = field(metadata=allowed(ge=0, le=1))
    told_class: str
    told: str


@dataclass(frozen=True)
class ShortcutCheck:
    """data/raw/shortcuts.json: whether the label can be told from what is not the object.

    Attributes:
        images, units: that were looked at; a unit is what groups, equal bytes and near copies join.
        classes: how many were told apart.
        classes_left_out: how many were not, because they have too few units, or because there are very many classes.
        confidence_level: of the intervals, in (0, 1).
        far_above: an AUC is far from chance where the lower end of its interval is above this.
        why_not: why nothing was checked; "" where it was.
        groups: the checks, `everything together` last; empty where nothing was checked.
    """

    images: int = field(metadata=allowed(ge=0))
    units: int = field(metadata=allowed(ge=0))
    classes: int = field(metadata=allowed(ge=0))
    classes_left_out: int = field(metadata=allowed(ge=0))
    confidence_level: float = field(metadata=allowed(gt=0, lt=1))
    far_above: float = field(metadata=allowed(ge=0, le=1))
    why_not: str
    groups: list[ShortcutGroup]


def _classes_differ(classes: tuple[str, ...]) -> Fault | None:
    if len(set(classes)) == len(classes):
        return None
    twice = next(name for name in classes if classes.count(name) > 1)
    return Fault("classes", shown(twice), "each class once")


def _counts_are_of_the_classes(classes: tuple[str, ...], counts: dict[str, dict[str, int]]) -> Fault | None:
    unknown = sorted({name for of_split in counts.values() for name in of_split} - {*classes})
    return Fault("counts", shown(unknown[0]), "a class name of classes") if unknown else None


def _one_each_channel(channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Fault | None:
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            return Fault(key, shown(list(values)), f"{channels} of them, one for each channel")
    return None


def _crop_fits(image_size: int, resize: int, fit: str) -> Fault | None:
    if image_size <= resize or fit != "crop":
        return None
    return Fault("resize", shown(resize), f"at least image_size, {image_size} px")


@dataclass(frozen=True)
class Dataset:
    """data/processed/dataset.json: what the splits hold and how images become tensors.

    Attributes:
        name: of the source.
        classes: class names; a label is an index into them.
        counts: split -> class name -> number of images.
        image_size: side of the stored square images, px.
        resize: of fit "crop" the shorter side before the centre crop, px.
        channels: 1 (gray) or 3 (RGB).
        mean, std: per channel, of pixel values scaled to [0, 1]; from the training split unless configured otherwise.
        fit: how an image of any shape became a square: "crop", "pad" or "stretch".
        fill: of "pad", what stands beside the image: "edge", "mean" or a value from 0 to 255.
        steps: operations on the squares, in their order, by name and arguments.
        white: of files with more than 8 bits a sample, the value that is white; None: what each declares.

    Documents of versions that only cropped lack the fields with defaults, which say what those versions did.
    """

    RELATIONS: ClassVar = (_classes_differ, _counts_are_of_the_classes, _one_each_channel, _crop_fits)

    name: str
    classes: tuple[str, ...] = field(metadata=allowed(least=2, pattern=".+"))
    counts: dict[str, dict[str, int]] = field(metadata=allowed(ge=0))
    image_size: int = field(metadata=allowed(ge=1, le=LARGEST_SIDE, unit="px"))
    resize: int = field(metadata=allowed(ge=1, le=LARGEST_SIDE, unit="px"))
    channels: int = field(metadata=allowed(choices=(1, 3)))
    mean: tuple[float, ...]
    std: tuple[float, ...] = field(metadata=allowed(gt=0))

    fit: str = field(default="crop", metadata=allowed(choices=FITS))
    fill: str = field(default="0", metadata=allowed(pattern=FILL, expected="edge, mean or a value from 0 to 255"))
    steps: tuple[dict[str, Any], ...] = ()
    white: float | None = field(default=None, metadata=allowed(gt=0))

    @classmethod
    def from_document(cls, document: Any, where: str) -> "Dataset":
        """What JSON made of a `Dataset`, checked; `where` it was found begins the error.

        Raises:
            DataError: the document is something else.
        """
        return typed(cls, document, where)


@dataclass(frozen=True)
class Seen:
    """data/processed/seen/shares.json: which parts of the images are in the stored squares.

    Attributes:
        images: number of them, of all splits.
        cropped_mean, cropped_largest: share of an image's px that is cut off, in [0, 1]: on the average, and the most.
        marked: images that are cropped and of which the source marks at least one px, as a defect.
        lost: of those, the ones whose square shows no marked px.
        mostly_lost: of those, the ones whose square shows some, but less than half.
        lost_images: image ids of the first of both, the lost ones before the others.
    """

    images: int = field(metadata=allowed(ge=0))
    cropped_mean: float = field(metadata=allowed(ge=0, le=1))
    cropped_largest: float = field(metadata=allowed(ge=0, le=1))
    marked: int = field(metadata=allowed(ge=0))
    lost: int = field(metadata=allowed(ge=0))
    mostly_lost: int = field(metadata=allowed(ge=0))
    lost_images: tuple[str, ...]


@dataclass(frozen=True)
class PolicyAudit:
    """data/augmented/audit.json: what the augmentation policy does to a sample of the training images.

    Attributes:
        images: of the sample.
        epochs: in which each was drawn; at least 2.
        changed_share: of the px of a draw, those that are not as in the image; mean over the draws.
        mean_difference: between px of a draw and of the image, gray levels of 255; mean over the draws.
        identical_share: of the draws, those that are the image itself.
        lost_share: of the draws, those that are nearly of one colour or nearly noise, of images that are neither.
        repeated_share: of the images, those that are drawn the same in every epoch.
        findings: what is wrong with the policy, a sentence each.
    """

    images: int
    epochs: int
    changed_share: float
    mean_difference: float
    identical_share: float
    lost_share: float
    repeated_share: float
    findings: list[str]


@dataclass(frozen=True)
class Epoch:
    """A row of models/history.csv. Losses in nats, scores in [0, 1], epochs from 1; 0 is the fitted head.

    `val_predicted_classes` counts the classes predicted at least once on the validation split.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy_score: float
    val_log_loss: float
    val_accuracy_score: float
    val_auc_score: float
    val_predicted_classes: int


@dataclass(frozen=True)
class FittedHead:
    """`fitted_head` of models/transfer.json, where there is one: how the head was fitted before the first epoch.

    Attributes:
        penalty: λ that was chosen; λ/2 times the squared weights of standardised inputs is added to the mean loss.
        chosen_by: "val" where the validation split chose it, "folds" where folds of the training images did.
        penalties: that were tried.
        log_losses: of each of them, on what was held out, nats.
        train_loss: of the training images as they are, nats, weighted and smoothed as in training.
        train_accuracy_score: of the same, in [0, 1].
    """

    penalty: float
    chosen_by: str
    penalties: tuple[float, ...]
    log_losses: tuple[float, ...]
    train_loss: float
    train_accuracy_score: float

    @property
    def held_out(self) -> str:
        """What `log_losses` are of, in words."""
        return "the validation split" if self.chosen_by == "val" else "folds of the training images"


@dataclass(frozen=True)
class LayerEntry:
    """A row of `layers` in models/transfer.json: a module with parameters of its own, in the last epoch.

    Attributes:
        layer: dotted name; empty for the network itself.
        type: the module's class.
        parameters: numbers it owns.
        frozen: none of its parameters is trained.
        trained_from: first epoch, from 1, in which one of them is; None: in none.
        in_optimizer: the optimizer holds one of them.
        batch_norm: "eval" or "train", the mode in which a batch-norm layer computes; None for other layers.
        lr: learning rate without the schedule; None where the optimizer holds none of its parameters.
    """

    layer: str
    type: str
    parameters: int
    frozen: bool
    trained_from: int | None
    in_optimizer: bool
    batch_norm: str | None
    lr: float | None


@dataclass(frozen=True)
class LedgerEpoch:
    """A row of `epochs` in models/transfer.json: what was found when an epoch had ended.

    Attributes:
        epoch: from 1.
        frozen_tensors: parameters and buffers that were frozen in it, all of them unchanged.
        frozen_sha256: of their names and of the hashes of their bits.
        trained_parameters: tensors that were trained in it.
        unmoved_parameters: tensors trained in it or before that still have the bits they began with.
    """

    epoch: int
    frozen_tensors: int
    frozen_sha256: str
    trained_parameters: int
    unmoved_parameters: int


POINT_RULES = ("youden", "f_beta", "cost", "sensitivity", "specificity")
"""How an operating point is chosen where it is no number."""


@dataclass(frozen=True)
class DecisionRule:
    """models/decision.json: how logits become probabilities and a decision, chosen on the validation split.

    Attributes:
        temperature: what logits are divided by before they become probabilities (Guo et al. 2017).
        operating_point: how the point was chosen: a number or one of `POINT_RULES`, as the settings have it.
        log_odds: two classes: the second is decided for from this log-odds of it on, after the temperature.
        costs: several classes, or two whose point was chosen by them: of deciding for class j (column) where class i
            (row) is right.
        reject_below: nothing is decided where the class that would be has a lower probability; None: never.
        prevalence: of the second of two classes where the network is used; None: that of the images it is judged on.
        weights_sha256: of weights.safetensors beside it, hexadecimal.
    """

    temperature: float = field(default=1.0, metadata=allowed(gt=0))
    operating_point: str = "0.5"
    log_odds: float = 0.0
    costs: tuple[tuple[float, ...], ...] | None = field(default=None, metadata=allowed(ge=0))
    reject_below: float | None = field(default=None, metadata=allowed(gt=0, lt=1))
    prevalence: float | None = field(default=None, metadata=allowed(gt=0, lt=1))
    weights_sha256: str = field(
        default="", metadata=allowed(pattern="([0-9a-f]{64})?", expected="64 hexadecimal digits")
    )

    @property
    def threshold(self) -> float:
        """`log_odds` as a probability, in [0, 1]; what is saturated reaches its ends."""
        return 1 / (1 + math.exp(-self.log_odds)) if self.log_odds > -700 else 0.0


UNCALIBRATED = DecisionRule()
"""A bundle without decision.json decides so: temperature 1, the most probable class, of two the second from 0.5 on."""


@dataclass(frozen=True)
class PointOnVal:
    """What the operating point of two classes does on the validation split, in images.

    Attributes:
        threshold: of the calibrated probability of the second class.
        positives, negatives: images of the second class and of the first.
        true_positives, true_negatives: of these, those that are decided right.
    """

    threshold: float = field(metadata=allowed(ge=0, le=1))
    positives: int = field(metadata=allowed(ge=0))
    true_positives: int = field(metadata=allowed(ge=0))
    negatives: int = field(metadata=allowed(ge=0))
    true_negatives: int = field(metadata=allowed(ge=0))


MODEL_CARD_FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """models/model_card.json: the sections of Mitchell et al. (2019), in their order.

    Attributes:
        format: of the card, `MODEL_CARD_FORMAT`.
        fingerprint: of the settings.
        weights_sha256: of the weights it is about, hexadecimal.
        model_details: what the network is, what it began with and how it was trained; licence and contact.
        intended_use: what it is meant for and what not, as the settings say, and how it decides.
        factors: what the test split was sliced by, and the worst slices.
        metrics: what each metric says, and what the intervals are of.
        evaluation_data, training_data: where the images are from, and how many of each class.
        quantitative_analyses: metrics with intervals, of all and by class; operating point, baselines, explainer.
        ethical_considerations: as the settings say.
        caveats: what calls for a second look, a sentence each.
    """

    format: int = field(metadata=allowed(ge=MODEL_CARD_FORMAT, le=MODEL_CARD_FORMAT))
    fingerprint: str
    weights_sha256: str = field(metadata=allowed(pattern="([0-9a-f]{64})?", expected="64 hexadecimal digits"))
    model_details: dict[str, Any]
    intended_use: dict[str, str]
    factors: dict[str, Any]
    metrics: dict[str, Any]
    evaluation_data: dict[str, Any]
    training_data: dict[str, Any]
    quantitative_analyses: dict[str, Any]
    ethical_considerations: str
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationFit:
    """calibration/fit.json: what the validation split says of temperature and operating point.

    Attributes:
        images: of the validation split.
        temperature: as in models/decision.json.
        why: how it came about, a sentence.
        log_loss_before, log_loss_after: of the split without and with it, nats.
        point: of two classes; None for several.
        findings: what to be careful about, a sentence each.
    """

    images: int = field(metadata=allowed(ge=0))
    temperature: float = field(metadata=allowed(gt=0))
    why: str
    log_loss_before: float
    log_loss_after: float
    point: PointOnVal | None
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """A row of evaluation/predictions/predictions.csv: row i describes image i of the test split.

    Attributes:
        image_id: as in the manifest of the test split.
        label, predicted: class indices; `predicted` is decided at the operating point, also where the bundle abstains.
        confidence: calibrated probability of the predicted class, in [0, 1]; below `reject_below` the bundle abstains.
        unit: as in the manifest of the test split.
    """

    image_id: str
    label: int
    predicted: int
    confidence: float
    unit: int


@dataclass(frozen=True)
class RocPoint:
    """A row of evaluation/curves/roc.csv; between the points of a curve it is linear.

    Attributes:
        curve: class name; "macro" or "micro" for the averages over more than two classes.
        false_positive_rate, true_positive_rate: in [0, 1].
        threshold: positive is a probability of at least this, of two classes a calibrated one, of several one without
            temperature; NaN for "macro".
    """

    curve: str
    false_positive_rate: float
    true_positive_rate: float
    threshold: float


@dataclass(frozen=True)
class PrecisionRecallPoint:
    """A row of evaluation/curves/precision_recall.csv; a precision holds back to the recall of the row before.

    Attributes:
        curve, threshold: as in `RocPoint`.
        recall, precision: in [0, 1].
    """

    curve: str
    recall: float
    precision: float
    threshold: float


@dataclass(frozen=True)
class ConfusionCell:
    """A row of evaluation/curves/confusion.csv: class names and a count; the diagonal is complete, zeros are not."""

    actual: str
    predicted: str
    num_images: int


@dataclass(frozen=True)
class CalibrationBin:
    """A row of evaluation/curves/calibration.csv: images whose confidence is in (lower, upper].

    Attributes:
        lower, upper: edges of the bin, in [0, 1].
        num_images: >= 1; empty bins have no row.
        confidence: mean probability of the most probable class.
        accuracy: fraction of them whose most probable class is right.
    """

    lower: float
    upper: float
    num_images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class CoveragePoint:
    """A row of evaluation/curves/coverage.csv: what deciding for the most confident images alone would give.

    Attributes:
        coverage: share of the images that are decided for, in (0, 1].
        accuracy: share of these that are right.
        confidence: the lowest of them.
    """

    coverage: float
    accuracy: float
    confidence: float


@dataclass(frozen=True)
class FittedMethod:
    """An entry of `methods` in baselines/methods.json: a simple method that was fitted to the training split.

    Attributes:
        method: its name in the settings.
        title: what people call it.
        description: what it is.
        num_features: numbers that it knows of an image.
        chosen: of its settings, by the validation split; "" where there was nothing to choose.
        train_images: that it was fitted to.
        converged: whether the fit ended before its limit of iterations.
    """

    method: str = field(metadata=allowed(pattern=r"[a-z]\w*", expected="the name of a function"))
    title: str
    description: str
    num_features: int = field(metadata=allowed(ge=0))
    chosen: str
    train_images: int = field(metadata=allowed(ge=1))
    converged: bool


@dataclass(frozen=True)
class LeftOutMethod:
    """An entry of `left_out` in baselines/methods.json: a method that was asked for and cannot be fitted."""

    method: str
    title: str
    reason: str


@dataclass(frozen=True)
class FittedMethods:
    """baselines/methods.json."""

    methods: list[FittedMethod]
    left_out: list[LeftOutMethod]


@dataclass(frozen=True)
class PairedDifference:
    """How much higher a score of the network is than that of a baseline, on the same test images.

    Attributes:
        value: of the network minus the baseline.
        low, high: confidence interval of it, of this comparison alone.
        p: of "they are equal", two-sided.
        corrected: `p` after Holm's correction for the number of baselines.
    """

    value: float = field(metadata=allowed(ge=-1, le=1))
    low: float = field(metadata=allowed(ge=-1, le=1))
    high: float = field(metadata=allowed(ge=-1, le=1))
    p: float = field(metadata=allowed(ge=0, le=1))
    corrected: float = field(metadata=allowed(ge=0, le=1))


@dataclass(frozen=True)
class ComparedBaseline:
    """An entry of `baselines` in evaluation/against_baselines.json: a baseline on the test split, and the network.

    Attributes:
        method, title: as in baselines/methods.json.
        metrics: metric -> value of the baseline, all of `metrics.scalar`.
        intervals: metric -> low, high.
        accuracy_score, auc_score: the network's minus the baseline's.
    """

    method: str
    title: str
    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    accuracy_score: PairedDifference
    auc_score: PairedDifference


@dataclass(frozen=True)
class AgainstBaselines:
    """evaluation/against_baselines.json.

    Attributes:
        confidence_level: of the intervals, in (0, 1).
        baselines: those that were fitted, in their order.
        left_out: those that were not, and why.
    """

    confidence_level: float = field(metadata=allowed(gt=0, lt=1))
    baselines: list[ComparedBaseline]
    left_out: list[LeftOutMethod]


@dataclass(frozen=True)
class Explanation:
    """An entry of explanations/gallery.json: one image of the test split, explained.

    Attributes:
        image_id: as in the manifest of the test split.
        row: of the image in the test store and in predictions.csv.
        label, predicted: class indices.
        confidence: probability of the predicted class, in [0, 1].
        outcome: "right", "wrong", "confident_error" (the most confident errors of all) or "confused" (one more of a
            frequent confusion).
        target: class index whose score is explained.
        overlay: file name of the PNG below explanations/overlays/.
        map: index of its map in explanations/maps.npy.
        is_empty: whether that map is zero everywhere: nothing speaks for the class.
    """

    image_id: str
    row: int = field(metadata=allowed(ge=0))
    label: int = field(metadata=allowed(ge=0))
    predicted: int = field(metadata=allowed(ge=0))
    confidence: float = field(metadata=allowed(ge=0, le=1))
    outcome: str = field(metadata=allowed(choices=("right", "wrong", "confident_error", "confused")))
    target: int = field(metadata=allowed(ge=0))
    overlay: str = field(metadata=allowed(pattern=r"[\w-]+\.png", expected="the name of a PNG"))
    map: int = field(metadata=allowed(ge=0))
    is_empty: bool = False  # in galleries of versions that drew such maps, too


@dataclass(frozen=True)
class FurtherExplainer:
    """An entry of `also` in explanations/gallery.json: an explainer besides the first one.

    Attributes:
        name: of its file in src/retinue/explainers/, and of its folder in explanations/also/.
        explainer: what people call it.
        target_layer: that it looks at; None where there is none.
        reason: why it has nothing to show for the network; None where it has.
        empty: indices of its maps that are zero everywhere.
    """

    name: str = field(metadata=allowed(pattern=r"\w+", expected="the name of a file"))
    explainer: str
    target_layer: str | None
    reason: str | None
    empty: list[int]


@dataclass(frozen=True)
class MeasuredMap:
    """A row of explanations/measures.csv: one map of one image, measured. NaN is what was not, or could not be.

    Attributes:
        image_id: as in the manifest of the test split.
        map: index of the image's map in explanations/maps.npy.
        explainer: name of its file, or a reference map: "uniform", "centre" or "random".
        empty: 1 where the map is zero everywhere, else 0.
        passes: forward passes that it took.
        deletion_error, insertion_score: areas under the curves of the class's probability, in [0, 1].
        energy_score, pointing_score: as in `Localisation`.
        stability_score: rank correlation with the maps of the image moved by a few px, in [-1, 1].
        random_25_error, random_50_error, random_75_error, random_error: rank correlation with the map of the network in
            which the last 25, 50, 75 or 100 % of the layers have random weights, in [-1, 1].
    """

    image_id: str
    map: int
    explainer: str
    empty: int
    passes: float
    deletion_error: float
    insertion_score: float
    energy_score: float
    pointing_score: float
    stability_score: float
    random_25_error: float
    random_50_error: float
    random_75_error: float
    random_error: float


@dataclass(frozen=True)
class Localisation:
    """A row of explanations/localisation.csv: an explained image whose mask marks at least one px.

    Attributes:
        image_id: as in the manifest of the test split.
        map: index of its map in explanations/maps.npy.
        outcome: as in explanations/gallery.json.
        energy_score, pointing_score: of the map, in [0, 1].
        mask_fraction: what a uniform map would get, in (0, 1].
    """

    image_id: str
    map: int
    outcome: str
    energy_score: float
    pointing_score: float
    mask_fraction: float


@dataclass(frozen=True)
class Neighbour:
    """A row of explanations/neighbours.csv: a training image near an explained one, by the inputs of the head.

    Attributes:
        map: index of the map of the explained image, as in `Explanation`.
        image_id: as in the manifest of the training split.
        row: of the image in the training store.
        label: class index.
        distance: 1 - the cosine of the angle between the inputs, in [0, 2], rounded.
    """

    map: int
    image_id: str
    row: int
    label: int
    distance: float


@dataclass(frozen=True)
class ShownLayer:
    """An entry of explanations/inside.json: a layer of which a picture shows weights or maps.

    Attributes:
        layer: dotted name.
        shown: number of its filters or maps on the picture.
        total: how many it has.
        height, width: of each, px.
    """

    layer: str
    shown: int = field(metadata=allowed(ge=1))
    total: int = field(metadata=allowed(ge=1))
    height: int = field(metadata=allowed(ge=1))
    width: int = field(metadata=allowed(ge=1))


@dataclass(frozen=True)
class Inside:
    """explanations/inside.json: what filters.png and feature_maps.png show.

    Attributes:
        filters: the first layer, whose weights are on filters.png; none where they are no images.
        why_no_filters: why there are none; "" where there are.
        image_id: of the test image whose maps are on feature_maps.png.
        layers: of the maps, from the top; none where the network has no maps, and then there is no picture.
    """

    filters: list[ShownLayer]
    why_no_filters: str
    image_id: str
    layers: list[ShownLayer]


ROW_TYPES: dict[Path, type] = {
    CORRECTIONS: Correction,
    RAW_MANIFEST: RawImage,
    NEAR_COPIES: NearCopy,
    MEASURES: ImageMeasures,
    ATTRIBUTES: Attribute,
    MANIFEST: Sample,
    HISTORY: Epoch,
    PREDICTED: Prediction,
    ROC: RocPoint,
    PRECISION_RECALL: PrecisionRecallPoint,
    CONFUSION: ConfusionCell,
    CALIBRATION: CalibrationBin,
    UNCALIBRATED_BINS: CalibrationBin,
    COVERAGE: CoveragePoint,
    LOCALISATION: Localisation,
    NEIGHBOURS: Neighbour,
    MEASURED: MeasuredMap,
}
"""The tables, and what their rows are."""


def original_path(row: int) -> Path:
    """The small copy of the image in row `row` of data/raw/manifest.csv, a PNG; only some have one."""
    return ORIGINALS / f"{row:08d}.png"


def baseline_logits(method: str, split: str) -> Path:
    """The scores of a baseline, float32 (N, K) as the logits of a network; row i is image i of the store of `split`.

    Args:
        method: its name.
        split: "val" or "test".
    """
    return BASELINES / f"{method}-{split}.npy"


def write_metrics(document: Mapping[str, Any], *, folder: Path = Path()) -> None:
    """Writes metrics.json and, apart from it, `per_class`, which would drown `dvc metrics show`."""
    write_json(folder / METRICS, {key: value for key, value in document.items() if key != "per_class"})
    write_json(folder / CLASS_METRICS, document["per_class"])


def read_metrics(folder: Path = Path()) -> dict[str, Any]:
    """What `write_metrics` was given.

    Args:
        folder: the checkout.
    """
    document = checked_metrics(read_json(folder / METRICS), str(folder / METRICS))
    return {**document, "per_class": read_json(folder / CLASS_METRICS)}


def checked_metrics(document: Any, where: str) -> dict[str, Any]:
    """The content of a metrics.json, of which `flat_metrics` can be taken.

    Raises:
        DataError: it is something else; the message begins with `where`.
    """
    try:
        flat_metrics(document)
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{where}: no metrics of an evaluation. Delete it and run `dvc repro`.") from error
    return dict(document)


def flat_metrics(document: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in metrics.json by name: ends of intervals by that of their metric, what is nested by dotted names.

    >>> flat_metrics({"auc_score": 0.9, "intervals": {"auc_score": [0.8, 1.0]}, "operating_point": {"threshold": 0.5}})
    {'auc_score': 0.9, 'auc_score_low': 0.8, 'auc_score_high': 1.0, 'operating_point.threshold': 0.5}
    """
    found: dict[str, float] = {}
    for key, value in document.items():
        if key == "intervals":
            for metric, (low, high) in value.items():
                found |= {f"{metric}_low": low, f"{metric}_high": high}
        elif isinstance(value, Mapping):
            found |= {f"{key}.{inner}": number for inner, number in flat_metrics(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = value
    return found


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Writes dataset.json."""
    write_json(path, {f.name: getattr(dataset, f.name) for f in fields(dataset)})


def read_dataset(path: Path = DATASET) -> Dataset:
    """Reads dataset.json."""
    return Dataset.from_document(read_json(path), str(path))


def read_calibration_fit(path: Path = CALIBRATION_FIT) -> CalibrationFit:
    """Reads calibration/fit.json."""
    return typed(CalibrationFit, read_json(path), str(path))


def read_decision(path: Path = DECISION) -> DecisionRule:
    """Reads models/decision.json.

    Raises:
        DataError: it is missing, or something else.
    """
    return typed(DecisionRule, read_json(path), str(path))


def read_model_card(folder: Path = MODEL) -> ModelCard | None:
    """The model card of the bundle in `folder`; None where it has none.

    Raises:
        ModelError: it is no card, or it is about other weights.
    """
    path, again = folder / MODEL_CARD.name, "Run `dvc repro`, which writes it anew, or delete it."
    if not path.exists():
        return None
    try:
        card = typed(ModelCard, read_json(path), str(path))
    except DataError as error:
        raise ModelError(f"{str(error).rstrip('.')}: not a model card. {again}") from error
    if card.weights_sha256 != sha256(folder / WEIGHTS.name):
        raise ModelError(f"{path}: it is about other weights than {WEIGHTS.name} beside it. {again}")
    return card


def write_leaks(path: Path, leaks: Leaks) -> None:
    """Writes leaks.json."""
    write_json(path, asdict(leaks))


def read_leaks(path: Path = LEAKS) -> Leaks:
    """Reads leaks.json.

    Raises:
        DataError: it is missing, or something else.
    """
    return typed(Leaks, read_json(path), str(path))


def read_methods(path: Path = METHODS) -> FittedMethods:
    """Reads baselines/methods.json."""
    return typed(FittedMethods, read_json(path), str(path))


def read_against_baselines(path: Path = AGAINST_BASELINES) -> AgainstBaselines:
    """Reads evaluation/against_baselines.json."""
    return typed(AgainstBaselines, read_json(path), str(path))


def read_seen(path: Path = SEEN_SHARES) -> Seen:
    """Reads data/processed/seen/shares.json."""
    return typed(Seen, read_json(path), str(path))


def read_levels(path: Path = LEVELS) -> RawLevels:
    """Reads data/raw/levels.json."""
    return typed(RawLevels, read_json(path), str(path))


def read_inside(path: Path = INSIDE) -> Inside:
    """Reads explanations/inside.json."""
    return typed(Inside, read_json(path), str(path))


def explanations_in(gallery: Any, *, classes: int, where: str) -> list[Explanation]:
    """The explained images in gallery.json; none where the explainer has nothing to show for the network.

    Args:
        gallery: the document.
        classes: how many there are.
        where: it was found; the error begins with it.

    Raises:
        DataError: it is another document, or one of other classes.
    """
    if not isinstance(gallery, Mapping) or not {"applicable", "images"} <= {*gallery}:
        raise DataError(f"{where}: no gallery of explained images. {REMADE}")
    found: list[Explanation] = typed(list[Explanation], gallery["images"], where) if gallery["applicable"] else []
    for entry in found:
        if max(entry.label, entry.predicted, entry.target) >= classes:
            raise DataError(f"{where}: {entry.image_id!r} is of a class that the other files do not have. {REMADE}")
    return found


def training_files() -> list[Path]:
    """The files a training reads besides initial weights, in a fixed order."""
    folders = (PROCESSED / "train", PROCESSED / "val", AUGMENTED)
    return [DATASET, *(path for folder in folders for path in sorted(folder.iterdir()))]


def counts_of(labels: Iterable[int], classes: tuple[str, ...]) -> dict[str, int]:
    """Class name -> how often its index is among `labels`."""
    counts = [0] * len(classes)
    for label in labels:
        counts[label] += 1
    return dict(zip(classes, counts, strict=True))


def check_classes(counts: Mapping[str, int], *, where: str) -> None:
    """Refuses one class only, and a class without images.

    Raises:
        DataError: with the class names.
    """
    if len(counts) < 2:
        raise DataError(f"{where}: expected images of at least two classes, found {class_order(counts) or 'none'}.")
    empty = class_order(name for name, count in counts.items() if count == 0)
    if empty:
        raise DataError(
            f"{where}: no usable image of class {', '.join(map(repr, empty))}. Add images or drop the class."
        )
