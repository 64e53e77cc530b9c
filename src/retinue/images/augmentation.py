"""Random changes of training images: a policy whose draws depend on nothing but their numbers.

Its transforms are those of Albumentations, and a few of our own that are drawn in the same way. The one file that
imports Albumentations. Its own state is not relied on: with loader workers every worker would draw the same stream, so
every draw is seeded by itself.
"""

import inspect
import json
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import tries to reach the network

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.crops.transforms import CropSizeError
from albumentations.core.transforms_interface import DualTransform, ImageOnlyTransform, Transform3D
from pydantic import ValidationError

from retinue.engine.reproducibility import draw_seed
from retinue.images.erasing import RandomErasing
from retinue.images.randaugment import RandAugment, TrivialAugment
from retinue.pipeline.errors import DataError, SettingsError, SettingsFaults, unknown
from retinue.pipeline.ranges import shown
from retinue.pipeline.settings import is_finite

cv2.setNumThreads(1)  # images are spread over worker processes; threads inside them would compete

_WHERE = "augment.transforms"


_RUN_CODE = {"Lambda"}  # given as an argument
_READ_FILES = {"FDA", "HistogramMatching", "PixelDistributionAdaptation", "TextImage"}  # which DVC would not watch
_LEAVE_UINT8 = {"ToTensorV2", "ToFloat", "FromFloat", "Normalize"}

OWN: Mapping[str, type[Any]] = {kind.__name__: kind for kind in (RandAugment, TrivialAugment, RandomErasing)}
"""Transforms of ours: dataclasses of their arguments, `p` among them, with `draw(rng, shape)`, which says what is to be
done to an image of that shape, and `apply(image, drawn)`, which does it."""


class _DrawnByUs(ImageOnlyTransform):
    """A transform of `OWN` in a sequence of Albumentations' own: drawn from the same generator."""

    def __init__(self, transform: Any):
        super().__init__(p=transform.p)
        self._transform = transform

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {"drawn": self._transform.draw(self.random_generator, data["image"].shape)}

    def apply(self, img: np.ndarray, drawn: Any, **params: Any) -> np.ndarray:
        return self._transform.apply(img, drawn)


class AppliedTransform(NamedTuple):
    """What a transform did in one draw.

    Attributes:
        name: as in the policy.
        parameters: what was drawn for it, as Albumentations or the transform calls it.
    """

    name: str
    parameters: Mapping[str, Any]


def _available() -> dict[str, type[Any]]:
    """The transforms that can be named: our own, and Albumentations' of flat images."""
    return {**OWN, **_of_albumentations()}


def _of_albumentations() -> dict[str, type[A.BasicTransform]]:
    return {
        name: value
        for name, value in vars(A).items()
        if inspect.isclass(value)
        and issubclass(value, (DualTransform, ImageOnlyTransform))
        and not issubclass(value, Transform3D)
        and value not in (DualTransform, ImageOnlyTransform)
        and name not in _RUN_CODE | _READ_FILES | _LEAVE_UINT8
    }


class Policy:
    """A sequence of random transforms, a function of (image, epoch, index) once made.

    Args:
        transforms: each a mapping of `name` (of a transform of `OWN` or of Albumentations) and its arguments, `p` among
            them.
        seed: of the draws.

    Raises:
        SettingsError: no such transform or argument, or a value it refuses.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], seed: int):
        self._seed = seed
        self._entries = [_resolved(entry, f"{_WHERE}[{i}]") for i, entry in enumerate(transforms)]
        self._compose = A.Compose([_build(entry, f"{_WHERE}[{i}]") for i, entry in enumerate(self._entries)])

    @property
    def is_empty(self) -> bool:
        """Whether the policy changes nothing."""
        return not self._entries

    def __call__(self, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """One draw.

        Args:
            image: uint8 (H, W, C), C 1 or 3.
            epoch, index: number of the draw and of the image; with the seed they determine the draw.

        Returns:
            uint8 (H, W, C).

        Raises:
            SettingsError: a transform cannot take the image, or changes its size or type.
        """
        if self.is_empty:
            return image
        self._seed_transforms(draw_seed(self._seed, "augment", epoch, index))
        return _applied(self._compose, image, ", ".join(entry["name"] for entry in self._entries))

    def _seed_transforms(self, seed: int) -> None:
        """Gives all transforms one stream of random numbers.

        `Compose.set_random_seed` would give each a stream of its own with the same seed: what is drawn with probability
        0.5 would then be drawn together with everything else that is.
        """
        generator, py_random = np.random.default_rng(seed), random.Random(seed)
        for transform in self._compose.transforms:
            transform.set_random_state(generator, py_random)

    def last_applied(self) -> list[AppliedTransform]:
        """What the transforms did in the last draw of this policy, in their order; those that chance left out are not
        listed."""
        return [
            AppliedTransform(entry["name"], transform.params)
            for entry, transform in zip(self._entries, self._compose.transforms, strict=True)
            if transform.params
        ]

    def alone(self) -> "list[Policy]":
        """A policy for each transform, which applies it with certainty.

        Of a transform that draws one of several `operations`, a policy for each of these follows, if there are more
        than one.
        """
        policies = []
        for entry in self._entries:
            operations = entry.get("operations", []) if entry["name"] in OWN else []
            once = {"num_ops": 1} if "num_ops" in entry else {}
            singles = [{**entry, **once, "operations": [name]} for name in operations] if len(operations) > 1 else []
            entries = [entry, *singles]
            policies += [Policy([{**each, "p": 1.0}], self._seed) for each in entries]
        return policies

    @property
    def transforms(self) -> list[dict[str, Any]]:
        """The transforms with every argument resolved."""
        return [dict(entry) for entry in self._entries]

    def check(self, image: np.ndarray) -> None:
        """Applies each transform once with certainty, so that a transform that does not suit the images is found now.

        Args:
            image: uint8 (H, W, C), one like those to come.

        Raises:
            SettingsError: it cannot take the image, warns about it, or changes its size or type.
        """
        for entry in self._entries:
            certain = A.Compose([_build({**entry, "p": 1.0}, _WHERE)], seed=self._seed)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                _applied(certain, image, entry["name"])

    def to_json(self) -> str:
        """The policy with every argument resolved, the seed and the version of the library that draws."""
        document = {
            "library": "albumentations",
            "version": A.__version__,
            "seed": self._seed,
            "transforms": self._entries,
        }
        return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Policy":
        """The policy that `to_json` wrote.

        Raises:
            DataError: the text is something else, or was written with another version, which may draw differently.
        """
        try:
            document = json.loads(text)
            version, seed, transforms = document["version"], document["seed"], document["transforms"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"not an augmentation policy ({error!r}). Run `dvc repro augment`.") from error
        if version != A.__version__:
            raise DataError(
                f"frozen with albumentations {version}, installed is {A.__version__}, which may "
                "draw differently. Install the pinned version, or run `dvc repro augment`."
            )
        if not isinstance(transforms, list) or not isinstance(seed, int):
            raise DataError("not an augmentation policy: no list of transforms and a seed. Run `dvc repro augment`.")
        try:
            return cls(transforms, seed)
        except SettingsError as error:
            raise DataError(f"not an augmentation policy ({error}) Run `dvc repro augment`.") from error

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """The policy in the file `path`.

        Raises:
            DataError: the file is missing, or `from_json` refuses it.
        """
        try:
            return cls.from_json(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file. The stage augment writes it; run `dvc repro`.") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not text in UTF-8. Run `dvc repro augment`.") from error
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _resolved(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The name and every argument of a transform, given or default, as JSON has them."""
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise SettingsError(f"{where}: expected a mapping with a name and arguments, got {entry!r}.")
    available = _available()
    arguments = dict(entry)
    name = str(arguments.pop("name"))
    if name not in available:
        raise SettingsError(f"{where}: {unknown('transform', name, available)}")
    parameters = inspect.signature(available[name]).parameters
    for key in arguments:  # Albumentations only warns
        if key not in parameters:
            raise SettingsError(f"{where}: {name}: {unknown('argument', str(key), parameters)}")
    for key, value in arguments.items():
        if not is_finite(value):
            raise SettingsError(f"{where}: {name}: {key}: got {shown(value)}, expected finite numbers.")
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty}
    defaults = asdict(OWN[name]()) if name in OWN else defaults
    resolved: dict[str, Any] = json.loads(json.dumps({**defaults, **arguments}))
    return {"name": name, **resolved}


def _build(entry: Mapping[str, Any], where: str) -> A.BasicTransform:
    name, arguments = entry["name"], {key: value for key, value in entry.items() if key != "name"}
    if name in OWN:
        try:
            return _DrawnByUs(OWN[name](**arguments))
        except SettingsFaults as error:
            raise SettingsError(f"{where}: {' '.join(map(str, error.faults))}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return _of_albumentations()[name](**arguments)
    except (TypeError, ValueError, ArithmeticError, Warning) as error:
        raise SettingsError(f"{where}: {name}: {_what_fails(error)}.") from error


def _what_fails(error: Exception) -> str:
    """What Albumentations says is wrong, an argument at a time, without pydantic's web links."""
    cause = error if isinstance(error, ValidationError) else error.__cause__
    if not isinstance(cause, ValidationError):
        return str(error).strip().rstrip(".")
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in cause.errors())


def _applied(compose: A.Compose, image: np.ndarray, names: str) -> np.ndarray:
    try:
        drawn = compose(image=image)["image"]
    except (
        *(TypeError, ValueError, LookupError, ArithmeticError, NotImplementedError, MemoryError),
        *(cv2.error, CropSizeError, Warning),
    ) as error:
        raise SettingsError(
            f"{_WHERE}: {names}: cannot take images of shape {image.shape}: {_what_fails(error)}. Expected transforms "
            f"of uint8 images with {image.shape[2]} channel(s)."
        ) from error
    if drawn.ndim == 2:  # OpenCV drops a channel axis of length 1
        drawn = drawn[:, :, np.newaxis]
    if drawn.shape != image.shape or drawn.dtype != image.dtype:
        raise SettingsError(
            f"{_WHERE}: {names}: turned {image.dtype} {image.shape} into {drawn.dtype} {drawn.shape}. Expected "
            "transforms that keep size, channels and type; a crop needs a resize back to the size, such as "
            "RandomResizedCrop with size."
        )
    return np.ascontiguousarray(drawn)
