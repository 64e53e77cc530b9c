"""The model bundle: all it takes to predict, in a few files.

bundle.json holds the architecture with its arguments, the class names and the preprocessing; weights.safetensors the
tensors; decision.json temperature, operating point and abstention; known.safetensors, where it is there, what tells how
unusual an image is. Nothing in them is executed: the architecture must be one of retinue's own.

Example:
    >>> from retinue.bundle import Bundle  # doctest: +SKIP
    >>> bundle = Bundle.load("models")  # doctest: +SKIP
    >>> bundle.predict(["photo.jpg"]).names  # doctest: +SKIP
    ['bee']
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from retinue.images.preprocessing import Preprocessing
from retinue.metrics.deciding import decide
from retinue.metrics.predictions import Predictions
from retinue.metrics.probabilities import num_logits
from retinue.metrics.unusualness import Unusualness
from retinue.models.network import Network, why_not_taken
from retinue.pipeline.artifacts import (
    BUNDLE,
    DECISION,
    KNOWN,
    MODEL,
    MODEL_CARD,
    MODEL_CARD_TEXT,
    UNCALIBRATED,
    WEIGHTS,
    Dataset,
    DecisionRule,
    read_decision,
)
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError, ModelError, SettingsError
from retinue.pipeline.files import read_json, sha256, write_json
from retinue.pipeline.numbers import figure, significant
from retinue.pipeline.ranges import shown
from retinue.pipeline.settings import build, first_line, locate

AnImage = Path | str | bytes | np.ndarray | Image.Image
"""What stands for an image: a path, an encoded file, pixels uint8 (H, W[, C]), or Pillow's."""
Images = AnImage | Iterable[AnImage]
"""One or more images; of the paths, one of a folder stands for the files in it."""

FORMAT = 1
_LARGEST_DOCUMENT = 16 * 2**20
_MODES_OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "I;16B")
_REMEDY = "Run `dvc checkout` or train again."
_OWN_MODEL = re.compile(r"retinue\.models\.[a-z]\w*\.[A-Za-z]\w*")


@dataclass(frozen=True)
class BundleDocument:
    """bundle.json.

    Attributes:
        format: of the bundle, `FORMAT`.
        model: section `model` of the settings.
        dataset: of the data the network was trained on.
        training: what the training says of itself.
    """

    format: int
    model: dict[str, Any]
    dataset: Dataset
    training: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A trained network with all it takes to use it.

    Attributes:
        network: in eval mode, on the CPU after loading.
        model: section `model` of the settings: name, module, _target_ and the arguments.
        dataset: class names, preprocessing and counts of the data it was trained on.
        training: what the training says of itself: best_epoch (from 1; 0: before training,
            with the fitted head), monitor, value, initial_weights, and, of a fitted head, what became of it.
        decision: how its logits become probabilities and decisions; of a bundle that was not calibrated temperature 1
            and the most probable class.
        unusualness: tells how unusual an image is; None where the bundle does not know its training images.
    """

    network: Network
    model: Mapping[str, Any]
    dataset: Dataset
    training: Mapping[str, Any]
    decision: DecisionRule = UNCALIBRATED
    unusualness: Unusualness | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.dataset.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """What turns a file or array into the network's input."""
        return Preprocessing.from_dataset(self.dataset)

    def save(self, folder: Path) -> None:
        """Writes bundle.json, weights.safetensors and, of a calibrated bundle, decision.json and known.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        (folder / WEIGHTS.name).write_bytes(serialize(state))  # save_file hides which disk error it met
        document = BundleDocument(FORMAT, dict(self.model), self.dataset, dict(self.training))
        write_json(folder / BUNDLE.name, asdict(document))
        if self.decision.weights_sha256:
            write_decision(folder, self.decision)
        else:
            (folder / DECISION.name).unlink(missing_ok=True)  # that of other weights
        if self.unusualness is not None:
            write_known(folder, self.unusualness)
        else:
            (folder / KNOWN.name).unlink(missing_ok=True)
        for card in (MODEL_CARD, MODEL_CARD_TEXT):  # what they say was found with other weights
            (folder / card.name).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path | str = MODEL, *, with_decision: bool = True) -> "Bundle":
        """Reads a bundle; the network is in eval mode on the CPU.

        Args:
            folder: of its files.
            with_decision: False leaves decision.json and known.safetensors alone: the bundle is then as if it had not
                been calibrated.

        Raises:
            DataError: bundle.json is missing, is not JSON, or has a value that no bundle has.
            ModelError: the bundle is of another format, names a foreign architecture, its weights do not fit, or its
                decision.json or known.safetensors is none or was made with other weights.
            SettingsError: the architecture refuses one of its arguments.
        """
        folder = Path(folder)
        document = read_bundle_document(folder / BUNDLE.name)
        state = _read_state(folder / WEIGHTS.name)
        network = _network_for(document, state, folder)
        network.load_state_dict(state)
        parts = (network.eval(), document.model, document.dataset, document.training)
        if not with_decision:
            return cls(*parts)
        return cls(*parts, _read_decision(folder, len(document.dataset.classes)), _read_known(folder))

    def predict(
        self, images: Images, *, batch_size: int = 64, device: str = "cpu", skip_unreadable: bool = False
    ) -> Predictions:
        """Predicts on image files or arrays, preprocessed as in training.

        Args:
            images: one or more: paths, encoded bytes, Pillow images, or decoded uint8 arrays (H, W), (H, W, 1),
                (H, W, 3 RGB) or (H, W, 4 RGBA). A folder stands for the files in it, by name, hidden ones left out.
            batch_size: images per forward pass, >= 1.
            device: torch's name of it.
            skip_unreadable: what cannot be decoded is told in `unreadable`, and the others are predicted.

        Raises:
            DataError: an image cannot be decoded and is not skipped, a folder is empty, or something is no image; which
                one is said, and nothing is predicted.
            SettingsError: there is no such device.
        """
        self.move_to(device)
        unreadable: dict[int, str] | None = {} if skip_unreadable else None
        parts = [self._outputs(batch) for batch in self.batches(images, batch_size, unreadable)]
        if not parts:
            none = np.empty(0, np.float32)
            parts = [_Outputs(np.empty((0, num_logits(len(self.classes))), np.float32), none, none)]
        found = self._decided(_Outputs(*map(np.concatenate, zip(*parts, strict=True))))
        return found._replace(unreadable=unreadable or {})

    def move_to(self, device: str) -> None:
        """Puts the network on a device.

        Args:
            device: torch's name of it, as cpu, cuda or cuda:1.

        Raises:
            SettingsError: torch knows no such device, or this machine has none.
        """
        try:
            self.network.to(device)
            if self.unusualness is not None:
                self.unusualness.to(device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: of a torch that was built without CUDA
            raise SettingsError(f"device: {device!r} cannot be used here ({first_line(error)}).") from error

    def predict_decoded(self, images: torch.Tensor) -> Predictions:
        """Predicts on one batch of images that `batches` has made, where the network is.

        Args:
            images: uint8 (N, H, W, C), N >= 1.
        """
        return self._decided(self._outputs(images))

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """What the network is given for decoded images, where it is.

        Args:
            images: uint8 (N, H, W, C), as `batches` makes them.

        Returns:
            float32 (N, C, H, W), normalised.
        """
        return self.preprocessing.normalise(images.to(next(self.network.parameters()).device))

    def batches(
        self, images: Images, batch_size: int, unreadable: dict[int, str] | None = None
    ) -> Iterator[torch.Tensor]:
        """`images`, decoded and resized, in batches of uint8 (n, H, W, C).

        Args:
            images: as `predict` takes them.
            batch_size: images of a batch, >= 1; the last has what is left, and with `unreadable` any may have fewer.
            unreadable: takes place -> reason of what cannot be decoded; None: it is an error.

        Raises:
            DataError: see `predict`.
        """
        preprocessing, listed = self.preprocessing, list(_each_image(images))
        for start in range(0, len(listed), batch_size):
            loaded = []
            for place, image in enumerate(listed[start : start + batch_size], start):
                try:
                    loaded.append(preprocessing.load(image))
                except DataError as error:
                    if unreadable is None:
                        raise error if isinstance(image, Path) else DataError(f"image {place}: {error}") from error
                    unreadable[place] = str(error)
            if loaded:
                yield torch.from_numpy(np.stack(loaded))

    def __str__(self) -> str:
        """What it is in four lines: network, classes, images, decision."""
        data, decision, shown_classes = self.dataset, self.decision, 6
        names = ", ".join(map(str, self.classes[:shown_classes]))
        more = f" and {len(self.classes) - shown_classes} more" if len(self.classes) > shown_classes else ""
        made = f"crop of {data.resize} px" if data.fit == "crop" else data.fit
        score = (
            f"{self.training['monitor']} {figure(self.training['value'])}" if "value" in self.training else "untrained"
        )
        abstains = "" if decision.reject_below is None else f", abstains below {significant(decision.reject_below)}"
        return (
            f"{self.model.get('name', type(self.network).__name__)}, {score}\n"
            f"{len(self.classes)} classes: {names}{more}\n"
            f"images: {data.image_size} px, {'RGB' if data.channels == 3 else 'gray'}, {made}\n"
            f"decides at {decision.operating_point}, temperature {significant(decision.temperature)}{abstains}"
        )

    def _outputs(self, images: torch.Tensor) -> "_Outputs":
        """What the network gives for decoded images uint8 (N, H, W, C)."""
        network, unusualness = self.network.eval(), self.unusualness
        with torch.inference_mode():
            inputs = self.inputs(images)
            if unusualness is None:
                unknown = np.full(len(images), np.nan, np.float32)
                return _Outputs(network(inputs).float().cpu().numpy(), unknown, unknown)
            logits, head_inputs = network.with_head_inputs(inputs)
            return _Outputs(*(found.float().cpu().numpy() for found in (logits, *unusualness(head_inputs))))

    def _decided(self, outputs: "_Outputs") -> Predictions:
        found = decide(outputs.logits, self.decision)
        names = [self.classes[i] for i in found.predicted]
        decided = (outputs.logits, found.probs, found.predicted, names, found.abstained)
        return Predictions(*decided, outputs.distances, outputs.usual_shares)


class _Outputs(NamedTuple):
    """Logits float32 (N, K), and `distances` and `usual_shares` as in `Predictions`."""

    logits: np.ndarray
    distances: np.ndarray
    usual_shares: np.ndarray


def _each_image(images: Images) -> Iterator[Path | bytes | np.ndarray]:
    """`images` one by one, as `Preprocessing.load` takes them."""
    alone = isinstance(images, (str, Path, bytes, np.ndarray, Image.Image))
    for number, image in enumerate([images] if alone else images):  # type: ignore[arg-type]
        if isinstance(image, Image.Image):
            yield _encoded_png(image, number)
        elif isinstance(image, (str, Path)):
            path = Path(image)
            yield from _files_in(path) if path.is_dir() else [path]
        elif isinstance(image, (bytes, np.ndarray)):
            yield image
        else:
            raise DataError(
                f"image {number}: {type(image).__name__} is no image. Expected a path, encoded bytes, a Pillow image "
                "or a uint8 array."
            )


def _files_in(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder}: no file in this folder. Expected image files; folders in it are not looked into.")
    return files


def _encoded_png(image: Image.Image, number: int) -> bytes:
    """A Pillow image as a file without loss, so that one reader says what its pixels look like on a screen."""
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F" or (upright.mode == "I" and not _has_16_bits(np.asarray(upright))):
            raise ValueError(f"its mode is {upright.mode}: for these pixels no black and white are defined")
        if upright.mode not in _MODES_OF_PNG:
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        buffer = io.BytesIO()
        upright.save(buffer, "PNG", compress_level=0)
    except (OSError, SyntaxError, ValueError, LookupError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"image {number}: this Pillow image cannot be used ({first_line(error)}).") from error
    return buffer.getvalue()


def _has_16_bits(pixels: np.ndarray) -> bool:
    return bool(pixels.min() >= 0 and pixels.max() <= 65535)


def build_network(model: Mapping[str, Any], dataset: Dataset) -> Network:
    """The untrained network of section `model` for the images and classes of `dataset`; see `build_sized`."""
    return build_sized(model, dataset.channels, len(dataset.classes), dataset.image_size)


def build_sized(model: Mapping[str, Any], channels: int, num_classes: int, image_size: int) -> Network:
    """The untrained network of section `model`; for two classes it has one logit.

    Raises:
        ModelError: the architecture is not one of retinue's own.
        SettingsError: an argument is unknown or out of range.
    """
    for key, value, smallest in (("channels", channels, 1), ("classes", num_classes, 2), ("image size", image_size, 1)):
        if value < smallest:
            raise SettingsError(f"{key}: expected >= {smallest}, got {value}.")
    target = str(model.get("_target_"))
    if not _OWN_MODEL.fullmatch(target):
        raise ModelError(f"model._target_: {target!r} is not one of retinue.models; nothing else is loaded.")
    architecture = locate(target, where="model")
    if not (isinstance(architecture, type) and issubclass(architecture, Network)):
        raise ModelError(f"model._target_: {target!r} is no architecture (a subclass of Network); nothing is loaded.")
    network: Network = build(
        model,
        where="model",
        in_channels=channels,
        num_classes=num_logits(num_classes),
        image_size=image_size,
    )
    return network


def read_bundle_document(path: Path) -> BundleDocument:
    """The bundle.json at `path`.

    Raises:
        DataError: the file is missing or is not JSON.
        ModelError: it is of another format, or has a value that no bundle has.
    """
    document = read_json(path, remedy=_REMEDY, largest=_LARGEST_DOCUMENT)
    version = document.get("format") if isinstance(document, dict) else None
    if version is None:
        raise ModelError(f"{path}: not a model bundle (it has no format). {_REMEDY}")
    if version != FORMAT or isinstance(version, bool):
        raise ModelError(f"{path}: bundle format {shown(version)}, this version reads {FORMAT}. {_REMEDY}")
    try:
        found = typed(BundleDocument, document, "bundle")
        Preprocessing.from_dataset(found.dataset)  # which refuses operations that there are not
        return found
    except DataError as error:
        raise ModelError(f"{path}: not a model bundle ({str(error).rstrip('.')}). {_REMEDY}") from error


def write_decision(folder: Path, decision: DecisionRule) -> None:
    """Writes decision.json beside the weights in `folder`, bound to them by their digest."""
    bound = replace(decision, weights_sha256=sha256(folder / WEIGHTS.name))
    write_json(folder / DECISION.name, asdict(bound))


def _read_decision(folder: Path, num_classes: int) -> DecisionRule:
    """The decision of the bundle in `folder`; `UNCALIBRATED` where it has none.

    Raises:
        ModelError: it is none, it is of another number of classes, or it was made with other weights.
    """
    path, again = folder / DECISION.name, "Run `dvc repro`, which calibrates these weights, or delete it."
    if not path.exists():
        return UNCALIBRATED
    try:
        decision = read_decision(path)
    except DataError as error:
        raise ModelError(f"{path}: not a decision of a bundle ({str(error).rstrip('.')}). {again}") from error
    if decision.costs is not None and {len(decision.costs), *map(len, decision.costs)} != {num_classes}:
        raise ModelError(f"{path}: costs: expected {num_classes} rows of {num_classes}, one for each class. {again}")
    if decision.weights_sha256 != sha256(folder / WEIGHTS.name):
        raise ModelError(f"{path}: it was made with other weights than {WEIGHTS.name} beside it. {again}")
    return decision


def write_known(folder: Path, unusualness: Unusualness) -> None:
    """Writes known.safetensors beside the weights in `folder`, bound to them by their digest."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in unusualness.state_dict().items()}
    (folder / KNOWN.name).write_bytes(serialize(tensors, {"weights_sha256": sha256(folder / WEIGHTS.name)}))


def _read_known(folder: Path) -> Unusualness | None:
    """What the bundle in `folder` knows of its training images; None where it has no such file.

    Raises:
        ModelError: it is no such file, or it was made with other weights.
    """
    path, again = folder / KNOWN.name, "Run `dvc repro`, which calibrates these weights, or delete it."
    if not path.exists():
        return None
    tensors = _read_state(path)
    shapes = {name: (tensor.ndim, tensor.dtype) for name, tensor in tensors.items()}
    if shapes != {"known": (2, torch.float16), "distances": (1, torch.float32)} or not min(map(len, tensors.values())):
        raise ModelError(f"{path}: expected the tensors known, float16 (B, D), and distances, float32 (M). {again}")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ModelError(f"{path}: holds NaN or infinite values. {again}")
    with safe_open(path, "pt") as file:
        made_with = (file.metadata() or {}).get("weights_sha256")
    if made_with != sha256(folder / WEIGHTS.name):
        raise ModelError(f"{path}: it was made with other weights than {WEIGHTS.name} beside it. {again}")
    return Unusualness(tensors["known"], tensors["distances"])


def _network_for(document: BundleDocument, state: Mapping[str, torch.Tensor], folder: Path) -> Network:
    """The untrained network that `state` fits. It takes memory only when its tensors have been seen to fit.

    Raises:
        ModelError: they do not, or the arguments make no network.
    """
    try:
        with torch.device("meta"):
            expected = build_network(document.model, document.dataset).state_dict()
    except (RuntimeError, ArithmeticError, LookupError, AttributeError, MemoryError) as error:
        raise ModelError(
            f"{folder / BUNDLE.name}: model: these arguments make no network ({first_line(error)})."
        ) from error
    problems = [f"{name} is unexpected" for name in state if name not in expected]
    problems += [f"{name} is missing" for name in expected if name not in state]
    for name, own in expected.items():
        if name in state and (reason := _why_unfit(own, state[name])) is not None:
            problems.append(f"{name} {reason}")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ModelError(
            f"{folder / WEIGHTS.name}: the weights do not fit the architecture in {BUNDLE.name}: "
            f"{'; '.join(problems[:5])}{more}. {_REMEDY}"
        )
    return build_network(document.model, document.dataset)


def _why_unfit(own: torch.Tensor, given: torch.Tensor) -> str | None:
    if own.shape != given.shape:
        return f"is {tuple(given.shape)}, the network's is {tuple(own.shape)}"
    if (reason := why_not_taken(own, given)) is not None:
        return reason
    return None if given.isfinite().all() else "holds NaN or infinite values"


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file. The bundle is incomplete; run `dvc repro`.")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({first_line(error)}). Run `dvc checkout` or train again."
        ) from error
