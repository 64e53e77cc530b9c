"""`retinue describe` as a person, and as a program, meets it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compositions import compose
from project import ROOT, Project
from retinue.cli import main
from retinue.describe.measurement import measure_step
from retinue.describe.request import DescribeRequest
from retinue.pipeline.errors import RetinueError

DOCUMENT = (ROOT / "docs/describe.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```\n\$ retinue (describe[^\n]*)\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def run(*arguments: str) -> None:
    main.main(["describe", *arguments], standalone_mode=False)


def described(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    run(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_the_example_in_the_documentation_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    ((command, shown),) = EXAMPLES
    run(*shlex.split(command)[1:])
    assert capsys.readouterr().out == shown, "docs/describe.md shows another output; put this one there"


def test_the_composition_decides(capsys: pytest.CaptureFixture[str]) -> None:
    settings = compose(["model=squeezenet1_1", "preprocess=rgb224", "optimizer=sgd", "train.batch_size=6"])
    overrides = ("model=squeezenet1_1", "preprocess=rgb224", "optimizer=sgd", "train.batch_size=6")
    document = described(capsys, *overrides, "--classes", "1000")
    assert (document["model"], document["optimizer"], document["num_classes"]) == ("squeezenet1_1", "sgd", 1000)
    assert document["input_shape"] == [3, settings["preprocess"]["image_size"], settings["preprocess"]["image_size"]]
    assert (document["parameters"], document["weight_bytes"]) == (1_235_496, 4 * 1_235_496)
    assert document["memory"]["batch_size"] == 6
    assert document["memory"]["optimizer_state_bytes"] == 4 * 1_235_496
    assert "measured" not in document


def test_options_come_before_the_composition(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--image-size", "28", "--channels", "3", "--batch-size", "4", "--classes", "2")
    document = described(capsys, "model=lenet5", *sizes)
    assert (document["input_shape"], document["num_outputs"], document["num_classes"]) == ([3, 28, 28], 1, 2)
    assert document["memory"]["batch_size"] == 4


@pytest.mark.slow
def test_the_same_is_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (described(capsys, "model=resnet18") for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("transfer", "trained"),
    [
        ("scratch", 61_706),
        ("large_different", 61_706),
        ("small_different", 120 * 401 + 84 * 121 + 850),  # c1 and c3 are frozen, 2 of 4 layers
        ("large_similar", 84 * 121 + 850),  # c5, too
        ("small_similar", 850),
        ("auto", 61_706),  # not decided before there are data
    ],
)
@pytest.mark.slow
def test_what_the_scenario_freezes_is_not_trained(
    transfer: str, trained: int, capsys: pytest.CaptureFixture[str]
) -> None:
    document = described(capsys, "model=lenet5", f"transfer={transfer}", "weights=none")
    assert (document["parameters"], document["trainable_parameters"]) == (61_706, trained)


@pytest.mark.slow
def test_nothing_is_written(project: Project) -> None:
    def files() -> dict[Path, bytes]:
        paths = [path for path in project.path.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in paths if not {"__pycache__", ".git"} & set(path.parts)}

    before = files()
    project.run(sys.executable, "-m", "retinue.cli", "describe")
    assert files() == before


@pytest.mark.slow
def test_measured_steps_take_about_the_memory_that_is_alive(capsys: pytest.CaptureFixture[str]) -> None:
    """The growth of the process: what is alive at once, and what the allocator and oneDNN keep besides."""
    document = described(capsys, "model=lenet5", "--batch-size", "2048", "--measure")
    alive, growth = document["memory"]["peak_live_bytes"], document["measured"]["peak_growth_bytes"]
    assert alive * 0.8 < growth < alive * 5
    assert 0 < document["measured"]["step_s"] < 600
    assert document["measured"]["threads"] >= 1


@pytest.mark.slow
def test_a_step_that_cannot_be_run_says_so() -> None:
    settings = compose()
    case = DescribeRequest(
        settings["model"], settings["transfer"], settings["optimizer"], 10, 1, 32, 10**12
    )  # petabytes
    with pytest.raises(RetinueError, match=r"--measure: the training step ended .*alloc.* Lower --batch-size"):
        measure_step(case)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=resnet81"], "Unknown model 'resnet81'. Did you mean 'resnet18'?"),
        (
            ["optimizer.lrr=1"],
            "optimizer.lrr: got 1, expected a setting of conf/. Unknown key 'optimizer.lrr'. Did you mean",
        ),
        (["--batch-size", "0"], "batch size: expected >= 1, got 0"),
        (["--classes", "1"], "classes: expected >= 2, got 1"),
        (["--channels", "0"], "channels: expected >= 1, got 0"),
        (["--image-size", "12"], "model lenet5: expected images of at least 16 px, got 12"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_described_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert message in printed.err
    assert printed.out == ""


def test_help_does_not_wait_for_torch() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from retinue.cli import main;"
        "print(CliRunner().invoke(main, ['describe', '-h']).output); sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path("src")
    )
    assert result.returncode == 0, result.stderr
    assert "--batch-size" in result.stdout
