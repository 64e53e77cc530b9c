"""Batch normalisation over the images of all ranks, as one process normalises them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class SharedBatchNorm(TorchFunctionMode):
    """Within the block, batch norm that trains takes its statistics from the images of all ranks.

    torch's `SyncBatchNorm` does so on accelerators only, and has to be put in the place of each layer, which loses what
    a subclass adds (timm's activations). What is overridden here is the function that all these layers call.

    Args:
        counts: whether the images of this rank count; False where they only keep it in step with the others.
    """

    def __init__(self, *, counts: bool):
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        """`torch.nn.functional.batch_norm`: Ioffe and Szegedy 2015, algorithm 1, over the batches of all ranks."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        values = input if input.dtype == torch.float64 else input.float()  # sums of bf16 and fp16 lose the small terms
        dims, shape = [0, *range(2, input.ndim)], (1, -1, *[1] * (input.ndim - 2))
        counted = float(self._counts)
        sums = values.sum(dims) * counted
        count = sums.new_tensor([counted * input.numel() / input.shape[1]])
        *_, total = totals = _sum_over_ranks(torch.cat([sums, count]))
        mean = totals[:-1] / total
        centred = values - mean.view(shape)
        var = _sum_over_ranks(centred.square().sum(dims) * counted) / total
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((var * total / (total - 1)).to(running_var.dtype), momentum)
        normalised = centred * torch.rsqrt(var + eps).view(shape)
        if weight is not None:
            normalised = normalised * weight.view(shape)
        if bias is not None:
            normalised = normalised + bias.view(shape)
        return normalised.to(input.dtype)


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks, on each of them; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    return _SumOverRanks.apply(values)
