"""What `retinue describe` describes: a composition of conf/, with the sizes that no composition holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retinue.bundle import build_sized
from retinue.models.network import Network
from retinue.pipeline.settings import Settings, build
from retinue.transfer.freezing import freeze
from retinue.transfer.scenario import Scenario


@dataclass(frozen=True)
class DescribeRequest:
    """A network to be trained, as plain values.

    Attributes:
        model, transfer, optimizer: sections of the settings.
        num_classes: >= 2; two classes are one logit.
        channels: of the images, >= 1.
        image_size: side of the square images, px, >= 1.
        batch_size: images of a training step, >= 1.
    """

    model: Mapping[str, Any]
    transfer: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    num_classes: int
    channels: int
    image_size: int
    batch_size: int

    @classmethod
    def of(
        cls,
        settings: Settings,
        num_classes: int,
        channels: int | None = None,
        image_size: int | None = None,
        batch_size: int | None = None,
    ) -> "DescribeRequest":
        """The composed settings; a size that is not None replaces theirs."""
        preprocess, train = settings.plain("preprocess"), settings.plain("train")
        return cls(
            settings.plain("model"),
            settings.plain("transfer"),
            settings.plain("optimizer"),
            num_classes,
            preprocess["channels"] if channels is None else channels,
            preprocess["image_size"] if image_size is None else image_size,
            train["batch_size"] if batch_size is None else batch_size,
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.channels, self.image_size, self.image_size

    def network(self) -> Network:
        """The untrained network, frozen where the transfer scenario freezes it, on torch's default device.

        transfer=auto has not decided yet: nothing is frozen.
        """
        network = build_sized(self.model, self.channels, self.num_classes, self.image_size)
        transfer = build(self.transfer, where="transfer")
        if isinstance(transfer, Scenario):
            freeze(network, transfer)
        return network
