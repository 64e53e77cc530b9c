"""The recipe experiment=hymenoptera on real photographs with published weights; skips where they are not."""

import json
from pathlib import Path

import numpy as np
import pytest

from project import Project


@pytest.mark.slow
@pytest.mark.parametrize(("model", "auc", "accuracy"), [("squeezenet1_0", 0.948, 0.895), ("mobilenet_v2", 0.992, 0.96)])
def test_a_frozen_network_tells_ants_from_bees(
    model: str, auc: float, accuracy: float, project: Project, extras: Path
) -> None:
    photos, weights = extras / "data/hymenoptera", extras / f"weights/{model}_imagenet.pth"
    start = (f"model={model}", "weights=file", f"weights.path={weights}")
    if model == "squeezenet1_0":  # the other one takes all of the recipe
        start += ("baseline.methods=[]", "explain.measured_images=0", "explain.nearest_images=0")
    project.compose("experiment=hymenoptera", f"source.path={photos}", *start, "tracking=off")
    project.repro()
    metrics = json.loads((project.path / "evaluation/metrics.json").read_text())
    assert metrics["num_images"] == 153  # the val folder, used as test
    # Sums rounded by another kind of processor may turn an image or two.
    assert metrics["auc_score"] >= auc - 0.005
    assert metrics["accuracy_score"] >= accuracy - 2 / metrics["num_images"]
    transfer = json.loads((project.path / "models/transfer.json").read_text())
    assert transfer["prefix_cache"] == "float32"
    (bad,) = json.loads((project.path / "data/raw/quarantine.json").read_text())
    assert bad["image_id"] == "train/ants/imageNotFound.gif"
    assert "GIF" in bad["reason"]
    assert bad["image_id"] in (project.path / "report/index.html").read_text("utf-8")
    gallery = json.loads((project.path / "explanations/gallery.json").read_text())
    maps = np.load(project.path / "explanations/maps.npy", allow_pickle=False)
    assert gallery["applicable"]
    assert len(maps) == len(gallery["images"]) >= 12
    assert (maps.max(axis=(1, 2)) > 0.5).all()
