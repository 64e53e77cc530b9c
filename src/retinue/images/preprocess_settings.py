"""The settings of preprocess: how images become squares, and how they are divided into splits."""

from dataclasses import dataclass, field, fields
from typing import Any

from retinue.images.operations.chain import Chain, chain_faults
from retinue.images.preprocessing import Preprocessing
from retinue.images.splitting import SplitRules
from retinue.pipeline.artifacts import FILL, FITS
from retinue.pipeline.errors import Fault
from retinue.pipeline.numbers import figure
from retinue.pipeline.ranges import Checked, allowed, shown


def _crop_is_inside(image_size: int, resize: int, fit: str) -> Fault | None:
    if resize >= image_size or fit != "crop":
        return None
    hint = "The crop would reach beyond the image."
    return Fault("resize", shown(resize), f"at least preprocess.image_size ({image_size} px)", hint)


def _statistics_fit(statistics: str, channels: int) -> Fault | None:
    if statistics != "imagenet" or channels == 3:
        return None
    return Fault("statistics", shown(statistics), f"train, because preprocess.channels is {channels}, not 3")


def _training_images_are_left(val_fraction: float, test_fraction: float) -> Fault | None:
    if val_fraction + test_fraction < 1:
        return None
    expected = f"less than 1 together with preprocess.test_fraction ({test_fraction})"
    return Fault("val_fraction", shown(val_fraction), expected, "Nothing is left to train on.")


def _fold_is_one_of_them(folds: int | None, fold: int | None) -> Fault | None:
    if folds is None:
        expected = "null, because preprocess.folds is"
        return None if fold is None else Fault("fold", shown(fold), expected, "preprocess.folds=5 makes five.")
    if fold is None:
        return Fault("fold", "null", f"one of 0 to {folds - 1}, because preprocess.folds is given")
    expected = f"one of 0 to {folds - 1}, the {folds} of preprocess.folds"
    return None if fold < folds else Fault("fold", shown(fold), expected, "The first fold is 0.")


def _fold_leaves_training_images(val_fraction: float, folds: int | None) -> Fault | None:
    if folds is None or val_fraction + 1 / folds < 1:
        return None
    expected = f"less than {figure(1 - 1 / folds)}: the test split is one of preprocess.folds ({folds}) parts"
    return Fault("val_fraction", shown(val_fraction), expected, "Nothing is left to train on.")


def _pins_or_folds(splits_csv: str | None, folds: int | None) -> Fault | None:
    if splits_csv is None or folds is None:
        return None
    expected = "null, because preprocess.splits_csv is given"
    return Fault("folds", shown(folds), expected, "A pinned image would be in the test split of every fold.")


def _steps_can_be_taken(steps: list[Any], channels: int) -> Fault | None:
    return next(iter(chain_faults(steps, channels)), None)


@dataclass(frozen=True)
class PreprocessSettings(Checked, section="preprocess"):
    """conf/preprocess.

    Attributes:
        image_size: side of the stored square.
        resize: shorter side before the centre crop of fit=crop, not below image_size; the other fits do not use it.
        channels: 1 (gray) or 3 (RGB).
        statistics: "train" measures mean and std on the training split; "imagenet" takes ImageNet's.
        val_fraction, test_fraction: of the images, where the source gives no such split; their sum is below 1.

        folds: parts for cross-validation, one of which is the test split in place of `test_fraction`; null: none.
        fold: the part that is the test split, from 0 to folds - 1; null where folds is.
        splits_csv: a CSV with the columns image_id,split that puts images into train, val or test whatever the source
            or the draw says; what belongs to them follows. It lies in what DVC watches: `inputs`, or source.inputs.
        inputs: what DVC watches besides the source: splits_csv, or any file of the code where there is none.
        leaks: where images that belong together lie in several given splits: "fail"; "drop" takes those of the earlier
            split (of train, val, test) out; "allow" keeps them, and the report gives the score without them, too.
        conflicts: equal images with different labels: "keep", or "drop" all of them.
        near_copies: the largest distance in data/raw/near_copies.csv at which two images belong together; null: equal
            bytes and groups alone count.

        fit: how an image becomes a square. "crop" resizes its shorter side and cuts off what reaches beyond the
            centre, "pad" resizes its longer side and fills what is left free, "stretch" gives up its aspect ratio.
        fill: what fit=pad puts beside the image: a value from 0 (black) to 255 (white), "mean", the image's mean
            colour, or "edge", its outermost px repeated.
        steps: operations on the squares, in this order: mappings of `name` and arguments (docs/preprocessing.md).
    """

    RELATIONS = (
        *(_crop_is_inside, _statistics_fit, _training_images_are_left, _steps_can_be_taken),
        *(_fold_is_one_of_them, _fold_leaves_training_images, _pins_or_folds),
    )

    image_size: int = field(metadata=allowed(ge=1, most=8192, unit="px"))
    resize: int = field(metadata=allowed(ge=1, most=16_384, unit="px"))
    channels: int = field(metadata=allowed(choices=(1, 3)))
    statistics: str = field(metadata=allowed(choices=("train", "imagenet")))
    val_fraction: float = field(metadata=allowed(gt=0, lt=1))
    test_fraction: float = field(metadata=allowed(gt=0, lt=1))

    folds: int | None = field(metadata=allowed(ge=2, most=1000))
    fold: int | None = field(metadata=allowed(ge=0, most=999))
    splits_csv: str | None
    inputs: str
    leaks: str = field(metadata=allowed(choices=("fail", "drop", "allow")))
    conflicts: str = field(metadata=allowed(choices=("keep", "drop")))
    near_copies: float | None = field(metadata=allowed(ge=0))

    fit: str = field(metadata=allowed(choices=FITS))
    fill: str = field(metadata=allowed(pattern=FILL, expected="edge, mean or a value from 0 to 255"))
    steps: list[Any]

    def split_rules(self, seed: int) -> SplitRules:
        """How images are divided, by these settings and the seed of the run."""
        return SplitRules(seed, **{rule.name: getattr(self, rule.name) for rule in fields(SplitRules)[1:]})

    def preprocessing(self, white: float | None) -> Preprocessing:
        """What these settings make of an image, before mean and standard deviation are measured.

        Args:
            white: of images with more than 8 bits a sample; None: what each file declares.
        """
        zeros, ones = (0.0,) * self.channels, (1.0,) * self.channels
        how = self.fit, self.fill, Chain(self.steps, self.channels).entries(), white
        return Preprocessing(self.image_size, self.resize, self.channels, zeros, ones, *how)
