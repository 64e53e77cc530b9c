"""Several explainers at once: found by name, and with one forward pass for all that look at the same layer."""

import importlib
import inspect
import pkgutil
from collections.abc import Sequence

import torch
from torch import nn

from retinue import explainers
from retinue.explainers.explainer import Explained, Explainer, undisturbed
from retinue.explainers.feature_maps import FeatureMapExplainer, TargetPass
from retinue.pipeline.errors import SettingsError, unknown


def explainer_named(name: str, *, where: str) -> Explainer:
    """The explainer of the file src/retinue/explainers/<name>.py, with the settings that its class has by itself.

    Args:
        name: of the file, as of the choice conf/explain/<name>.yaml.
        where: the setting that names it, for the error.

    Raises:
        SettingsError: no such file, or no explainer in it.
    """
    found = _explainer_in(name) if name in _modules() else None
    if found is None:
        available = [module for module in _modules() if _explainer_in(module) is not None]
        raise SettingsError(f"{where}: {unknown('explainer', name, available)}")
    return found()


def explainer_file(explainer: Explainer) -> str:
    """The name of the file that an explainer stands in, without its ending."""
    return type(explainer).__module__.rpartition(".")[2]


def maps_of(
    explainers: Sequence[Explainer], network: nn.Module, images: torch.Tensor, classes: torch.Tensor | int | None = None
) -> list[Explained]:
    """The maps of a batch by each of several explainers; those of one feature map share its forward pass.

    Args:
        explainers: made ready for the network with `located`, so that their layers are known.
        network, images, classes: as for `Explainer.maps`.

    Raises:
        NotApplicable, ModelError, SettingsError: see `Explainer.maps`.
    """
    passes: dict[str, TargetPass] = {}
    found = []
    with undisturbed(network, images.device):
        for explainer in explainers:
            if not isinstance(explainer, FeatureMapExplainer) or explainer.target_layer is None:
                found.append(explainer.maps(network, images, classes))
                continue
            layer = explainer.target_layer
            if layer not in passes:
                passes[layer] = TargetPass(network, layer, images, classes, explainer.label)
            found.append(explainer.explained(passes[layer]))
    return found


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(explainers.__path__) if not module.ispkg]


def _explainer_in(name: str) -> type[Explainer] | None:
    """The class in the file of an explainer; None in a file that holds something else."""
    module = importlib.import_module(f"{explainers.__name__}.{name}")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Explainer) and not inspect.isabstract(value)
    ]
    return next((value for value in classes if value.__module__ == module.__name__), None)
