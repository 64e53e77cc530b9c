"""`retinue sweep`: trials are DVC experiments, data stages are not run again, and nothing is lost when it is killed."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from project import Project

QUICK = (
    *("train.max_epochs=1", "tracking=off"),
    *("explain.images_per_outcome=1", "explain.measured_images=0", "explain.nearest_images=0"),
)
GRID = ("model=mlp", "optimizer.lr=0.003,0.01,0.03", "sweep.workers=2", "sweep.name=grid", *QUICK)
TWO = tuple(each.removesuffix(",0.03") for each in GRID)


def sweep(project: Project, *overrides: str, check: bool = True) -> str:
    """Runs a sweep; what it said."""
    return project.run(sys.executable, "-m", "retinue.cli", "sweep", *overrides, check=check).stdout


def table(project: Project, name: str = "grid") -> dict[str, Any]:
    """The table of a finished sweep."""
    return json.loads((project.path / ".cache" / "sweeps" / name / "table.json").read_text())


def experiments(project: Project) -> dict[str, str]:
    """Name -> commit of the DVC experiments."""
    listed = project.run("git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").stdout
    return dict(re.findall(r"^refs/exps/../.{38}/(\S+) (\S+)$", listed, re.MULTILINE))


def executed(project: Project, name: str = "grid") -> list[str]:
    """The stages that were executed, of all trials."""
    logs = (project.path / ".cache" / "sweeps" / name).glob("*/log.txt")
    return [stage for log in sorted(logs) for stage in re.findall(r"^Running stage '(\w+)'", log.read_text(), re.M)]


def state(project: Project) -> str:
    """What git says of the checkout: its files, its commit, its stashes."""
    commands = (("status", "--porcelain"), ("rev-parse", "HEAD"), ("stash", "list"))
    return "".join(project.run("git", *command).stdout for command in commands)


def left_running(project: Project) -> list[psutil.Process]:
    """Processes that work below the checkout."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(project.path):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def running_trials(sweep: int) -> list[psutil.Process]:
    """The trials that a sweep runs now: what its warm process forked, each the first of its own process group."""
    try:
        found = [each for each in psutil.Process(sweep).children() if "server.py" in " ".join(each.cmdline())]
        return [each for warm in found for each in warm.children() if os.getpgid(each.pid) == each.pid]
    except (psutil.NoSuchProcess, ProcessLookupError):
        return []


@pytest.fixture(scope="module")
def swept(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout in which the first two trials of `GRID` have run; what a sweep gives where nothing happens to it."""
    project = finished.copy(tmp_path_factory.mktemp("swept") / "project")
    sweep(project, *TWO)
    return project


@pytest.fixture
def done(finished: Project, tmp_path: Path) -> Project:
    """A copy of a checkout in which the pipeline has run."""
    return finished.copy(tmp_path / "project")


@pytest.mark.slow
def test_trials_are_experiments_of_their_own_checkouts(done: Project) -> None:
    """One of two trials fails; its log is shown, it is retried alone, and the best is applied without running."""
    before = state(done)
    overrides = ("model=lenet5", "optimizer.lr=0.01,1e9", "sweep.workers=2", "sweep.name=grid", *QUICK)
    result = done.run(sys.executable, "-m", "retinue.cli", "sweep", *overrides, "sweep.max_failure_rate=1", check=False)
    rows = {tuple(row["overrides"]): row for row in table(done)["trials"]}
    failed = [row for row in rows.values() if row["state"] == "failed"]
    assert result.returncode == 1
    assert failed
    assert all(row["overrides"][-1] in ("optimizer.lr=1000000000.0", "optimizer.lr=1e9") for row in failed)
    for row in failed:
        assert f"trial {row['trial']} failed: stage train: " in result.stdout
        assert (done.path / ".cache" / "sweeps" / "grid" / str(row["trial"]) / "log.txt").is_file()
    complete = [row for row in rows.values() if row["state"] == "complete"]
    assert set(experiments(done)) == {row["experiments"][0] for row in complete}
    assert set(executed(done)) == {
        "train",
        "calibrate",
        "evaluate",
        "explain",
        "report",
    }  # the data stages are those of the checkout
    assert state(done) == before
    assert left_running(done) == []

    retried = done.run(
        *(sys.executable, "-m", "retinue.cli", "sweep", *overrides, "sweep.max_failure_rate=1"),
        f"sweep.retry=[{failed[0]['trial']}]",
        check=False,
    )
    assert retried.stdout.count("failed: stage train") == 1 + len(failed)  # one was run, all are in the table
    best = table(done)["trials"][0]
    shown = json.loads(done.run(sys.executable, "-m", "dvc", "exp", "show", "--json").stdout)
    assert best["experiments"][0] in json.dumps(shown)
    done.run(sys.executable, "-m", "dvc", "exp", "apply", best["experiments"][0])
    history = (done.path / "models" / "history.csv").read_text().splitlines()
    row = dict(zip(history[0].split(","), history[1].split(","), strict=True))
    assert float(row["val_log_loss"]) == best["values"]["val/log_loss"]
    assert "Data and pipelines are up to date" in done.repro().stdout


@pytest.mark.slow
@pytest.mark.parametrize("victims", ["sweep", "two trials"])
def test_what_is_killed_is_taken_up_and_nothing_is_run_twice(done: Project, victims: str) -> None:
    before = state(done)
    process = done.start(sys.executable, "-m", "retinue.cli", "sweep", *GRID)
    assert process.stdout is not None
    if victims == "sweep":
        assert any(line.startswith("[1/3]") for line in process.stdout), "it ended before its first trial"
        process.kill()
        rest = process.stdout.read()
        assert process.wait() == -signal.SIGKILL, rest
    else:
        trials: list[psutil.Process] = []
        while len(trials) < 2:  # of three trials, two run at a time for certain only as long as none has finished
            assert process.poll() is None, "it ended with fewer trials at a time"
            trials = running_trials(process.pid)
        for trial in trials:
            trial.kill()
        rest = process.stdout.read()
        assert rest.count("killed by signal 9 (SIGKILL)") >= 2
        assert "started again" in rest
        assert process.wait() == 0, rest
    psutil.wait_procs(left_running(done), timeout=30)
    assert left_running(done) == []
    assert state(done) == before
    complete = {path.parent.name for path in (done.path / ".cache/sweeps/grid").glob("*/result.json")}
    logs = {name: (done.path / ".cache/sweeps/grid" / name / "log.txt").stat().st_mtime_ns for name in complete}

    sweep(done, *GRID)
    assert {name: (done.path / ".cache/sweeps/grid" / name / "log.txt").stat().st_mtime_ns for name in complete} == logs
    assert sorted(experiments(done)) == [f"grid-{number}" for number in range(3)]
    assert [row["state"] for row in table(done)["trials"]] == ["complete"] * 3
    assert state(done) == before
    done.repro()  # no lock is left


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_at_its_last_epoch(done: Project) -> None:
    overrides = ("optimizer.lr=0.002,0.003", "train.max_epochs=12", "tracking=off", "sweep.name=grid")
    log = done.path / ".cache" / "sweeps" / "grid" / "0" / "log.txt"
    process = done.start(sys.executable, "-m", "retinue.cli", "sweep", *overrides)
    while not (log.exists() and re.search(r"^epoch +5/12", log.read_text(), re.MULTILINE)):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    sweep(done, *overrides)
    resumed = re.search(r"^resuming after epoch (\d+) from (.*)", log.read_text(), re.MULTILINE)
    assert resumed is not None
    assert int(resumed[1]) >= 4
    assert Path(resumed[2]).is_relative_to(done.path / ".cache" / "train")
    assert [row["state"] for row in table(done)["trials"]] == ["complete"] * 2


@pytest.mark.slow
def test_the_table_of_a_killed_sweep_is_that_of_an_uninterrupted_one(done: Project, swept: Project) -> None:
    process = done.start(sys.executable, "-m", "retinue.cli", "sweep", *TWO)
    assert process.stdout is not None
    next(line for line in process.stdout if "log_loss" in line)
    process.send_signal(signal.SIGINT)
    said = process.stdout.read()
    assert said.endswith("error: sweep: interrupted. The same command goes on where it was.\n"), said
    assert process.wait() == 130
    assert left_running(done) == []
    sweep(done, *TWO)
    assert table(done) == table(swept)


@pytest.mark.slow
def test_seeds_are_one_trial_with_an_interval(done: Project) -> None:
    sweep(done, "model=mlp", "optimizer.lr=0.01,0.03", "seed=0,1", "sweep.name=seeds", "sweep.workers=2", *QUICK)
    rows = table(done, "seeds")["trials"]
    assert [len(row["experiments"]) for row in rows] == [2, 2]
    for row in rows:
        low, high = row["intervals"]["val/log_loss"]
        assert low < row["values"]["val/log_loss"] < high
    stages = executed(done, "seeds")
    assert stages.count("train") == 4
    assert stages.count("preprocess") == 1  # a split a seed, once for both trials; that of seed 0 is there


@pytest.mark.slow
@pytest.mark.parametrize("place", ["sweep.warm=false", "sweep.cluster={executor:local,timeout_min:10}"])
def test_other_places_give_the_same_experiments(done: Project, swept: Project, place: str) -> None:
    sweep(done, *TWO, place)
    assert table(done) == table(swept)
    assert len(experiments(swept)) == 2
    for name in experiments(swept):
        assert swept.run("git", "show", f"refs/exps/{reference(swept, name)}:dvc.lock").stdout == (
            done.run("git", "show", f"refs/exps/{reference(done, name)}:dvc.lock").stdout
        )
    assert left_running(done) == []


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_ended(done: Project) -> None:
    longer = [each for each in QUICK if not each.startswith("train.max_epochs")]
    said = sweep(
        *(
            done,
            "model=mlp",
            "optimizer.lr=0.01,0.012,0.014,0.016,0.00001",
            "train.max_epochs=4",
            "sweep.prune=median",
        ),
        *("sweep.name=pruned", *longer),
    )
    rows = {row["trial"]: row for row in table(done, "pruned")["trials"]}
    assert rows[4]["state"] == "pruned", said
    assert [rows[number]["state"] for number in range(4)] == ["complete"] * 4
    assert "pruned-4" not in experiments(done)


def reference(project: Project, name: str) -> str:
    """The part of an experiment's ref behind refs/exps/."""
    listed = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    return next(each for each in listed if each.endswith(f"/{name}")).removeprefix("refs/exps/")


@pytest.mark.slow
def test_the_launcher_serves_hydras_own_sweeper(done: Project) -> None:
    overrides = ["+sweep=default", "sweep.name=basic", "sweep.workers=2", "model=mlp", "optimizer.lr=0.01,0.03", *QUICK]
    code = f"""
import pathlib
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
with initialize_config_dir(str(pathlib.Path("conf").resolve()), version_base="1.3"):
    plugins = ["hydra/launcher=dvc_experiments", "hydra.sweep.dir=.cache/basic"]
    returned = GlobalHydra.instance().hydra.multirun("config", None, {overrides} + plugins, False)
print([each.return_value for batch in returned for each in batch])
"""
    said = done.run(sys.executable, "-c", code).stdout
    sweep(done, *overrides[1:])
    values = {row["trial"]: row["values"]["val/log_loss"] for row in table(done, "basic")["trials"]}
    assert said.splitlines()[-1] == f"[{values[0]}, {values[1]}]"
    assert executed(done, "basic").count("train") == 2  # the sweep found both experiments finished


@pytest.mark.slow
def test_an_untracked_folder_is_that_of_the_checkout(project: Project) -> None:
    """What the best trial recorded is what the checkout has: once applied, nothing is stale."""
    for label in ("dark", "light"):
        folder = project.path / "mes photos (été)" / label
        folder.mkdir(parents=True)
        for i in range(20):
            pixels = np.full((20, 24), 5 * i + 120 * (label == "light"), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    images = ("source=image_folder", "source.path=mes photos (été)", "augment=none", "trainer.num_workers=0")
    overrides = (*images, "model=mlp", "optimizer.lr=0.003,0.001", "train.max_epochs=3", "tracking=off")
    sweep(project, *overrides, "sweep.name=photos", "sweep.workers=2")
    rows = table(project, "photos")["trials"]
    assert [row["state"] for row in rows] == ["complete", "complete"]
    listed = project.run("git", "ls-tree", "-r", "-z", "--name-only", experiments(project)["photos-0"]).stdout
    assert "mes photos" not in listed
    assert "params.yaml" in listed
    project.run(sys.executable, "-m", "dvc", "exp", "apply", "photos-0")
    assert "path: mes photos (été)" in (project.path / "params.yaml").read_text("utf-8")
    assert json.loads(project.run(sys.executable, "-m", "dvc", "status", "--json").stdout) == {}
    assert len(list((project.path / "mes photos (été)").rglob("*.png"))) == 40
