"""How far exported files are from their bundles: `python -m benchmarks.export` prints the table of docs/export.md.

Weights are random, the statistics of batch norm those of one batch; images are the smallest that the network takes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import nn

from retinue.bundle import Bundle, build_network
from retinue.pipeline.artifacts import WEIGHTS, Dataset
from retinue.pipeline.composition import compose
from retinue.pipeline.errors import ModelError, SettingsError
from retinue.pipeline.numbers import short, significant
from retinue.serving.export.exported import ExportedModel
from retinue.serving.export.graph import traced
from retinue.serving.export.kinds import KINDS
from retinue.serving.export.metadata import ExportMetadata
from retinue.serving.export.parity import ComparedImages, Parity, compare_with_bundle, generated_images

ARCHITECTURES = sorted(path.stem for path in (Path(__file__).parents[1] / "conf/model").glob("*.yaml"))
CLASSES = tuple(map(str, range(10)))
IMAGES = ((1, 32), (3, 64), (3, 67), (3, 224), (3, 227))
"""Channels and side, px; a network is measured with the first that it takes."""
COMPARED = 16


class ExportedArchitecture(NamedTuple):
    """What was found of one architecture.

    Attributes:
        bundle: with the network.
        weights_size_bytes: of weights.safetensors.
        size_bytes: of the exported file, by kind.
        parity: by kind.
    """

    bundle: Bundle
    weights_size_bytes: int
    size_bytes: dict[str, int]
    parity: dict[str, Parity]


def random_bundle(name: str) -> Bundle:
    """A bundle of architecture `name` for ten classes of the smallest images in `IMAGES` that it takes.

    Raises:
        SettingsError: it takes none of them, or needs a package that is not installed.
    """
    model: dict[str, Any] = compose([f"model={name}"])["model"]
    for channels, side in IMAGES:
        dataset = Dataset("noise", CLASSES, {}, side, side, channels, (0.5,) * channels, (0.25,) * channels)
        torch.manual_seed(0)
        try:
            network = build_network(model, dataset)
        except SettingsError as error:
            refusal = error
            continue
        bundle = Bundle(network, model, dataset, {})
        _settle(network, bundle.preprocessing.normalise(torch.from_numpy(generated_images(bundle)[:COMPARED])))
        return bundle
    raise refusal


def exported_architecture(name: str, folder: Path) -> ExportedArchitecture:
    """Exports a random bundle of architecture `name` as every kind of file, in `folder`, and compares each.

    Raises:
        ModelError, SettingsError: it cannot be built or exported.
    """
    bundle = random_bundle(name)
    bundle.save(folder)
    metadata = ExportMetadata.from_bundle(bundle, folder, None)
    program, images = traced(bundle), generated_images(bundle)[:COMPARED]
    sizes, parities = dict[str, int](), dict[str, Parity]()
    for kind, each in KINDS.items():
        path = folder / each.file
        each.write(program, metadata.outputs, metadata.texts(), path)
        exported = ExportedModel.load(path, trusted=True)
        parities[kind] = compare_with_bundle(bundle, exported, ComparedImages("generated", [images]))
        sizes[kind] = path.stat().st_size
    return ExportedArchitecture(bundle, (folder / WEIGHTS.name).stat().st_size, sizes, parities)


def _settle(network: nn.Module, images: torch.Tensor) -> None:
    """Gives batch norm the statistics of `images`, without which logits of deep networks have any size."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    network.eval()


def _rows(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = exported_architecture(name, Path(folder))
            except (ModelError, SettingsError) as error:
                yield f"| {name} | | | | | | not exported: {str(error).splitlines()[0]} |"
                continue
        data = found.bundle.dataset
        differing = sum(each.decisions_that_differ + each.abstentions_that_differ for each in found.parity.values())
        cells = [
            name,
            f"{data.image_size} × {data.image_size} × {data.channels}",
            *(significant(found.parity[kind].largest_logit_difference, 2) for kind in ("onnx", "pt2")),
            *(
                short(size, "B")
                for size in (found.weights_size_bytes, found.size_bytes["onnx"], found.size_bytes["pt2"])
            ),
            str(differing),
        ]
        yield f"| {' | '.join(cells)} |"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(ARCHITECTURES))
def main(names: Sequence[str]) -> None:
    """Export NAMES, all architectures without any, and print how far each file is from its bundle."""
    print("| `model=` | images, px | onnx | pt2 | weights | onnx | pt2 | decided otherwise |")
    print("|---|---|---|---|---|---|---|---|")
    for row in _rows(names or ARCHITECTURES):
        print(row, flush=True)


if __name__ == "__main__":
    main()
