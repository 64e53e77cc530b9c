"""One pass of a sliding network over an image against a pass for each of its crops, in batches of 32."""

import torch

from benchmarks.pairing import Row, in_turn, time_row, timed
from retinue.bundle import build_network
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.composition import compose
from retinue.serving.sliding.comparing import score_crops
from retinue.serving.sliding.convert import to_convolutional
from retinue.serving.sliding.scoring import slide

TRAINED, SIDE, CLASSES = 224, 384, 1000


def measure(pairs: int = 3) -> list[Row]:
    """A row for a network that ends in fully connected layers, and two that end in an average."""
    return [_compare(model, pairs) for model in ("vgg16", "resnet18", "squeezenet1_0")]


def _compare(model: str, pairs: int) -> Row:
    names = tuple(map(str, range(CLASSES)))
    dataset = Dataset("noise", names, {}, TRAINED, TRAINED, 3, (0.5,) * 3, (0.25,) * 3)
    network = build_network(compose([f"model={model}"])["model"], dataset).eval()
    sliding = to_convolutional(network, TRAINED)
    image = torch.randn(3, SIDE, SIDE)
    stride = sliding.stride
    ours, peer = in_turn(
        lambda: timed(lambda: slide(sliding, image)),
        lambda: timed(lambda: score_crops(network, image, image_size=TRAINED, stride=stride)),
        pairs,
    )
    positions = (SIDE - TRAINED) // stride + 1
    return time_row(
        f"dense scores, {model}, {positions} × {positions} crops of {TRAINED} px in {SIDE} px", ours, peer, "≤ 0.2"
    )
