"""What an exported file says of itself, so that it can be used without the bundle it was made from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinue.images.preprocessing import Preprocessing
from retinue.pipeline.artifacts import BUNDLE, WEIGHTS, Dataset, DecisionRule, read_model_card
from retinue.pipeline.documents import parse_json, typed
from retinue.pipeline.errors import DataError, ModelError
from retinue.pipeline.files import sha256
from retinue.pipeline.ranges import allowed
from retinue.serving.export.outputs import ANY_SIZE_OUTPUTS, INPUT, SMALLEST_SIDE, GraphOutputs

if TYPE_CHECKING:
    from retinue.bundle import Bundle

EXPORT_FORMAT = 1
PRECISIONS = ("float32", "int8")
_TOLD_OF_INITIAL_WEIGHTS = ("name", "url", "sha256")
"""Not the path, which is one of the machine that trained."""


@dataclass(frozen=True)
class ExportMetadata:
    """The metadata of an exported file.

    Attributes:
        format: of the metadata, `EXPORT_FORMAT`.
        retinue: version that exported.
        input: what the graph takes, a sentence.
        outputs: names of what it gives, in order; `GraphOutputs` has their meaning.
        any_size: whether it takes images of any size and resizes them; False: of the network's size.
        classes: class names; `predicted` is an index into them.
        model: section `model` of the settings: architecture and its arguments.
        dataset: the images it was trained on: preprocessing, counts.
        decision: temperature, operating point, costs, abstention; all of them are in the graph.
        initial_weights: where the training began: name, and of a download its address and digest.
        weights_sha256, bundle_sha256: of weights.safetensors and bundle.json of the bundle, hexadecimal.
        licence: of the weights, as stated at the export or in the model card; None: not stated.
        model_card: models/model_card.json of the bundle; None where it has none.
        precision: in which the network computes, of `PRECISIONS`.
    """

    format: int = field(metadata=allowed(ge=EXPORT_FORMAT, le=EXPORT_FORMAT))
    retinue: str
    input: str
    outputs: tuple[str, ...]
    any_size: bool
    classes: tuple[str, ...]
    model: dict[str, Any]
    dataset: Dataset
    decision: DecisionRule
    initial_weights: dict[str, Any]
    weights_sha256: str
    bundle_sha256: str
    licence: str | None
    model_card: dict[str, Any] | None = None
    precision: str = field(default=PRECISIONS[0], metadata=allowed(choices=PRECISIONS))

    @classmethod
    def from_bundle(
        cls, bundle: "Bundle", folder: Path, licence: str | None, *, any_size: bool = False
    ) -> "ExportMetadata":
        """What is told of `bundle`, whose files lie in `folder`.

        Raises:
            ModelError: the model card there is none, or one of other weights.
        """
        card = read_model_card(folder)
        initial = bundle.training.get("initial_weights") or {}
        return cls(
            format=EXPORT_FORMAT,
            retinue=version("retinue"),
            input=input_contract(bundle.dataset, any_size=any_size),
            outputs=ANY_SIZE_OUTPUTS if any_size else GraphOutputs._fields,
            any_size=any_size,
            classes=bundle.classes,
            model=dict(bundle.model),
            dataset=bundle.dataset,
            decision=bundle.decision,
            initial_weights={key: initial[key] for key in _TOLD_OF_INITIAL_WEIGHTS if key in initial},
            weights_sha256=sha256(folder / WEIGHTS.name),
            bundle_sha256=sha256(folder / BUNDLE.name),
            licence=licence or (card.model_details.get("licence") if card else None) or None,
            model_card=asdict(card) if card else None,
        )

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], where: str) -> "ExportMetadata":
        """What `texts` wrote, read strictly; other keys of the file are left alone.

        Raises:
            ModelError: it is none; `where` it was found begins the error.
        """
        try:
            names = [entry.name for entry in fields(cls) if entry.name in texts]
            return typed(cls, {name: parse_json(texts[name], f"{where}: {name}") for name in names}, where)
        except DataError as error:
            raise ModelError(
                f"{error} Expected a file that `retinue export` of this version wrote; export the bundle again."
            ) from error

    def texts(self) -> dict[str, str]:
        """Name of each attribute -> its value as JSON."""
        return {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in asdict(self).items()}

    @property
    def preprocessing(self) -> Preprocessing:
        """What turns a file or array into an image that the graph takes (`Preprocessing.load`)."""
        return Preprocessing.from_dataset(self.dataset)


def input_contract(dataset: Dataset, *, any_size: bool) -> str:
    """What the graph takes for images of `dataset`, in a sentence."""
    side, channels = dataset.image_size, "gray" if dataset.channels == 1 else "RGB"
    if any_size:
        return (
            f"{INPUT}: uint8 (N, H, W, {dataset.channels}), {channels}, 0 to 255, upright, all of one size from "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE} px; resizing and normalisation are in the graph"
        )
    made = {
        "crop": f"shorter side resized to {dataset.resize} px, centre {side} x {side} px",
        "pad": f"longer side resized to {side} px, padded with {dataset.fill}",
        "stretch": f"stretched to {side} x {side} px",
    }[dataset.fit]
    steps = ", ".join(str(step["name"]) for step in dataset.steps)
    return (
        f"{INPUT}: uint8 (N, {side}, {side}, {dataset.channels}), {channels}, 0 to 255, each {made}"
        f"{f', then {steps}' if steps else ''}; normalisation is in the graph"
    )
