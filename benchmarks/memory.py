"""Peak memory of acquire, preprocess and train at 2,000 and at 20,000 images of one size."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.pairing import Row
from retinue.pipeline.composition import project_root
from retinue.pipeline.numbers import figure, significant

FEW, MANY, SIZE = 2_000, 20_000, 64
SETTINGS = [
    *("source=image_folder", "source.path=photos", "preprocess=gray32", f"preprocess.image_size={SIZE}"),
    *("train.max_epochs=2", "tracking=off", "trainer.progress_bar=false"),
]


def measure(few_images: int = FEW, many_images: int = MANY) -> list[Row]:
    """A row for each of the three stages: peak resident memory of its largest process, MiB."""
    few, many = _peaks(few_images), _peaks(many_images)
    return [
        Row(
            f"peak memory of {stage}, {figure(many_images)} against {figure(few_images)} images",
            f"{significant(many[stage], 3)} MiB",
            f"{significant(few[stage], 3)} MiB",
            many[stage] / few[stage],
            many[stage] / few[stage],
            many[stage] / few[stage],
            "≤ 1.1",
        )
        for stage in ("acquire", "preprocess", "train")
    ]


def _peaks(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder)
        for name in ("conf", "src"):
            shutil.copytree(project_root() / name, checkout / name)
        shutil.copy(project_root() / "dvc.yaml", checkout)
        _photos(checkout / "photos", count)
        return {stage: _peak(checkout, stage) for stage in ("acquire", "preprocess", "augment", "train")}


def _photos(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for label in range(2):
        (folder / str(label)).mkdir(parents=True)
    for i in range(count):
        label = i % 2
        image = random.integers(0, 128, (SIZE, SIZE), dtype=np.uint8) + np.uint8(100 * label)
        cv2.imwrite(str(folder / str(label) / f"{i:06d}.png"), image)


def _peak(checkout: Path, stage: str) -> float:
    """MiB of the largest process of a stage, as the operating system accounts for it."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"retinue.stages.{stage}", *SETTINGS],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": "src"},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{stage} failed with status {status}; its message stands above")
    return usage.ru_maxrss / 1024
