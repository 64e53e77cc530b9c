"""A sweep of two trials, with the real W&B client and a local server."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wandb_complete
import wandb_server
from project import Project

SWEEP = (
    *("optimizer.lr=0.001,0.002", "sweep.name=rates", "sweep.workers=2"),
    *("train.max_epochs=2", "explain.images_per_outcome=1", "explain.measured_images=2"),
)


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


def run_sweep(project: Project, server: wandb_server.Server, tracking: str) -> list[wandb_complete.Expected]:
    """Two trials; their experiments."""
    command = (sys.executable, "-m", "retinue.cli", "sweep", *SWEEP, f"tracking={tracking}")
    project.run(*command, **variables(project, server))
    return wandb_complete.expected(project.path)


@pytest.mark.slow
def test_a_sweep_of_two_trials_is_complete_on_the_server(
    finished: Project, tmp_path: Path, server: wandb_server.Server
) -> None:
    """Online; offline and synced later; and what was online synced to another server."""
    project = finished.copy(tmp_path / "online")
    online = run_sweep(project, server, "online")
    assert [each.experiment.name for each in online] == [f"rates-{number}" for number in range(2)]
    wandb_complete.check_complete(server, online, sweep="rates")

    later = finished.copy(tmp_path / "offline")
    with wandb_server.serving() as another:
        offline = run_sweep(later, another, "offline")
        assert not another.runs
        assert [each.fingerprint for each in offline] == [each.fingerprint for each in online]
        sync(later, another, "offline-run-*")
        wandb_complete.check_complete(another, offline, sweep="rates")

    with wandb_server.serving() as another:
        sync(project, another, "run-*")
        wandb_complete.check_complete(another, online, sweep="rates", artifacts=False)

    lost = next(run for run in server.runs.values() if run.job_type == "train")
    lost.stream["wandb-history.jsonl"] = dict(list(lost.stream["wandb-history.jsonl"].items())[1:])
    with pytest.raises(AssertionError):
        wandb_complete.check_complete(server, online, sweep="rates")
