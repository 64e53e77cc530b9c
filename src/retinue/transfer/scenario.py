"""A transfer-learning scenario: how much is frozen, how fast the rest moves, what is kept of the frozen part."""

from dataclasses import dataclass

from retinue.pipeline.errors import SettingsError, unknown

CACHES = ("off", "float32", "float16")


@dataclass(frozen=True)
class Scenario:
    """conf/transfer.

    Attributes:
        name: of the scenario.
        frozen_fraction: of the layers before the head, in [0, 1], from the first one on (`retinue.transfer.freezing`);
            1 leaves the head alone to train.
        lr_factor: learning rate of the layers before the head, over that of the head (optimizer.lr), in (0, 1].
        block_decay: what that rate is multiplied by for each block further from the head, in (0, 1]; 1: nothing.
            (Howard and Ruder 2018, "Universal Language Model Fine-tuning", section 3.2, use 1/2.6.)
        unfreeze_every: after each this many epochs the last frozen block is trained, too (ibid., section 3.3),
            >= 1; None: what is frozen stays frozen.
        prefix_cache: "float32" or "float16" computes what the frozen layers give once, where that is the same in every
            epoch, and keeps it on disk (`retinue.transfer.prefix_cache.features`); "off" computes it in every epoch.
        prefix_cache_gb: largest size of all that is kept, 10⁹ bytes, > 0.
    """

    name: str
    frozen_fraction: float
    lr_factor: float
    block_decay: float
    unfreeze_every: int | None
    prefix_cache: str
    prefix_cache_gb: float

    def __post_init__(self) -> None:
        if not 0 <= self.frozen_fraction <= 1:
            raise SettingsError(f"transfer.frozen_fraction: expected a value in [0, 1], got {self.frozen_fraction}.")
        for key in ("lr_factor", "block_decay"):
            if not 0 < getattr(self, key) <= 1:
                raise SettingsError(f"transfer.{key}: expected a factor in (0, 1], got {getattr(self, key)}.")
        if self.unfreeze_every is not None and (self.unfreeze_every < 1 or self.frozen_fraction == 0):
            raise SettingsError(
                f"transfer.unfreeze_every: expected >= 1, and transfer.frozen_fraction > 0, or null; got "
                f"{self.unfreeze_every} and {self.frozen_fraction}."
            )
        if self.prefix_cache not in CACHES:
            raise SettingsError(f"transfer.prefix_cache: {unknown('value', self.prefix_cache, CACHES)}")
        if self.prefix_cache_gb <= 0:
            raise SettingsError(f"transfer.prefix_cache_gb: expected a size > 0, got {self.prefix_cache_gb}.")

    @property
    def transfers(self) -> bool:
        """Whether the scenario makes sense with initial weights only."""
        return self.frozen_fraction > 0 or self.lr_factor < 1 or self.block_decay < 1
