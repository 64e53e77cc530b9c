"""`python -m retinue.stages.NAME` answers options before it imports anything heavy, and nothing else does."""

import subprocess
import sys
from pathlib import Path

import pytest

STAGE = (sys.executable, "-m", "retinue.stages.train")


def answer(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(root / "src"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("option", ["--help", "-h", "--hydra-help"])
def test_help_says_what_the_stage_does(option: str, root: Path) -> None:
    result = answer(root, *STAGE, "train.max_epochs=3", option)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: PYTHONPATH=src python -m retinue.stages.train [OVERRIDES]\n\nTrain: ")
    for word in ("conf/", "params.yaml", "retinue compose", "retinue sweep", "dvc.yaml"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-m", "optimizer.lr=1,2"), "error: stage train: -m: a stage runs once; `retinue sweep OVERRIDES`"),
        (("optimizer.lr=1,2", "--multirun"), "error: stage train: --multirun: a stage runs once; `retinue sweep"),
        (("--cfg", "job"), "error: stage train: --cfg: `retinue compose OVERRIDES` writes the settings"),
        (("--cfg=job",), "error: stage train: --cfg=job: `retinue compose OVERRIDES` writes the settings"),
        (("--epochs", "3"), "error: stage train: --epochs: no such option; settings are given as KEY=VALUE."),
    ],
)
def test_what_a_stage_does_not_do_is_told_with_what_does(options: tuple[str, ...], said: str, root: Path) -> None:
    result = answer(root, *STAGE, *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(said)


def test_help_comes_before_torch(root: Path) -> None:
    """What is imported tells the time that it takes, however busy the machine is: torch 1.7 s, hydra 0.2 s."""
    result = answer(root, sys.executable, "-X", "importtime", "-m", "retinue.stages.train", "--help")
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "retinue.stages" in imported
    assert not imported & {"torch", "hydra", "omegaconf", "yaml", "retinue.pipeline.stage"}


@pytest.mark.slow
def test_only_the_start_of_a_stage_is_answered(root: Path) -> None:
    """Who imports a stage, or runs one as the sweeps' forks do, keeps its own options."""
    imports = "import sys; sys.argv = ['x', '--help']; import retinue.stages.report; print('imported')"
    assert answer(root, sys.executable, "-c", imports, "--help").stdout == "imported\n"
    forked = (
        "import sys, runpy; sys.argv = ['retinue.stages.report', 'a b=1']; sys.orig_argv = ['python', '-m', *sys.argv];"
        "runpy.run_module('retinue.stages.report', run_name='__main__', alter_sys=True)"
    )
    assert "a b: got 1, expected a key such as" in answer(root, sys.executable, "-c", forked).stderr
    missing = answer(root, sys.executable, "-m", "retinue.stages.trian", "--help")
    assert "No module named retinue.stages.trian" in missing.stderr
