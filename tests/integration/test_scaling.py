"""trainer=ddp: several processes write what one writes, and end together when one of them cannot go on."""

import hashlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from project import Project

SHORT = ("tracking=off", "train.max_epochs=2", "train.patience=null", "explain.images_per_outcome=1")
NORMALISED = ("model=pattern", "model.pattern=INPUT => [CONV => RELU => BN => POOL]*2 => FC => RELU => FC")


def digests(project: Project, *folders: str) -> dict[str, str]:
    """SHA-256 of every out but the model, by path."""
    files = (path for name in folders for path in (project.path / name).rglob("*") if path.is_file())
    return {str(p.relative_to(project.path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


STAGES = ("acquire", "preprocess", "augment", "calibrate", "baseline", "evaluate", "explain")
OUTS = ("data/raw", "data/processed", "data/augmented", "calibration", "baselines", "evaluation", "explanations")


@pytest.mark.slow
def test_six_stages_write_the_bytes_of_one_process(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    settings = (
        *("tracking=off", "explain.images_per_outcome=1", "explain.batch_size=7", "evaluate.batch_size=50"),
        "calibrate.batch_size=50",
    )
    for stage in STAGES:
        project.stage(stage, *settings)
    alone = digests(project, *OUTS)
    for name in OUTS:
        shutil.rmtree(project.path / name)
    for stage in STAGES:
        project.stage(stage, *settings, "trainer=ddp")
    assert digests(project, *OUTS) == alone
    assert len(alone) > 25


@pytest.fixture
def photos(project: Project) -> Project:
    """A checkout beside small photographs of two classes, two files of which cannot be used."""
    for number in range(70):
        path = project.path / "photos" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (12 + number % 5, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (project.path / "photos/a/note.png").write_text("not an image")
    (project.path / "photos/b/cut.png").write_bytes(path.read_bytes()[:100])
    return project


PHOTOS = (
    *("source=image_folder", "source.path=photos", "source.max_bad_fraction=0.5", "tracking=off"),
    *("preprocess=rgb224", "preprocess.image_size=8", "preprocess.resize=8", "preprocess.statistics=train"),
    *("augment.copies_per_image=1", "model=mlp"),  # a network that takes images so small
)


def data_stages(project: Project, *overrides: str) -> dict[str, str]:
    for stage in ("acquire", "preprocess", "augment"):
        project.stage(stage, *PHOTOS, *overrides)
    return digests(project, "data")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [3])
def test_shards_of_photographs_with_files_that_cannot_be_used(devices: int, photos: Project) -> None:
    """72 files are three batches: one rank has more than another, or one has none."""
    alone = data_stages(photos)
    assert b"note.png" in (photos.path / "data/raw/quarantine.json").read_bytes()
    assert data_stages(photos, "trainer=ddp", f"trainer.devices={devices}", "trainer.num_threads=1") == alone


@pytest.mark.slow
def test_more_ranks_than_batches(photos: Project) -> None:
    for path in (photos.path / "photos").rglob("*.png"):
        if path.stem not in ("00", "01", "02", "03", "04", "05"):
            path.unlink()
    photos.stage("acquire", *PHOTOS)
    alone = digests(photos, "data")
    photos.stage("acquire", *PHOTOS, "trainer=ddp", "trainer.devices=4", "trainer.num_threads=1")
    assert digests(photos, "data") == alone


@pytest.mark.slow
def test_one_image_explained_and_one_batch_evaluated_by_three_ranks(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    settings = ("tracking=off", "explain.images_per_outcome=0", "explain.confident_errors=1")
    settings += ("explain.images_per_cell=0", "evaluate.batch_size=999")
    for stage in ("evaluate", "explain"):
        project.stage(stage, *settings)
    alone = digests(project, *OUTS)
    for stage in ("evaluate", "explain"):
        project.stage(stage, *settings, "trainer=ddp", "trainer.devices=3")
    assert digests(project, *OUTS) == alone
    assert np.load(project.path / "explanations/maps.npy").shape[0] == 1


@pytest.mark.slow
def test_what_one_rank_cannot_read_ends_all_with_one_message(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    manifest = project.path / "data/raw/manifest.csv"
    lines = manifest.read_text().splitlines(keepends=True)
    for number in (40, 300):  # batches of 32 go to the ranks in turn: the second and, later, the tenth
        fields = lines[1 + number].split(",")
        lines[1 + number] = ",".join([*fields[:4], "0" * 64, *fields[5:]])
    manifest.write_text("".join(lines))
    before = digests(project, "data")
    result = project.stage("preprocess", "tracking=off", "trainer=ddp", check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: stage preprocess: 0040: its bytes are not those of data/raw/manifest.csv")
    assert len(result.stderr.splitlines()) == 1
    assert digests(project, "data") == before
    assert not list(project.path.glob("data/*.partial"))


@pytest.mark.slow
def test_a_training_that_diverges_says_so_once(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    before = digests(project, "models")
    result = project.stage("train", *SHORT, "trainer=ddp", "optimizer=sgd", "optimizer.lr=1e6", check=False)
    assert result.returncode == 1
    assert result.stderr.count("Training has diverged") == 1
    assert "Traceback" not in result.stderr
    assert digests(project, "models") == before


def trained(project: Project, *overrides: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The history, and the weights of the best epoch."""
    project.stage("train", *SHORT, *overrides)
    history = np.loadtxt(project.path / "models/history.csv", delimiter=",", skiprows=1)
    return history, load_file(project.path / "models/weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "tolerance"),
    [
        # In float64 nothing but the order of sums is left between them: batch norm, class weights, smoothing, clipping,
        # and one image that is left over and joins the last step.
        (
            (
                *NORMALISED,
                *("train.precision=64-true", "train.batch_size={one_left}", "train.class_weights=balanced"),
                *("train.label_smoothing=0.1", "train.gradient_clip_norm=0.5", "optimizer=sgd"),
            ),
            1e-9,
        ),
        # A last step with two images for three ranks.
        (
            (
                *NORMALISED,
                "train.precision=64-true",
                "train.batch_size={two_left}",
                "optimizer=sgd",
                "trainer.devices=3",
            ),
            1e-9,
        ),
    ],
    ids=["float64", "three ranks"],
)
def test_two_processes_train_as_one(
    overrides: tuple[str, ...], tolerance: float, finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "project")
    count = len((project.path / "data/processed/train/manifest.csv").read_text().splitlines()) - 1
    one, two = (next(size for size in range(count // 2, 0, -1) if count % size == left) for left in (1, 2))
    overrides = tuple(each.replace("{one_left}", str(one)).replace("{two_left}", str(two)) for each in overrides)
    history, weights = trained(project, *(each for each in overrides if not each.startswith("trainer.devices")))
    shared_history, shared_weights = trained(project, "trainer=ddp", *overrides)
    np.testing.assert_allclose(shared_history, history, rtol=tolerance)
    for name, values in weights.items():
        np.testing.assert_allclose(shared_weights[name], values, rtol=0, atol=tolerance * max(1, np.abs(values).max()))


@pytest.mark.slow
def test_an_image_that_is_left_over_trains_with_two_processes_as_with_one(photos: Project) -> None:
    """Batch norm over single values has no variance of one image, and one is left of all by steps of all but one."""
    data_stages(photos)
    count = len((photos.path / "data/processed/train/manifest.csv").read_text().splitlines()) - 1
    count += len((photos.path / "data/augmented/manifest.csv").read_text().splitlines()) - 1
    own = ("model=pattern", "model.pattern=INPUT => FC => BN => RELU => FC", "train.precision=64-true")
    settings = (*PHOTOS, *SHORT, *own, f"train.batch_size={count - 1}")
    photos.stage("train", *settings)
    weights = load_file(photos.path / "models/weights.safetensors")
    history = np.loadtxt(photos.path / "models/history.csv", delimiter=",", skiprows=1)
    photos.stage("train", *settings, "trainer=ddp")
    shared = np.loadtxt(photos.path / "models/history.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(shared, history, rtol=1e-9)
    for name, values in load_file(photos.path / "models/weights.safetensors").items():
        np.testing.assert_allclose(values, weights[name], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_step_needs_an_image_for_each_process(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    result = project.stage("train", *SHORT, "trainer=ddp", "train.batch_size=1", check=False)
    assert result.returncode == 2
    assert "train.batch_size: got 1, expected at least one image for each of the 2 processes." in result.stderr


@pytest.mark.slow
def test_the_pipeline_on_two_processes(project: Project, tmp_path: Path) -> None:
    """`dvc repro` as a user runs it: the data to the byte, the training to rounding, the rest to the byte again."""
    alone = project.copy(tmp_path / "alone")
    # In float32 every sum is rounded, in another order. Adam divides the rounding of a gradient near 0 by itself, which
    # makes steps of it on some processors; SGD leaves it as small as it is.
    steady = ("optimizer=sgd",)
    alone.compose(*SHORT, *steady)
    alone.repro()
    project.compose(*SHORT, *steady, "trainer=ddp")
    project.repro("augment")
    project.repro("train")
    assert digests(project, "data") == digests(alone, "data")
    history, shared = (
        np.loadtxt(each.path / "models/history.csv", delimiter=",", skiprows=1) for each in (alone, project)
    )
    np.testing.assert_allclose(shared, history, rtol=1e-3)
    for name in ("models", "baselines", "evaluation", "explanations"):
        shutil.rmtree(project.path / name, ignore_errors=True)
    shutil.copytree(alone.path / "models", project.path / "models")
    project.run(sys.executable, "-m", "dvc", "commit", "--force", "train")
    project.repro("explain")
    assert digests(project, *OUTS) == digests(alone, *OUTS)


@pytest.mark.slow
def test_processes_that_slurm_starts(finished: Project, tmp_path: Path) -> None:
    """What `srun` gives each task, on one machine that stands for two nodes; only the first holds the lock."""
    project = finished.copy(tmp_path / "project")
    alone = digests(project, *OUTS)
    project.compose(*SHORT, "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "retinue.stages.evaluate"],
            cwd=project.path,
            env=project.environment(
                DVC_STAGE="evaluate",
                **{f"SLURM_{key}": value for key, value in slurm.items()},
                MASTER_PORT=port,
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        for slurm in (
            {"NTASKS": "2", "NNODES": "2", "NTASKS_PER_NODE": "1", "JOB_ID": "1", "NODELIST": "127.0.0.1"}
            | {"PROCID": str(rank), "NODEID": str(rank), "LOCALID": "0", "JOB_NAME": "retinue"}
            for rank in range(2)
        )
    ]
    outputs = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    count = len((project.path / "data/processed/test/manifest.csv").read_text().splitlines()) - 1
    assert f"test split, {count} images" in outputs[0]
    assert outputs[1] == ""
    assert digests(project, *OUTS) == alone
