"""The model bundle: all it takes to predict, in two files.

bundle.json holds the architecture with its arguments, the class names and the preprocessing; weights.safetensors the
tensors. Nothing in them is executed: the architecture must be one of retinue's own.

Example:
    >>> from retinue.bundle import Bundle  # doctest: +SKIP
    >>> bundle = Bundle.load("models")  # doctest: +SKIP
    >>> bundle.predict(["photo.jpg"]).names  # doctest: +SKIP
    ['bee']
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from retinue.images.preprocessing import Preprocessing
from retinue.metrics.probabilities import decide, num_logits, to_probs
from retinue.models.network import Network, why_not_taken
from retinue.pipeline.artifacts import BUNDLE, MODEL, WEIGHTS, Dataset
from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError, ModelError, SettingsError
from retinue.pipeline.files import read_json, write_json
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


class Predictions(NamedTuple):
    """What a network says of N images.

    Attributes:
        logits: float32 (N, K) for K > 2 classes; (N, 1) for two, the log-odds of the second.
        probs: float64 (N, num_classes), rows sum to 1.
        predicted: int64 (N,), index of the most probable class (of two: the second from 0.5 on).
        names: the class names of `predicted`.
    """

    logits: np.ndarray
    probs: np.ndarray
    predicted: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Bundle:
    """A trained network with all it takes to use it.

    Attributes:
        network: in eval mode, on the CPU after loading.
        model: section `model` of the settings: name, module, _target_ and the arguments.
        dataset: class names, preprocessing and counts of the data it was trained on.
        training: what the training says of itself: best_epoch (from 1), monitor, value, initial_weights.
    """

    network: Network
    model: Mapping[str, Any]
    dataset: Dataset
    training: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.dataset.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """What turns a file or array into the network's input."""
        return Preprocessing.from_dataset(self.dataset)

    def save(self, folder: Path) -> None:
        """Writes bundle.json and weights.safetensors into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        (folder / WEIGHTS.name).write_bytes(serialize(state))  # save_file hides which disk error it met
        document = BundleDocument(FORMAT, dict(self.model), self.dataset, dict(self.training))
        write_json(folder / BUNDLE.name, asdict(document))

    @classmethod
    def load(cls, folder: Path | str = MODEL) -> "Bundle":
        """Reads a bundle; the network is in eval mode on the CPU.

        Raises:
            DataError: bundle.json is missing, is not JSON, or has a value that no bundle has.
            ModelError: the bundle is of another format, names a foreign architecture, or its weights do not fit.
            SettingsError: the architecture refuses one of its arguments.
        """
        folder = Path(folder)
        document = read_bundle_document(folder / BUNDLE.name)
        state = _read_state(folder / WEIGHTS.name)
        network = _network_for(document, state, folder)
        network.load_state_dict(state)
        return cls(network.eval(), document.model, document.dataset, document.training)

    def predict(self, images: Images, *, batch_size: int = 64, device: str = "cpu") -> Predictions:
        """Predicts on image files or arrays, preprocessed as in training.

        Args:
            images: one or more: paths, encoded bytes, Pillow images, or decoded uint8 arrays (H, W), (H, W, 1),
                (H, W, 3 RGB) or (H, W, 4 RGBA). A folder stands for the files in it, by name, hidden ones left out.
            batch_size: images per forward pass, >= 1.
            device: torch's name of it.

        Raises:
            DataError: an image cannot be decoded, a folder is empty, or something is no image; which one is said, and
                nothing is predicted.
        """
        network = self.network.to(device).eval()
        outputs = []
        with torch.inference_mode():
            for batch in self.batches(images, batch_size):
                outputs.append(network(self.preprocessing.normalise(batch.to(device))).float().cpu().numpy())
        logits = np.concatenate(outputs) if outputs else np.empty((0, num_logits(len(self.classes))), np.float32)
        probs = to_probs(logits)
        predicted = decide(probs)
        return Predictions(logits, probs, predicted, [self.classes[i] for i in predicted])

    def batches(self, images: Images, batch_size: int) -> Iterator[torch.Tensor]:
        """`images`, decoded and resized, in batches of uint8 (n, H, W, C)."""
        preprocessing, listed = self.preprocessing, list(_each_image(images))
        for start in range(0, len(listed), batch_size):
            loaded = []
            for number, image in enumerate(listed[start : start + batch_size], start):
                try:
                    loaded.append(preprocessing.load(image))
                except DataError as error:
                    raise error if isinstance(image, Path) else DataError(f"image {number}: {error}") from error
            yield torch.from_numpy(np.stack(loaded))


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
