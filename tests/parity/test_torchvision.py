"""torchvision's state dicts load as they are, and give torchvision's logits."""

from pathlib import Path
from typing import Any

import pytest
from parity import assert_same_logits

from networks import make_network

PUBLISHED: list[tuple[str, str, dict[str, Any], dict[str, Any], int]] = [
    # conf/model, torchvision's builder, our arguments, torchvision's, image side
    ("alexnet", "alexnet", {"variant": "single_tower"}, {}, 224),
    ("vgg16", "vgg16", {}, {}, 64),
    ("vgg19", "vgg19", {}, {}, 64),
    ("googlenet", "googlenet", {}, {"init_weights": False}, 224),
    ("resnet18", "resnet18", {"stem": "imagenet"}, {}, 96),
    ("resnet34", "resnet34", {"stem": "imagenet"}, {}, 96),
    ("resnet50", "resnet50", {"stem": "imagenet"}, {}, 96),
    ("resnet101", "resnet101", {"stem": "imagenet"}, {}, 96),
    ("resnet152", "resnet152", {"stem": "imagenet"}, {}, 96),
    ("squeezenet1_0", "squeezenet1_0", {}, {}, 96),
    ("squeezenet1_1", "squeezenet1_1", {}, {}, 96),
    ("mobilenet_v2", "mobilenet_v2", {"stem": "imagenet"}, {}, 96),
    ("densenet121", "densenet121", {"stem": "imagenet"}, {}, 96),
    ("efficientnet_b0", "efficientnet_b0", {"stem": "imagenet"}, {}, 96),
]


@pytest.mark.parametrize(("name", "builder", "ours", "theirs", "side"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_logits(
    name: str, builder: str, ours: dict[str, Any], theirs: dict[str, Any], side: int, tmp_path: Path
) -> None:
    from torchvision import models

    published = getattr(models, builder)(weights=None, **theirs)
    assert_same_logits(published, make_network(name, image_size=side, **ours), side, tmp_path)
