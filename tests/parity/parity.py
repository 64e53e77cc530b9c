"""The same weights in two implementations: what must agree."""

from pathlib import Path

import torch
from torch import nn

from retinue.models.network import Network
from retinue.transfer.weights import load_weights


def randomise(network: nn.Module) -> None:
    """Draws batch norm's scales and statistics, too: fresh ones (1 and 0) would hide a misplaced layer."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)  # type: ignore[union-attr]
                for tensor in (module.bias, module.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)  # type: ignore[union-attr]


def assert_same_logits(published: nn.Module, own: Network, image_size: int, folder: Path) -> None:
    """The state dict of `published`, saved and loaded into `own` as a user would, gives the same logits to 1e-4."""
    randomise(published)
    torch.save(published.state_dict(), folder / "published.pth")
    report = load_weights(own, folder / "published.pth")
    assert report.adapted == report.skipped == []
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, logits = published.eval()(images), own.eval()(images)
    assert expected.std() > 1e-3, "logits that are all alike prove nothing"
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
