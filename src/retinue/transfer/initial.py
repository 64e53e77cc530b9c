"""The weights that the settings name, in a network."""

from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from retinue.bundle import read_bundle_document
from retinue.models.network import Network
from retinue.pipeline.artifacts import BUNDLE, Dataset
from retinue.pipeline.files import sha256
from retinue.sources.download import DownloadSettings
from retinue.transfer.weights import WeightsSettings, load_weights


def load_initial(
    network: Network, weights: WeightsSettings, limits: DownloadSettings, dataset: Dataset
) -> dict[str, Any]:
    """Loads the `weights` that are given into `network`; the head of a bundle where its classes are those of `dataset`.

    Args:
        network: changed in place.
        weights: with a path or an address.
        limits: of a download.
        dataset: the network is for.

    Returns:
        What the bundle of a training says of them.

    Raises:
        ModelError: they cannot be had, or do not fit.
    """
    path = weights.fetch(limits)
    source = read_bundle_document(path.with_name(BUNDLE.name)).dataset if weights.is_bundle else None
    report = load_weights(network, path, with_heads=source is None or source.classes == dataset.classes)
    rank_zero_only(print)(f"{path}: {report}")
    return {**({"source": source.name} if source else {}), "sha256": sha256(path), **report.document()}
