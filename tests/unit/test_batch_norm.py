"""Batch norm over two processes is torch's over all their images: outputs, gradients, running statistics."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

RANK = """
import sys
import torch
import torch.distributed as dist
from retinue.training.batch_norm import SharedBatchNorm

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt", weights_only=True)
found = {}
ROWS = {"shared": slice(rank, None, 2), "spare": slice(0, 5) if rank == 0 else slice(0, 1)}
for training, case, rows in ((training, *item) for training in (True, False) for item in ROWS.items()):
    norm = torch.nn.BatchNorm2d(3, momentum=0.3, dtype=torch.float64).train(training)
    norm.load_state_dict(given["norm"])
    images = given["images"][rows].clone().requires_grad_()
    counts = case == "shared" or rank == 0
    with SharedBatchNorm(counts=counts):
        outputs = norm(images)
    ((outputs * given["weights"][rows]).sin().sum() * counts).backward()
    for parameter in norm.parameters():
        dist.all_reduce(parameter.grad)
    found[case, training] = {
        **norm.state_dict(), "outputs": outputs.detach(), "images": images.grad,
        "weight.grad": norm.weight.grad, "bias.grad": norm.bias.grad,
    }
torch.save(found, f"{folder}/rank-{rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_normalise_as_one(tmp_path: Path, root: Path) -> None:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3, momentum=0.3, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    images, weights = torch.randn(2, 5, 3, 4, 6, dtype=torch.float64) * 2 + 1
    state = {name: tensor.detach().clone() for name, tensor in norm.state_dict().items()}
    torch.save({"norm": state, "images": images, "weights": weights}, tmp_path / "given.pt")
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)], env=environment) for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    found = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    for training in (True, False):
        norm.load_state_dict(state)
        norm.zero_grad()
        inputs = images.clone().requires_grad_()
        outputs = norm.train(training)(inputs)
        (outputs * weights).sin().sum().backward()
        assert inputs.grad is not None
        expected = {**norm.state_dict(), "weight.grad": norm.weight.grad, "bias.grad": norm.bias.grad}
        for case in ("shared", "spare"):
            for name, tensor in expected.items():
                for rank in range(2):
                    close(found[rank][case, training][name], tensor)
        for name, tensor in {"outputs": outputs.detach(), "images": inputs.grad}.items():
            for rank in range(2):
                close(found[rank]["shared", training][name], tensor[rank::2])
            close(found[0]["spare", training][name], tensor)
        assert not found[1]["spare", training]["images"].any()


def close(found: torch.Tensor, expected: torch.Tensor | None) -> None:
    assert expected is not None
    np.testing.assert_allclose(found, expected.detach(), atol=1e-12)
