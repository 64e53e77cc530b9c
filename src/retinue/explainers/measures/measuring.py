"""All measures of some images at once: a row for each explainer and each reference map."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from retinue.explainers.explainer import Explainer, removing, undisturbed
from retinue.explainers.localisation import energy_score, pointing_score
from retinue.explainers.measures.faithfulness import faithfulness
from retinue.explainers.measures.randomisation import randomised_similarity
from retinue.explainers.measures.references import REFERENCES, reference_map
from retinue.explainers.measures.stability import stability

NOT_MEASURED = float("nan")


def measures_of_maps(
    explainers: Mapping[str, Explainer],
    network: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    masks: np.ndarray | None,
    rows: list[int],
) -> list[list[dict[str, Any]]]:
    """Measures explainers on a batch.

    Args:
        explainers: name -> one made ready for the network.
        network: its mode does not matter.
        images: float (N, C, H, W), normalised.
        targets: int64 (N,), the class that is explained.
        masks: bool (N, H, W) of what there is to be found; None where it is not known.
        rows: of the images in their store.

    Returns:
        For each image, for each explainer and then each of `REFERENCES`: the fields of `artifacts.MeasuredMap` besides
        those that say which image it is.
    """
    with undisturbed(network, images.device):
        columns = [_of_explainer(name, each, network, images, targets, masks) for name, each in explainers.items()]
        columns += [_of_reference(name, network, images, targets, masks, rows) for name in REFERENCES]
    return [list(each) for each in zip(*columns, strict=True)]


def _of_explainer(
    name: str,
    explainer: Explainer,
    network: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    masks: np.ndarray | None,
) -> list[dict[str, Any]]:
    with _with_count(network) as passed:
        maps = explainer.maps(network, images, targets).maps
    passes = sum(passed) / len(images)
    found = _of_maps(name, network, images, targets, maps, masks)
    similar = randomised_similarity(explainer, network, images, targets, maps).tolist()
    stable = stability(explainer, network, images, targets, maps).tolist()
    for row, (quarter, half, most, every), steady in zip(found, similar, stable, strict=True):
        row |= {"passes": passes, "stability_score": steady}
        row |= {"random_25_error": quarter, "random_50_error": half, "random_75_error": most, "random_error": every}
    return found


def _of_reference(
    name: str,
    network: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    masks: np.ndarray | None,
    rows: list[int],
) -> list[dict[str, Any]]:
    height, width = images.shape[-2:]
    maps = torch.from_numpy(np.stack([reference_map(name, (height, width), row) for row in rows])).to(images.device)
    missing = ("stability_score", "random_25_error", "random_50_error", "random_75_error", "random_error")
    unmeasured = {"passes": 0.0, **dict.fromkeys(missing, NOT_MEASURED)}
    return [row | unmeasured for row in _of_maps(name, network, images, targets, maps, masks)]


def _of_maps(
    name: str,
    network: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    maps: torch.Tensor,
    masks: np.ndarray | None,
) -> list[dict[str, Any]]:
    """What is measured of a map, whoever has drawn it."""
    areas = faithfulness(network, images, targets, maps)
    found = []
    for i, heat in enumerate(maps.cpu().numpy()):
        known = masks is not None and bool(masks[i].any())
        found.append(
            {
                "explainer": name,
                "empty": int(not heat.any()),
                "deletion_error": float(areas.deletion[i]),
                "insertion_score": float(areas.insertion[i]),
                "energy_score": energy_score(heat, masks[i]) if known and masks is not None else NOT_MEASURED,
                "pointing_score": pointing_score(heat, masks[i]) if known and masks is not None else NOT_MEASURED,
            }
        )
    return found


@contextmanager
def _with_count(network: nn.Module) -> Iterator[list[int]]:
    """How many images go through the network in each of its passes."""
    passed: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, given: passed.append(len(given[0])))
    with removing([handle]):
        yield passed
