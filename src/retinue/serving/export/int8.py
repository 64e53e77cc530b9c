"""The ONNX file whose network computes in 8 bits: written, and compared with the bundle on images with labels.

Weights become int8, channel by channel, activations uint8 with scales from the range that they have on training images
(Jacob et al. 2018, after training). Normalisation, decision and unusualness stay as they are. Rounding to 256 steps
moves logits by far more than summing in another order does, so the file is judged by what it decides.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinue.bundle import Bundle
from retinue.engine.store import ImageStore
from retinue.pipeline.artifacts import DATASET, MANIFEST, PROCESSED, Sample, read_dataset
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.files import iterate_table
from retinue.pipeline.numbers import figure, percent
from retinue.serving.export.exported import ExportedModel
from retinue.serving.export.onnx_file import onnx_packages
from retinue.serving.export.outputs import INPUT, GraphOutputs
from retinue.serving.export.parity import TEST_SPLIT, ComparedImages, of_stored

FILE = "model_int8.onnx"
MOST_LOST = 0.01
"""Accuracy that the file may lose, where labels are known; else the share of images it may decide otherwise."""

CALIBRATION_IMAGES = 256
"""Training images by which the ranges of activations are told; more change them little."""

TRAIN_SPLIT = PROCESSED / "train"
_BATCH = 32
_QUANTIZED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Int8Parity:
    """How the file compares with its bundle.

    Attributes:
        images: number of images that both have seen.
        source: where they are from.
        calibrated_on: where the images are from by which ranges were told.
        largest_prob_difference: of all images and classes.
        decisions_that_differ, abstentions_that_differ: images.
        bundle_accuracy, int8_accuracy: share of images that each decides right, in [0, 1]; None without labels.
    """

    images: int
    source: str
    calibrated_on: str
    largest_prob_difference: float
    decisions_that_differ: int
    abstentions_that_differ: int
    bundle_accuracy: float | None
    int8_accuracy: float | None

    @property
    def lost(self) -> float:
        """The accuracy that is lost, or, without labels, the share of images that are decided otherwise."""
        if self.bundle_accuracy is None or self.int8_accuracy is None:
            return self.decisions_that_differ / self.images
        return self.bundle_accuracy - self.int8_accuracy

    @property
    def holds(self) -> bool:
        """Whether the file may be used in place of the bundle."""
        return self.lost <= MOST_LOST


def write_int8(model: Path, bundle: Bundle, images: Path | None, texts: Mapping[str, str]) -> str:
    """Writes `FILE` beside the file of an export.

    Args:
        model: the exported ONNX file.
        bundle: that it was made from.
        images: folder of images by which ranges are told, where the training split of the bundle is not at hand.
        texts: metadata of the file, by name.

    Returns:
        where the images are from by which ranges were told.

    Raises:
        SettingsError: there are no such images, or a package is not installed.
    """
    onnx, _ = onnx_packages()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, batches = calibration_images(bundle, images)
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        simplified, quantized = (Path(folder) / name for name in ("simplified.onnx", "quantized.onnx"))
        quant_pre_process(str(model), str(simplified), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(simplified),
            str(quantized),
            _reader(quantization.CalibrationDataReader, batches),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
            op_types_to_quantize=[*_QUANTIZED],
            nodes_to_exclude=_nodes_beside_the_network(onnx.load(simplified).graph),
        )
        made = onnx.load(quantized)
    del made.metadata_props[:]
    for key, text in texts.items():
        made.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(made)
    onnx.save(made, model.with_name(FILE))
    return source


def calibration_images(bundle: Bundle, folder: Path | None) -> tuple[str, Iterator[np.ndarray]]:
    """Where images are from by which ranges are told, and batches of them, uint8 (n, S, S, C).

    Raises:
        SettingsError: there is neither a training split of the bundle nor a folder.
    """
    if TRAIN_SPLIT.is_dir() and DATASET.is_file() and read_dataset() == bundle.dataset:
        store = ImageStore(TRAIN_SPLIT)
        rows = np.unique(np.linspace(0, len(store) - 1, CALIBRATION_IMAGES).round().astype(np.int64))
        parts = np.array_split(rows, -(-len(rows) // _BATCH))
        return str(TRAIN_SPLIT), (store.read(part.tolist()) for part in parts)
    if folder is None:
        raise SettingsError(
            "--int8 needs images like those of the training, and the training split of this bundle is not in "
            f"{TRAIN_SPLIT}. Give some with --images FOLDER."
        )
    return str(folder), (batch.numpy() for batch in bundle.batches(folder, _BATCH))


def compare_int8(bundle: Bundle, exported: ExportedModel, folder: Path | None, calibrated_on: str) -> Int8Parity:
    """Runs bundle and file on the same images; with labels where these are of the test split.

    Args:
        bundle: on the CPU.
        exported: the file.
        folder: of images, as `ComparedImages.choose` has it.
        calibrated_on: what `write_int8` gave.
    """
    compared = ComparedImages.choose(bundle, folder)
    ours, theirs = [], []
    for batch in compared.batches:
        ours.append(of_stored(bundle, batch))
        theirs.append(exported.predict(batch, batch_size=len(batch)))
    decided, other = (np.concatenate([each.predicted for each in of]) for of in (ours, theirs))
    moved = max(float(np.abs(a.probs - b.probs).max()) for a, b in zip(ours, theirs, strict=True))
    abstentions = sum(int((a.abstained != b.abstained).sum()) for a, b in zip(ours, theirs, strict=True))
    accuracies: tuple[float | None, float | None] = (None, None)
    if compared.source == str(TEST_SPLIT):
        labels = np.array([sample.label for sample in iterate_table(TEST_SPLIT / MANIFEST, Sample)])
        accuracies = float((decided == labels).mean()), float((other == labels).mean())
    count = int((decided != other).sum())
    return Int8Parity(len(decided), compared.source, calibrated_on, moved, count, abstentions, *accuracies)


def int8_refusal(found: Int8Parity) -> str:
    """Why the file was not kept."""
    what = "is decided otherwise" if found.bundle_accuracy is None else "of accuracy is lost"
    return (
        f"int8: on {figure(found.images)} images ({found.source}) {percent(found.lost)} {what}, expected at most "
        f"{percent(MOST_LOST)}. No file was written, an earlier export is as it was. Leave out --int8."
    )


def int8_lines(found: Int8Parity, target: Path) -> list[str]:
    """What is printed of the file."""
    accuracy = ""
    if found.bundle_accuracy is not None:
        accuracy = f"; accuracy {figure(found.int8_accuracy)}, the bundle's {figure(found.bundle_accuracy)}"
    return [
        f"{target / FILE}: ranges by {found.calibrated_on}, compared on {figure(found.images)} images: {found.source}",
        f"  decided otherwise {figure(found.decisions_that_differ)}, abstentions that differ "
        f"{figure(found.abstentions_that_differ)}{accuracy}",
    ]


def _nodes_beside_the_network(graph: Any) -> list[str]:
    """Names of the nodes that the logits do not depend on: decision and unusualness."""
    made_by = {output: node for node in graph.node for output in node.output}
    of_network, wanted = set(), [GraphOutputs._fields[0]]
    while wanted:
        node = made_by.get(wanted.pop())
        if node is not None and node.name not in of_network:
            of_network.add(node.name)
            wanted += node.input
    return [node.name for node in graph.node if node.name not in of_network]


def _reader(base: Any, batches: Iterator[np.ndarray]) -> Any:
    """What onnxruntime asks for images: `batches`, then None."""

    class BatchReader(base):
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            return None if batch is None else {INPUT: batch}

    return BatchReader()
