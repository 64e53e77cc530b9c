"""`retinue lr-range`: the losses are those of a training by hand, the suggestion can be derived, nothing is changed."""

import json
import math
import re
import shutil
import subprocess
import sys
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from compositions import compose
from project import ROOT
from retinue.cli import lr_range, main
from retinue.engine.reproducibility import draw_seed, seed_everything
from retinue.engine.store import ImageStore
from retinue.images.augmentation import Policy
from retinue.lr_range.measurement import Curve, LrRange, Smoothing, Step
from retinue.models.lenet5 import LeNet5
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, Sample
from retinue.pipeline.files import write_table
from retinue.pipeline.numbers import figure, significant

CLASSES = ("left", "right", "above")
COUNT, SIZE = 72, 32
QUICK = ("--steps", "12")


def stripes(rng: np.random.Generator, label: int) -> np.ndarray:
    """Noise, brighter in the half that the class names, uint8 (S, S, 1)."""
    image = rng.normal(90, 25, size=(SIZE, SIZE, 1))
    half = [np.s_[:, : SIZE // 2], np.s_[:, SIZE // 2 :], np.s_[: SIZE // 2]][label]
    image[half] += 50
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """conf/ and the data of a small problem, with a model, a cache and a W&B run of before."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "conf", folder / "conf")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy2(ROOT / name, folder / name)
    rng = np.random.default_rng(0)
    counts = {split: dict.fromkeys(CLASSES, COUNT // 3) for split in artifacts.SPLITS}
    dataset = Dataset("stripes", CLASSES, counts, SIZE, SIZE, 1, (0.45,), (0.15,))
    artifacts.write_dataset(folder / artifacts.PROCESSED / "dataset.json", dataset)
    for split in ("train", "val"):
        store = ImageStore.create(folder / artifacts.PROCESSED / split, COUNT, (SIZE, SIZE, 1))
        for row in range(COUNT):
            store.write(row, stripes(rng, row % 3))
        store.close()
        rows = [Sample(f"{row}.png", row % 3, "", row) for row in range(COUNT)]
        write_table(folder / artifacts.PROCESSED / split / "manifest.csv", Sample, rows)
    (folder / artifacts.AUGMENTED).mkdir()
    (folder / artifacts.AUGMENTED / "policy.json").write_text(Policy([], seed=0).to_json())
    for name in ("models/weights.safetensors", ".cache/features/key/train.npy", ".cache/wandb/offline-run-1/run.wandb"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"as it was")
    return folder


@pytest.fixture(autouse=True)
def _in_the_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)


def run(*arguments: str) -> None:
    main.main(["lr-range", *arguments], standalone_mode=False)


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    run(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Path -> time of the last change, in ns, and bytes of everything below `folder`, folders included."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, b"" if path.is_dir() else path.read_bytes())
        for path in (folder, *folder.rglob("*"))
    }


def trained_by_hand(lrs: list[float], batch_size: int) -> list[float]:
    """The losses of LeNet-5 before steps of SGD at these learning rates, in plain torch."""
    images = np.load(artifacts.PROCESSED / "train" / "images-00000.npy").astype(np.float64)
    inputs = torch.tensor((images / 255 - 0.45) / 0.15, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
    labels = torch.arange(COUNT) % 3
    settings = compose(["optimizer=sgd"])["optimizer"]
    seed_everything(0)
    network = LeNet5(1, 3, SIZE).train()
    optimizer = torch.optim.SGD(
        network.parameters(), 1.0, **{key: settings[key] for key in ("momentum", "nesterov", "weight_decay")}
    )
    losses: list[float] = []
    for epoch in range(len(lrs)):
        order = np.random.default_rng(draw_seed(0, "order", epoch)).permutation(COUNT)
        for start in range(0, COUNT, batch_size):
            if len(losses) == len(lrs):
                return losses
            batch = torch.from_numpy(order[start : start + batch_size])
            loss = F.cross_entropy(network(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = lrs[len(losses)]
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.slow
def test_the_losses_are_those_of_a_training_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("optimizer=sgd", "augment=none", "train.batch_size=20", "--from", "1e-4", "--to", "0.1")
    document = found(capsys, *settings, "--steps", "15")
    lrs = [1e-4 * 1000 ** (i / 14) for i in range(15)]
    assert [step["lr"] for step in document["steps"]] == pytest.approx(lrs, rel=1e-12)
    assert [step["loss"] for step in document["steps"]] == pytest.approx(trained_by_hand(lrs, 20), rel=1e-4)
    assert document["ended"] is None


@pytest.mark.slow
def test_neither_lr_nor_schedule_of_the_settings_counts_and_the_same_is_said_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = found(capsys, *QUICK)
    assert found(capsys, *QUICK, "optimizer.lr=0.5", "schedule=constant") == first


@pytest.mark.slow
def test_nothing_is_changed_but_the_output(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = state(checkout)
    run(*QUICK, "tracking=online")
    assert state(checkout) == before
    run(*QUICK, "--output", "curve.html")
    after = state(checkout)
    assert after.pop("curve.html")[1].startswith(b"<!DOCTYPE html>")
    Path("curve.html").unlink()
    assert {name: held for name, held in after.items() if name != "."} == {n: h for n, h in before.items() if n != "."}
    assert "warning" not in capfd.readouterr().err.lower()


@pytest.mark.slow
def test_it_works_below_the_root_of_the_checkout(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = found(capsys, *QUICK)
    monkeypatch.chdir(checkout / "conf" / "model")
    assert found(capsys, *QUICK, "--output", str(tmp_path / "new" / "curve.html")) == expected
    assert (tmp_path / "new" / "curve.html").exists()
    assert Path.cwd() == checkout / "conf" / "model"


def test_frozen_layers_stay_and_the_axis_is_the_rate_of_the_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(LeNet5(1, 3, SIZE).state_dict(), tmp_path / "weights.pth")
    weights = ("weights=file", f"weights.path={tmp_path / 'weights.pth'}")
    document = found(capsys, *QUICK, "transfer=small_different", *weights)
    assert document["transfer"] == "small_different"
    assert document["steps"][0]["lr"] == pytest.approx(1e-6)
    run(*QUICK, "transfer=small_different", *weights)
    printed = capsys.readouterr()
    assert "layers before the head frozen" in printed.err
    assert "frozen" not in printed.out


@pytest.mark.parametrize("high", ["1e4", "1e30"], ids=["exceeds", "not finite"])
def test_the_test_ends_where_the_training_diverges(high: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = found(capsys, "optimizer=sgd", "--from", "1e-3", "--to", high, "--steps", "30")
    smoothed = [step["smoothed"] for step in document["steps"]]
    assert len(smoothed) < 30
    lowest = list(accumulate(smoothed, min))
    assert all(value <= 4 * best for value, best in zip(smoothed[:-1], lowest[:-1], strict=True))
    if smoothed[-1] > 4 * lowest[-1]:
        assert document["ended"] == (
            f"optimizer.lr={significant(document['steps'][-1]['lr'], 2)}, "
            "where the smoothed loss exceeded 4 times its lowest value"
        )
    else:
        assert "where the loss was not finite" in document["ended"]


@pytest.mark.slow
def test_what_is_printed_is_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("augment=none", "--from", "1e-5", "--to", "0.5", "--steps", "40")
    document = found(capsys, *settings)
    assert document["minimum_lr"] == min(document["steps"], key=lambda step: step["smoothed"])["lr"]
    assert document["recommended_lr"] == document["minimum_lr"] / 10
    run(*settings)
    text = capsys.readouterr().out
    assert (
        f"Recommended: optimizer.lr={significant(document['recommended_lr'], 2)}, the lowest loss's rate / 10." in text
    )
    rows = re.findall(r"^ +([\d.e-]+) +(\d+\.\d+)(?:  █+…?)?$", text, re.MULTILINE)
    steps = {(significant(step["lr"], 3), figure(step["smoothed"])) for step in document["steps"]}
    assert set(rows) <= steps
    assert (len(rows), rows[0][0]) == (20, "1e-05")


def test_the_page_loads_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = found(capsys, *QUICK, "--output", str(tmp_path / "curve.html"))
    page = (tmp_path / "curve.html").read_text("utf-8")
    assert "default-src 'none'" in page
    assert re.findall(r"(?:src|href)\s*=|url\(|@import", page) == []
    line = re.search(r'class="line first" points="([^"]*)"', page)
    assert line is not None
    assert 2 <= len(line[1].split()) <= len(document["steps"])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.floats(0, 0.999))
def test_smoothing_is_a_weighted_mean(losses: list[float], beta: float) -> None:
    smooth = Smoothing(beta)
    values = [smooth(loss) for loss in losses]
    weights = beta ** np.arange(len(losses))[::-1]
    assert values[-1] == pytest.approx(np.average(losses, weights=weights), rel=1e-6, abs=1e-9)
    assert values[0] == pytest.approx(losses[0], rel=1e-6)


def curve(heights: Any, num_steps: int = 101, end: str | None = None) -> Curve:
    """A curve of x = -5 … 0, the decimal logarithm of the rate, with `heights(x)` for a loss."""
    xs = np.linspace(-5, 0, num_steps)
    return Curve(LrRange(1e-5, 1.0, num_steps), [Step(10.0**x, heights(x), heights(x)) for x in xs], end)


def test_the_suggestion_is_that_of_a_curve_that_is_known() -> None:
    """2 - tanh(4 (x + 2.5)) falls fastest at x = -2.5; raised from x = -1 on, it is lowest there."""
    known = curve(lambda x: 2 - math.tanh(4 * (x + 2.5)) + max(0.0, x + 1))
    assert known.steepest is not None
    assert math.log10(known.steepest.lr) == pytest.approx(-2.5, abs=1e-9)
    assert math.log10(known.minimum.lr) == pytest.approx(-1, abs=1e-9)
    assert known.recommended == pytest.approx(1e-2, rel=1e-9)
    assert not known.still_falling


def test_a_jump_of_the_first_batches_is_no_descent() -> None:
    known = curve(lambda x: 2 - math.tanh(4 * (x + 2.5)) + (5 if x < -4.9 else 0))
    assert known.steepest is not None
    assert math.log10(known.steepest.lr) == pytest.approx(-2.5, abs=1e-9)


def test_nothing_is_recommended_where_nothing_fell() -> None:
    rising = curve(lambda x: x + 6)
    assert (rising.steepest, rising.recommended) == (None, None)


def test_a_loss_that_still_falls_is_told() -> None:
    assert curve(lambda x: -x).still_falling
    assert not curve(lambda x: -x, end="optimizer.lr=1, where the loss was not finite").still_falling


def test_a_training_that_diverges_at_once_recommends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run("optimizer=sgd", "--from", "1e3", "--to", "1e4", "--steps", "10")
    assert "The loss never fell, so nothing is recommended" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "9"], "--steps: expected >= 10, got 9."),
        (["--from", "0.1", "--to", "0.1"], "--from, --to: expected 0 < from < to, got 0.1 and 0.1."),
        (["--from", "0"], "--from, --to: expected 0 < from < to, got 0 and 1."),
        (["--to", "nan"], "--from, --to: expected 0 < from < to, got 1e-06 and nan."),
        (["model=resnet81"], "Unknown model 'resnet81'. Did you mean 'resnet18'?"),
        (["transfer=small_similar", "weights=none"], "there are no initial weights to transfer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.slow
def test_what_cannot_be_tested_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert message in printed.err
    assert printed.out == ""


def test_without_data_the_way_to_get_them_is_named(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(checkout / "conf", tmp_path / "conf")
    shutil.copy2(checkout / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 1
    assert "data/processed/dataset.json: no such file. The stage that writes it has not run" in capsys.readouterr().err


def test_the_documentation_names_every_option() -> None:
    text = (ROOT / "docs/lr_range.md").read_text("utf-8")
    options = [name for parameter in lr_range.params for name in parameter.opts if name.startswith("--")]
    assert len(options) == 5
    assert [name for name in options if f"`{name}" not in text] == []


def test_the_example_in_the_documentation_fits_together() -> None:
    text = (ROOT / "docs/lr_range.md").read_text("utf-8")
    (lowest,) = re.findall(r"The smoothed loss fell from \S+ to \S+ at (\S+), fastest at", text)
    (recommended,) = re.findall(r"Recommended: optimizer.lr=(\S+), the lowest", text)
    rates = [float(rate) for rate in re.findall(r"^ +([\d.]+(?:e-\d\d)?) +\d\.\d{4}\b", text, re.MULTILINE)]
    assert float(recommended) == pytest.approx(float(lowest) / 10)
    assert len(rates) == 20
    assert all(before < after for before, after in pairwise(rates))


def test_help_does_not_wait_for_torch() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from retinue.cli import main;"
        "print(CliRunner().invoke(main, ['lr-range', '-h']).output); sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT / "src"
    )
    assert result.returncode == 0, result.stderr
    assert "--steps" in result.stdout
