"""Where the outputs of frozen layers are kept, and why not where they are not."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L

from retinue.engine.loading import Batches, StoredImages
from retinue.engine.store import RowFile
from retinue.engine.writing import writing
from retinue.images.preprocessing import Preprocessing
from retinue.models.network import Network
from retinue.pipeline.files import replacing
from retinue.pipeline.numbers import figure
from retinue.pipeline.settings import fingerprint
from retinue.transfer.freeze_check import digest
from retinue.transfer.freezing import Freezing
from retinue.transfer.prefix_cache.cut import prefix_of
from retinue.transfer.prefix_cache.features import FOLDER, FrozenPrefix, feature_shape, make_room
from retinue.transfer.scenario import Scenario


class PrefixCache:
    """Outputs of the frozen layers of a network for all images of a training.

    Args:
        network: frozen as `freezing` says, at least one block of it.
        freezing: what is frozen.
        scenario: says whether outputs are kept, as which type, and how much of them.
        preprocessing: normalises the images.
        images: name of a file without its suffix -> its images, as they are stored.
        channels_last: memory layout of the images.
    """

    def __init__(
        self,
        network: Network,
        freezing: Freezing,
        scenario: Scenario,
        preprocessing: Preprocessing,
        images: Mapping[str, StoredImages],
        *,
        channels_last: bool,
    ):
        self._network, self._freezing, self._scenario = network, freezing, scenario
        self._preprocessing, self._images, self._channels_last = preprocessing, images, channels_last
        self._prefix = prefix_of(network, freezing)
        self._shape = feature_shape(self._prefix, preprocessing.channels, preprocessing.image_size)

    @property
    def size_bytes(self) -> int:
        """Size of all outputs together."""
        row = int(np.prod(self._shape)) * np.dtype(self._scenario.prefix_cache).itemsize
        return sum(map(len, self._images.values())) * row

    def why_not_cached(self, *, augments: bool, mixes: bool = False) -> str:
        """Why the outputs are not kept; empty where they are.

        Args:
            augments: whether the images of every epoch are others.
            mixes: whether each is mixed with another one.
        """
        if self._scenario.prefix_cache == "off":
            return "transfer.prefix_cache is off"
        if augments:
            return "augmentation draws anew in every epoch"
        if mixes:
            return "images are mixed anew in every epoch"
        if self._scenario.unfreeze_every is not None:
            return "frozen layers are unfrozen later"
        limit_gb = self._scenario.prefix_cache_gb
        if self.size_bytes > limit_gb * 1e9:
            size_gb = figure(self.size_bytes / 1e9, 1)
            return f"it would take {size_gb} GB, transfer.prefix_cache_gb is {figure(limit_gb, 1)}"
        return ""

    def folder(
        self,
        inputs: Mapping[str, Any],
        make_trainer: Callable[[], L.Trainer],
        make_batches: Callable[[StoredImages], Batches],
    ) -> Path:
        """The folder with an .npy file for each entry of `images`; the outputs are computed where it is not there yet.

        Args:
            inputs: what else the outputs depend on: settings, and digests of code and images.
            make_trainer: makes the Trainer that computes them.
            make_batches: makes its loaders.
        """
        folder = FOLDER / self._key(inputs)
        if folder.exists():
            folder.touch()  # what was used longest ago goes first
            return folder
        trainer = make_trainer()
        if trainer.is_global_zero:
            make_room(self.size_bytes, self._scenario.prefix_cache_gb)
        dtype = self._scenario.prefix_cache
        with replacing(folder, leader=trainer.is_global_zero) as unfinished:
            module = FrozenPrefix(self._prefix, self._preprocessing, dtype, channels_last=self._channels_last)
            for name, stored in self._images.items():
                path = unfinished / f"{name}.npy"
                if trainer.is_global_zero:
                    RowFile.create(path, (len(stored), *self._shape), dtype).close()
                with writing(trainer, {"features": partial(RowFile, path, writable=True)}):
                    trainer.predict(module, make_batches(stored), return_predictions=False)
        trainer.strategy.barrier("features in place")
        return folder

    def _key(self, inputs: Mapping[str, Any]) -> str:
        """A hash of all that the outputs are a function of."""
        tensors = self._network.state_dict()
        frozen = [(name, digest(t)) for name, t in tensors.items() if name.rpartition(".")[0] in self._network.frozen]
        kept_as = [self._channels_last, self._scenario.prefix_cache]
        return fingerprint({**inputs, "end": self._freezing.end, "frozen": frozen, "kept_as": kept_as})
