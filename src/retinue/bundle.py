"""The model bundle: all it takes to predict, in two files.

bundle.json holds the architecture with its arguments, the class names and the preprocessing; weights.safetensors the
tensors. Nothing in them is executed: the architecture must be one of retinue's own.

Example:
    >>> from retinue.bundle import Bundle  # doctest: +SKIP
    >>> bundle = Bundle.load("models")  # doctest: +SKIP
    >>> bundle.predict(["photo.jpg"]).names  # doctest: +SKIP
    ['bee']
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from retinue.images.preprocessing import Preprocessing
from retinue.metrics.probabilities import decide, num_logits, to_probs
from retinue.models.network import Network
from retinue.pipeline.artifacts import BUNDLE, MODEL, WEIGHTS, Dataset
from retinue.pipeline.errors import ModelError, SettingsError
from retinue.pipeline.files import read_json, write_json
from retinue.pipeline.settings import build

FORMAT = 1
_OWN_MODEL = re.compile(r"retinue\.models\.[a-z]\w*\.[A-Za-z]\w*")


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
        document = {
            "format": FORMAT,
            "model": dict(self.model),
            "dataset": asdict(self.dataset),
            "training": dict(self.training),
        }
        write_json(folder / BUNDLE.name, document)

    @classmethod
    def load(cls, folder: Path | str = MODEL) -> "Bundle":
        """Reads a bundle; the network is in eval mode on the CPU.

        Raises:
            DataError: a file is missing or is not JSON.
            ModelError: the bundle is of another format, names a foreign architecture, or its weights do not fit.
        """
        folder = Path(folder)
        document = read_json(folder / BUNDLE.name)
        try:
            if document["format"] != FORMAT:
                raise ModelError(f"{folder}: bundle format {document['format']}, this version reads {FORMAT}.")
            dataset = Dataset.from_document(document["dataset"])
            model, training = document["model"], document["training"]
        except (KeyError, TypeError) as error:
            raise ModelError(f"{folder / BUNDLE.name}: not a model bundle ({error}). Train it again.") from error
        network = build_network(model, dataset)
        _load_state(network, folder / WEIGHTS.name)
        return cls(network.eval(), model, dataset, training)

    def predict(
        self, images: Sequence[Path | str | bytes | np.ndarray], *, batch_size: int = 64, device: str = "cpu"
    ) -> Predictions:
        """Predicts on image files or arrays, preprocessed as in training.

        Args:
            images: paths, encoded bytes, or decoded uint8 arrays (H, W), (H, W, 1), (H, W, 3 RGB) or (H, W, 4 RGBA).
            batch_size: images per forward pass, >= 1.
            device: torch's name of it.

        Raises:
            DataError: an image cannot be decoded; nothing is predicted then.
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

    def batches(self, images: Sequence[Path | str | bytes | np.ndarray], batch_size: int) -> Iterator[torch.Tensor]:
        """`images`, decoded and resized, in batches of uint8 (n, H, W, C)."""
        preprocessing = self.preprocessing
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size]
            loaded = [preprocessing.load(Path(image) if isinstance(image, str) else image) for image in chunk]
            yield torch.from_numpy(np.stack(loaded))


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
    network = build(
        model,
        where="model",
        in_channels=channels,
        num_classes=num_logits(num_classes),
        image_size=image_size,
    )
    if not isinstance(network, Network):
        raise ModelError(f"model._target_: {target!r} is no architecture (a subclass of Network); nothing is loaded.")
    return network


def _load_state(network: Network, path: Path) -> None:
    try:
        state = load_file(path)
        network.load_state_dict(state)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file. The bundle is incomplete; run `dvc repro`.") from error
    except SafetensorError as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({error}). Run `dvc checkout` or train again."
        ) from error
    except RuntimeError as error:
        raise ModelError(f"{path}: the weights do not fit the architecture in {BUNDLE.name}: {error}") from error
