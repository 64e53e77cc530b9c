"""A transfer-learning scenario: how much is frozen, how fast the rest moves, what is kept of the frozen part."""

from dataclasses import dataclass, field

from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import Checked, allowed, shown

CACHES = ("off", "float32", "float16")


def _something_is_frozen(frozen_fraction: float, unfreeze_every: int | None) -> Fault | None:
    if unfreeze_every is None or frozen_fraction > 0:
        return None
    return Fault("unfreeze_every", shown(unfreeze_every), "null, because transfer.frozen_fraction is 0")


@dataclass(frozen=True)
class Scenario(Checked, section="transfer"):
    """conf/transfer.

    Attributes:
        name: of the scenario.
        frozen_fraction: of the layers before the head, from the first one on (`retinue.transfer.freezing`);
            1 leaves the head alone to train.
        lr_factor: learning rate of the layers before the head, over that of the head (optimizer.lr).
        block_decay: what that rate is multiplied by for each block further from the head; 1: nothing.
            (Howard and Ruder 2018, "Universal Language Model Fine-tuning", section 3.2, use 1/2.6.)
        unfreeze_every: after each this many epochs the last frozen block is trained, too (ibid., section 3.3);
            None: what is frozen stays frozen.
        prefix_cache: "float32" or "float16" computes what the frozen layers give once, where that is the same in every
            epoch, and keeps it on disk (`retinue.transfer.prefix_cache`); "off" computes it in every epoch.
        prefix_cache_gb: largest size of all that is kept, 10⁹ bytes.
    """

    RELATIONS = (_something_is_frozen,)

    name: str
    frozen_fraction: float = field(metadata=allowed(ge=0, le=1))
    lr_factor: float = field(metadata=allowed(gt=0, le=1))
    block_decay: float = field(metadata=allowed(gt=0, le=1))
    unfreeze_every: int | None = field(metadata=allowed(ge=1, most=1_000_000))
    prefix_cache: str = field(metadata=allowed(choices=CACHES))
    prefix_cache_gb: float = field(metadata=allowed(gt=0, most=1_000_000))

    @property
    def transfers(self) -> bool:
        """Whether the scenario makes sense with initial weights only."""
        return self.frozen_fraction > 0 or self.lr_factor < 1 or self.block_decay < 1
