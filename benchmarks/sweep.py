"""`retinue sweep` against the same trainings in a bare loop in one process: `python -m benchmarks.sweep`.

Writes its sections of docs/results.md. The sweep's time is that of the whole command, start to table: the six
networks are evaluated, explained and reported in it, too. The loop trains, and does nothing else.
"""

import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from benchmarks import experiments
from benchmarks.in_process import Pipeline
from benchmarks.pairing import timed
from retinue.pipeline import numbers
from retinue.pipeline.composition import project_root
from retinue.pipeline.stage import explained
from retinue.stages import train
from retinue.sweeps.command import PLUGINS
from retinue.sweeps.launcher import Experiments

MODELS, RATES = ("lenet5", "mnist_cnn"), ("0.001", "0.003", "0.01")
POINTS = [(f"model={model}", f"optimizer.lr={rate}") for model in MODELS for rate in RATES]
PARTS = ("sweep", "trial", "search")
PAIRS = 5
SMALL = ("model=lenet5", "train.max_epochs=5", "tracking=off")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--keep", type=click.Path(exists=False, path_type=Path), help="Leave the checkout with its experiments.")
def main(parts: tuple[str, ...], keep: Path | None) -> None:
    """Measure PARTS (all without any) on digits; about 10 minutes on 2 cores for all."""
    torch.set_num_threads(2)
    measures = {"sweep": against_a_loop, "trial": beyond_training, "search": against_the_grid}
    with explained("sweep"), tempfile.TemporaryDirectory(prefix="retinue-") as folder:
        root = checkout(keep.resolve() if keep is not None else Path(folder, "project"))
        for part in parts or PARTS:
            table = measures[part](root)
            experiments.write_section(project_root() / "docs" / "results.md", part, table)


def checkout(root: Path) -> Path:
    """A clone of this checkout at `root` in which the pipeline has run: what a trial changes is all there is to do."""
    subprocess.run(["git", "clone", "--quiet", str(project_root()), str(root)], check=True)
    shutil.copytree(project_root() / ".dvc" / "cache", root / ".dvc" / "cache")
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "--quiet"], cwd=root, check=True)
    return root


def sweep(root: Path, *overrides: str) -> None:
    """Runs the command in the checkout `root`."""
    print(f"retinue sweep {' '.join(overrides)} …", flush=True)
    command = [sys.executable, "-m", "retinue.cli", "sweep", *overrides, "tracking=off"]
    subprocess.run(command, cwd=root, check=True)


def trained(pipeline: Pipeline, *overrides: str) -> float:
    """Seconds of the stage train in this process, of training alone."""
    settings = pipeline.settings(*overrides)
    shutil.rmtree(pipeline.path / ".cache", ignore_errors=True)
    seconds = timed(partial(pipeline.run, train, settings))
    print(f"{' '.join(overrides)}: {numbers.seconds(seconds)}", flush=True)
    return seconds


def against_a_loop(root: Path) -> str:
    """The grid as a sweep of 2 workers, and its trainings in a loop in this process."""
    seconds = timed(partial(sweep, root, "sweep=digits_grid", "sweep.name=grid"))
    logs = [path.read_text() for path in (root / ".cache/sweeps/grid").glob("*/log.txt")]
    stages = [stage for log in logs for stage in re.findall(r"^Running stage '(\w+)'", log, re.MULTILINE)]
    data = sum(stages.count(stage) for stage in ("acquire", "preprocess", "augment"))
    pipeline = Pipeline(())
    loop = sum(trained(pipeline, *point) for point in POINTS)
    rows = [
        ("6 trials, 2 workers: the whole command", numbers.seconds(seconds)),
        ("the same 6 trainings in a loop in one process", numbers.seconds(loop)),
        ("ratio", numbers.significant(seconds / loop, 3)),
        ("data stages executed by the 6 trials", str(data)),
    ]
    return experiments.markdown(("what", "measured"), rows)


def beyond_training(root: Path) -> str:
    """A small trial, all its stages, and its training alone in this process: `PAIRS` pairs in turn."""
    rates = [f"0.00{number}" for number in range(2, 3 + PAIRS)]
    overrides = ["+sweep=default", "sweep.name=small", f"optimizer.lr={','.join(rates)}", *SMALL, *PLUGINS]
    with contextlib.chdir(root), initialize_config_dir(str(root / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        launcher = Experiments.of(hydra.compose_config("config", overrides, run_mode=RunMode.MULTIRUN))
    pipeline = Pipeline(())
    launcher.start()
    try:
        pairs = []
        for number, rate in enumerate(rates):
            trial = launcher.run(number, [f"optimizer.lr={rate}"]).seconds
            pairs.append((trial, trained(pipeline, *SMALL, f"optimizer.lr={rate}")))
            print(f"a trial: {numbers.seconds(trial)}", flush=True)
    finally:
        launcher.close()
    del pairs[0]  # the first trial also finds out that the data stages are done
    columns = [
        ("a trial of 5 epochs, all its stages", [trial for trial, _ in pairs]),
        ("its training alone, in one process", [alone for _, alone in pairs]),
        ("difference", [trial - alone for trial, alone in pairs]),
    ]
    rows = [
        (what, numbers.seconds(statistics.median(s)), f"{numbers.seconds(min(s))} to {numbers.seconds(max(s))}")
        for what, s in columns
    ]
    return experiments.markdown(("what", f"median of {PAIRS}", "smallest to largest"), rows)


def against_the_grid(root: Path) -> str:
    """The best settings of grid and TPE, by validation."""
    rows = []
    for name in ("grid", "tpe"):
        sweep(root, f"sweep=digits_{name}", f"sweep.name={name}")
        table = _document(root / ".cache" / "sweeps" / name / "table.json")
        best = table["trials"][0]
        value = numbers.figure(best["values"]["val/log_loss"])
        rows.append((name, str(len(table["trials"])), " ".join(best["overrides"]), value))
    return experiments.markdown(("search", "trials", "best setting", "val/log_loss"), rows)


def _document(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
