"""Fixtures of all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import settings

from project import Project, end_forkserver

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[1]

# Two workers on two cores: one thread each, and threads that wait must not spin. torch reads both when it is imported.
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if IS_WORKER:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

LARGE = {
    *("alexnet", "densenet121", "efficientnet_b0", "googlenet", "inception_naive", "mobilenet_v1", "mobilenet_v2"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "squeezenet1_0", "vgg16", "vgg19", "xception"),
    "zfnet",
}
"""Networks that take long, test by test; all others, new ones, too, are in the default run."""

CHEAP = {"test_parameter_counts.py"}
"""Files in which they take none."""

COSTLY = {"finished", "browser"}
"""Fixtures that take long: a run of the whole pipeline, a browser with pages of real results."""

# A shared machine has no fixed speed, so no deadline; continuous integration must not fail by chance.
settings.register_profile("here", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("here")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what needs a `COSTLY` fixture or runs a network of `LARGE`, wherever it is parametrised with it."""
    for item in items:
        if COSTLY & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.slow)
        call = getattr(item, "callspec", None)
        values = {str(value).removeprefix("model=") for value in call.params.values()} if call else set()
        if values & LARGE and item.path.name not in CHEAP:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def extras() -> Path:
    """Real photographs and published weights, which are not part of the project; without them the test skips."""
    folder = Path(os.environ.get("RETINUE_EXTRAS", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder} holds no extra data; set RETINUE_EXTRAS to a folder with data/ and weights/")
    return folder


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A real browser."""
    from browser import started

    with started() as chromium:
        yield chromium


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A checkout without results."""
    return Project.create(tmp_path / "project")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """What a stage in this process has set does not stay."""
    yield
    if IS_WORKER and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _forkserver() -> Iterator[None]:
    yield
    end_forkserver()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """A checkout in which the whole pipeline has run on digits, with a short training. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("finished")
    if worker_id == "master":
        return run_pipeline(folder / "project")
    shared = tmp_path_factory.getbasetemp().parent / "finished"  # of all workers: one runs it, each has a copy
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            run_pipeline(folder / "project").copy(shared)
            return Project(folder / "project")
    return Project(shared).copy(folder / "project")


def run_pipeline(path: Path) -> Project:
    project = Project.create(path)
    project.compose("train.max_epochs=3", "tracking=off", "explain.images_per_outcome=1")
    project.repro()
    project.commit("results")
    return project
