"""Grad-CAM of a batch against one forward pass of the same batch."""

import torch

from benchmarks.pairing import Row, in_turn, time_row, timed
from retinue.bundle import build_network
from retinue.explainers.gradcam import GradCAM
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.composition import compose

BATCH, SIZE, CLASSES = 16, 224, 1000


def measure(pairs: int = 7) -> list[Row]:
    """A row for each network that takes photographs."""
    return [_compare(model, pairs) for model in ("resnet18", "squeezenet1_0")]


def _compare(model: str, pairs: int) -> Row:
    names = tuple(map(str, range(CLASSES)))
    dataset = Dataset("noise", names, {}, SIZE, SIZE, 3, (0.5,) * 3, (0.25,) * 3)
    network = build_network(compose([f"model={model}"])["model"], dataset).eval()
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    explainer = GradCAM().located(network, images[:1])  # found once per run, as the stage does

    def forward() -> None:
        with torch.no_grad():
            network(images)

    ours, peer = in_turn(lambda: timed(lambda: explainer.maps(network, images)), lambda: timed(forward), pairs)
    return time_row(f"Grad-CAM, {model}, {BATCH} images at {SIZE} px", ours, peer, "≤ 1.2")
