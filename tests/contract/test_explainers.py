"""What every explainer in conf/explain must do: forget what the network forgets (Adebayo et al. 2018), or say so."""

from typing import Any

import pytest
import torch
from torch import nn

from choices import choices_of, document
from networks import Small
from retinue.explainers.explainer import FEATURES, NETWORK, Explainer
from retinue.explainers.measures.randomisation import randomised_similarity
from retinue.pipeline.settings import build

FORGOTTEN = 0.5
"""Mean rank correlation up to which a map counts as destroyed."""


@pytest.fixture(scope="module")
def learnt() -> tuple[Small, torch.Tensor, torch.Tensor]:
    """A network that tells which of three channels, or none, has a bright square, and images of it."""
    torch.manual_seed(0)
    images, labels = torch.randn(128, 3, 16, 16) * 0.5, torch.arange(128) % 4
    corners = torch.randint(0, 12, (128, 2))
    for image, label, (row, column) in zip(images, labels.tolist(), corners.tolist(), strict=True):
        if label < 3:
            image[label, row : row + 5, column : column + 5] += 3.0
    network = Small().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        assert (network(images).argmax(dim=1) == labels).float().mean() > 0.9
    return network, images[labels < 3][:24], labels[labels < 3][:24]


@pytest.mark.parametrize("name", choices_of("explain"))
def test_random_weights_destroy_the_maps_of_who_claims_to_depend_on_them(
    name: str, learnt: tuple[Small, torch.Tensor, torch.Tensor]
) -> None:
    network, images, labels = learnt
    section: dict[str, Any] = document("explain", name)["explainer"]
    explainer: Explainer = build(section, where="explain.explainer").located(network, images[:1])
    maps = explainer.maps(network, images, labels).maps
    head, _, _, every = randomised_similarity(explainer, network, images, labels, maps).mean(axis=0)
    assert every < FORGOTTEN, f"{name}: its maps survive the loss of all weights, rank correlation {every}."
    if explainer.depends_on == FEATURES:
        assert head == pytest.approx(1.0), f"{name}: says that the head is nothing to it."
    else:
        assert explainer.depends_on == NETWORK
        assert head < 0.95, f"{name}: says that it depends on the head, without which its maps are the same."
