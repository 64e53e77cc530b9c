"""What a person sees while a stage runs counts epochs from 1."""

import pytest
import pytorch_lightning as L
import torch
from torch.utils.data import DataLoader

from retinue.engine.progress import EpochLines, RateBar


class Line(L.LightningModule):
    """One weight, fitted to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(1.0))

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        return (self.slope * batch["labels"]).square().mean()

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        self.log("val/error", torch.tensor(0.99997))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_bar_and_lines_count_epochs_from_one(capsys: pytest.CaptureFixture[str]) -> None:
    loader = DataLoader([{"labels": torch.tensor(1.0)}] * 2, batch_size=2)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[EpochLines(), RateBar()],
    )
    trainer.fit(Line(), loader, loader)
    said = "".join(capsys.readouterr())
    assert "Epoch 1:" in said
    assert "Epoch 2:" in said
    assert "Epoch 0" not in said
    assert "epoch   1/2  val/error 0.99997  " in said
