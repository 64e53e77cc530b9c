"""timm's state dicts load as they are, and give timm's logits."""

from pathlib import Path
from typing import Any

import pytest
from parity import assert_same_logits

from networks import make_network

PUBLISHED: list[tuple[str, str, dict[str, Any], int]] = [
    # conf/model, timm's name, our arguments, image side
    ("mobilenet_v1", "mobilenetv1_100", {"stem": "imagenet"}, 96),
    ("xception", "legacy_xception", {}, 128),
]


@pytest.mark.parametrize(("name", "published_name", "ours", "side"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_logits(name: str, published_name: str, ours: dict[str, Any], side: int, tmp_path: Path) -> None:
    import timm

    published = timm.create_model(published_name, pretrained=False)
    assert_same_logits(published, make_network(name, image_size=side, **ours), side, tmp_path)
