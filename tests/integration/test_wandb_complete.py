"""Four pipeline runs as DVC experiments, with the real W&B client and a local server."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wandb_complete
import wandb_server
from project import Project

RATES = {"online-1": 0.001, "online-2": 0.004, "offline-1": 0.002, "offline-2": 0.008}
SHORT = ("train.max_epochs=2", "explain.images_per_outcome=1")


@pytest.fixture
def server() -> Iterator[wandb_server.Server]:
    with wandb_server.serving() as server:
        yield server


def variables(project: Project, server: wandb_server.Server) -> dict[str, str]:
    """A user with a key, whose run folders outlive the temporary checkouts of the experiments."""
    account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": wandb_server.API_KEY}
    return {**account, "WANDB_DIR": str(project.path / ".cache"), "WANDB_ERROR_REPORTING": "false"}


def sync(project: Project, server: wandb_server.Server, pattern: str) -> None:
    """`wandb sync` of the run folders called `pattern`."""
    folders = [str(folder) for folder in sorted((project.path / ".cache/wandb").glob(pattern))]
    assert folders
    command = [sys.executable, "-m", "wandb", "sync", "--no-skip-online", *folders]
    done = project.run(*command, **variables(project, server))
    assert "error" not in done.stderr.lower(), done.stderr


@pytest.mark.slow
def test_four_experiments_are_complete_on_the_server(finished: Project, tmp_path: Path, server: wandb_server.Server):
    project = finished.copy(tmp_path / "project")
    for name, rate in RATES.items():
        overrides = [*SHORT, f"optimizer.lr={rate}", f"tracking={name.partition('-')[0]}"]
        sets = [part for override in overrides for part in ("--set-param", override)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *sets]
        project.run(*command, **variables(project, server), RETINUE_SWEEP="rates")
    online = wandb_complete.expected(project.path, ["online-1", "online-2"])
    wandb_complete.check_complete(server, online, sweep="rates")

    sync(project, server, "offline-run-*")
    everyone = wandb_complete.expected(project.path)
    assert [each.experiment.name for each in everyone] == sorted(RATES)
    wandb_complete.check_complete(server, everyone, sweep="rates")

    with wandb_server.serving() as another:
        sync(project, another, "run-*")
        wandb_complete.check_complete(another, online, sweep="rates", artifacts=False)

    lost = next(run for run in server.runs.values() if run.job_type == "train")
    lost.stream["wandb-history.jsonl"].popitem()
    lost.stream["wandb-history.jsonl"] = dict(list(lost.stream["wandb-history.jsonl"].items())[1:])
    with pytest.raises(AssertionError):
        wandb_complete.check_complete(server, everyone, sweep="rates")
    shutil.rmtree(project.path)
