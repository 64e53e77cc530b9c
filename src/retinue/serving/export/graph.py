"""The network with all that stands around it in a bundle, as one graph: from stored images to decisions."""

import copy

import torch
from torch import nn

from retinue.bundle import Bundle
from retinue.pipeline.artifacts import DecisionRule
from retinue.pipeline.errors import ModelError
from retinue.pipeline.settings import first_line
from retinue.serving.export.outputs import GraphOutputs


class DecidingNetwork(nn.Module):
    """Normalisation, network, temperature and operating point of a bundle as one module.

    Args:
        bundle: its network is copied, in eval mode and without gradients.
    """

    def __init__(self, bundle: Bundle):
        super().__init__()
        self.network = copy.deepcopy(bundle.network).cpu().eval().requires_grad_(False)
        self.unusualness = copy.deepcopy(bundle.unusualness)
        self._preprocessing = bundle.preprocessing
        self._decision = bundle.decision

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`GraphOutputs`, as a plain tuple, of `images` uint8 (N, image_size, image_size, channels)."""
        logits, head_inputs = self.network.with_head_inputs(self._preprocessing.normalise(images))
        decided = decided_in_graph(logits.float(), self._decision)
        if self.unusualness is None:
            unknown = torch.full_like(logits[:, 0], torch.nan, dtype=torch.float32)
            return tuple(GraphOutputs(logits.float(), *decided, unknown, unknown))
        return tuple(GraphOutputs(logits.float(), *decided, *self.unusualness(head_inputs)))


def decided_in_graph(logits: torch.Tensor, decision: DecisionRule) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `metrics.deciding.decide` computes, as operations of torch that a graph can hold; in float64, as there.

    Args:
        logits: float32 (N, K), or (N, 1) for two classes.
        decision: temperature, operating point, costs, abstention.

    Returns:
        probs float64 (N, num_classes), predicted int64 (N,), abstained bool (N,).
    """
    calibrated = logits.double() / decision.temperature
    if logits.shape[1] == 1:
        probs = torch.softmax(torch.cat([-calibrated / 2, calibrated / 2], dim=1), dim=1)
        predicted = (calibrated[:, 0] >= decision.log_odds).long()
    else:
        probs = torch.softmax(calibrated, dim=1)
        if decision.costs is None:
            predicted = probs.argmax(dim=1)
        else:
            predicted = (probs @ torch.tensor(decision.costs, dtype=torch.float64)).argmin(dim=1)
    least = 0.0 if decision.reject_below is None else decision.reject_below
    return probs, predicted, probs.gather(1, predicted.unsqueeze(1)).squeeze(1) < least


def traced(bundle: Bundle) -> torch.export.ExportedProgram:
    """The graph of a bundle for any number of images of the network's size; see `follow`."""
    data = bundle.dataset
    shape = (data.image_size, data.image_size, data.channels)
    return follow(DecidingNetwork(bundle), shape, {0: torch.export.Dim("batch", min=1)})


def follow(
    network: nn.Module, shape: tuple[int, int, int], free: dict[int, torch.export.Dim]
) -> torch.export.ExportedProgram:
    """The graph of `network`, without paths of this machine.

    Args:
        network: takes uint8 (N, H, W, C).
        shape: H, W and C of an example.
        free: the dimensions that are not those of the example, by place.

    Raises:
        ModelError: torch cannot follow the network.
    """
    example = torch.zeros(2, *shape, dtype=torch.uint8)
    try:
        program = torch.export.export(network.eval(), (example,), dynamic_shapes=(free,))
    except RuntimeError as error:  # what torch raises for control flow and shapes that it cannot follow
        raise ModelError(
            f"torch.export cannot follow this network ({first_line(error)}). Expected one whose layers do not depend "
            "on the values of an image. Choose another architecture."
        ) from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # names files of this machine
    return program
