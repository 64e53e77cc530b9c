"""`retinue sweep` against the same trainings in a bare loop in one process: `python -m benchmarks.sweep`.

Writes its two sections of docs/results.md. The sweep's time is that of the whole command, start to table: the six
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
from retinue.config import project_root
from retinue.stage import explained
from retinue.stages import train
from retinue.sweeps.command import PLUGINS
from retinue.sweeps.launcher import Experiments

MODELS, RATES = ("lenet5", "mnist_cnn"), ("0.001", "0.003", "0.01")
POINTS = [(f"model={model}", f"optimizer.lr={rate}") for model in MODELS for rate in RATES]
PAIRS = 5
SMALL = ("model=lenet5", "train.max_epochs=5", "tracking=off")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--keep", type=click.Path(exists=False, path_type=Path), help="Leave the checkout with its experiments.")
def main(keep: Path | None) -> None:
    """Measure on digits; about 10 minutes on 2 cores."""
    torch.set_num_threads(2)
    with explained("sweep"), tempfile.TemporaryDirectory(prefix="retinue-") as folder:
        root = checkout(keep.resolve() if keep is not None else Path(folder, "project"))
        seconds = timed(partial(sweep, root, "sweep=digits_grid", "sweep.name=grid"))
        pipeline = Pipeline(())
        loop = sum(trained(pipeline, *point) for point in POINTS)
        extra = beyond_training(root, pipeline)
        sweep(root, "sweep=digits_tpe", "sweep.name=tpe")
        document = project_root() / "docs" / "results.md"
        experiments.write_section(document, "sweep", _times(root, seconds, loop, extra))
        experiments.write_section(document, "search", _search(root))


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
    print(f"{' '.join(overrides)}: {seconds:.1f} s", flush=True)
    return seconds


def beyond_training(root: Path, pipeline: Pipeline) -> list[float]:
    """Seconds of a small trial, all its stages, less those of its training alone: `PAIRS` pairs in turn."""
    rates = [f"0.00{number}" for number in range(2, 3 + PAIRS)]
    overrides = ["+sweep=default", "sweep.name=small", f"optimizer.lr={','.join(rates)}", *SMALL, *PLUGINS]
    with contextlib.chdir(root), initialize_config_dir(str(root / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        launcher = Experiments.of(hydra.compose_config("config", overrides, run_mode=RunMode.MULTIRUN))
    launcher.start()
    try:
        found = []
        for number, rate in enumerate(rates):
            trial = launcher.run(number, [f"optimizer.lr={rate}"]).seconds
            found.append(trial - trained(pipeline, *SMALL, f"optimizer.lr={rate}"))
            print(f"a trial beyond its training: {found[-1]:.1f} s", flush=True)
    finally:
        launcher.close()
    return found[1:]  # the first also finds out that the data stages are done


def _times(root: Path, seconds: float, loop: float, extra: list[float]) -> str:
    logs = [path.read_text() for path in (root / ".cache/sweeps/grid").glob("*/log.txt")]
    stages = [stage for log in logs for stage in re.findall(r"^Running stage '(\w+)'", log, re.MULTILINE)]
    data = sum(stages.count(stage) for stage in ("acquire", "preprocess", "augment"))
    rows = [
        ("6 trials, 2 workers: the whole command", f"{seconds:.1f} s"),
        ("the same 6 trainings in a loop in one process", f"{loop:.1f} s"),
        ("ratio", f"{seconds / loop:.2f}"),
        ("data stages executed by the 6 trials", str(data)),
        (
            f"a trial of 5 epochs beyond its own training, one at a time: median of {PAIRS} (smallest to largest)",
            f"{statistics.median(extra):.1f} s ({min(extra):.1f} to {max(extra):.1f})",
        ),
    ]
    return experiments.markdown(("what", "measured"), rows)


def _search(root: Path) -> str:
    rows = []
    for name in ("grid", "tpe"):
        table = _document(root / ".cache" / "sweeps" / name / "table.json")
        best = table["trials"][0]
        value = f"{best['values']['val/log_loss']:.6f}"
        rows.append((name, str(len(table["trials"])), " ".join(best["overrides"]), value))
    return experiments.markdown(("search", "trials", "best setting", "val/log_loss"), rows)


def _document(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
