"""`retinue predict`: every row is what the bundle says, whatever the images come from, whenever it was killed."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from retinue import cli
from retinue.bundle import Bundle
from retinue.models.lenet5 import LeNet5
from retinue.pipeline.artifacts import Dataset, DecisionRule
from retinue.pipeline.errors import DataError
from retinue.serving.predict.inputs import each_image
from retinue.serving.predict.journal import Journal, journal_folder
from retinue.serving.predict.rows import Row

pyarrow = pytest.importorskip("pyarrow.parquet")

CLASSES = ("ant", "bee", "wasp")
MODEL = {"name": "lenet5", "module": "lenet5", "_target_": "retinue.models.lenet5.LeNet5"}
DATASET = Dataset("insects", CLASSES, {}, 28, 32, 3, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model in models/, seven photographs at two depths of photos/, a text and a cut file."""
    torch.manual_seed(0)
    network = LeNet5(in_channels=3, num_classes=3, image_size=28)
    rng = np.random.default_rng(0)
    (tmp_path / "photos/more").mkdir(parents=True)
    for number in range(7):
        name = f"more/{number}.png" if number > 4 else f"{number}.png"
        pixels = rng.integers(0, 36 * (number + 1), (40, 36 + number, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "photos/2-notes.txt").write_text("no image")
    (tmp_path / "photos/3-cut.png").write_bytes((tmp_path / "photos/3.png").read_bytes()[:900])
    (tmp_path / "photos/.hidden").write_text("x")
    (tmp_path / "photos/Thumbs.db").write_text("x")
    monkeypatch.chdir(tmp_path)
    certain = np.median(Bundle(network, MODEL, DATASET, {}).predict(GOOD).probs.max(axis=1))
    Bundle(network, MODEL, DATASET, {}, DecisionRule(reject_below=float(certain), weights_sha256="0" * 64)).save(
        tmp_path / "models"
    )
    return tmp_path


GOOD = [*(f"photos/{n}.png" for n in range(5)), *(f"photos/more/{n}.png" for n in (5, 6))]
BAD = ["photos/2-notes.txt", "photos/3-cut.png"]


def predict(*arguments: str, status: int = 0, stdin: str | None = None) -> Result:
    ended = CliRunner().invoke(cli.main, ["predict", "--workers", "0", *arguments], input=stdin)
    assert ended.exit_code == status, (ended.output, ended.exception)
    return ended


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_each_row_is_what_the_bundle_says_and_what_cannot_be_read_is_listed_apart(work: Path) -> None:
    predict("photos", "--output", "out/found.csv", "--batch-size", "4", status=3)
    rows = table((work / "out/found.csv").read_text("utf-8"))
    assert [row["image"] for row in rows] == sorted(GOOD)
    expected = Bundle.load("models").predict(sorted(GOOD), batch_size=4)
    assert [row["predicted"] for row in rows] == expected.names
    assert [row["abstained"] == "true" for row in rows] == expected.abstained.tolist()
    assert 0 < expected.abstained.sum() < len(rows)
    probs = np.array([[float(row[f"prob_{name}"]) for name in CLASSES] for row in rows])
    assert probs == pytest.approx(expected.probs, abs=1e-5)  # of batches that hold other images
    assert [float(row["probability"]) for row in rows] == [
        row[i] for row, i in zip(probs, expected.predicted, strict=True)
    ]
    listed = table((work / "out/found.unreadable.csv").read_text("utf-8"))
    assert [row["image"] for row in listed] == BAD
    assert listed[0]["reason"].startswith("not an image")
    assert not journal_folder(work / "out/found.csv").exists()


@pytest.mark.slow
def test_an_exported_file_gives_the_rows_of_its_bundle(work: Path) -> None:
    assert CliRunner().invoke(cli.main, ["export", "onnx"]).exit_code == 0
    ours = table(predict("photos", status=3).stdout)
    exported = ("--exported", "exported/onnx/model.onnx")
    theirs = table(predict("photos", *exported, status=3).stdout)
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    limit = Bundle.load("models").decision.reject_below
    assert limit is not None
    for own, other in zip(ours, theirs, strict=True):
        assert (own["image"], own["predicted"]) == (other["image"], other["predicted"])
        for name in ("probability", *(f"prob_{each}" for each in CLASSES)):
            assert float(own[name]) == pytest.approx(float(other[name]), abs=1e-6)
        if abs(float(own["probability"]) - limit) > 1e-6:  # one image is just at the limit
            assert own["abstained"] == other["abstained"]
    for more, said in (
        (("--overlays", "maps"), "--overlays take a bundle"),
        (("--device", "cuda"), "--device and --overlays"),
        (("--bundle", "models"), "--bundle and --exported name 2 models"),
    ):
        assert said in predict("photos", *exported, *more, status=2).stderr


def test_all_formats_say_the_same(work: Path) -> None:
    for ending in ("csv", "jsonl", "parquet"):
        predict("photos/more", "--output", f"found.{ending}")
    lines = [json.loads(line) for line in (work / "found.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 2
    assert pyarrow.read_table(work / "found.parquet").to_pylist() == lines
    as_text = [{k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in line.items()} for line in lines]
    assert table((work / "found.csv").read_text("utf-8")) == as_text
    assert table(predict("photos/more").stdout) == as_text


def test_files_folders_tables_lists_patterns_and_standard_input_are_the_same_images(work: Path) -> None:
    (work / "photos/a.csv").write_text("which;file\n1;0.png\n2;more/5.png\n")
    (work / "photos/a.jsonl").write_text('{"image": "0.png"}\n{"image": "more/5.png"}\n')
    (work / "photos/a.txt").write_text("0.png\n\nmore/5.png\n")
    expected = [work / "photos/0.png", work / "photos/more/5.png"]
    ways: list[list[str]] = [
        ["photos/0.png", "photos/more/5.png"],
        ["photos/a.csv"],
        ["photos/a.jsonl"],
        ["photos/a.txt"],
        ["photos/[0]*.png", "photos/**/5.png"],
    ]
    for way in ways:
        assert [image.path.resolve() for image in each_image(way)] == expected, way
    assert [row["image"] for row in table(predict("-", stdin="photos/0.png\nphotos/more/5.png\n").stdout)] == ways[0]
    assert [image.name for image in each_image(["photos/a.csv"], column="file")] == ["0.png", "more/5.png"]


def test_what_leads_nowhere_is_told_before_anything_is_computed(work: Path) -> None:
    for argument, said in (
        ("photos/9.png", "photos/9.png: no such file. Expected an image, a folder"),
        ("photos/*.bmp", "photos/*.bmp: no file fits this pattern."),
    ):
        assert said in predict("photos/0.png", argument, status=1).stderr
    (work / "empty").mkdir()
    assert "empty: no image there." in predict("empty", status=1).stderr
    assert (
        "expected a name that ends in .csv, .jsonl, .parquet" in predict("photos", "--output", "a.txt", status=2).stderr
    )
    assert "device: 'nowhere' cannot be used here" in predict("photos", "--device", "nowhere", status=2).stderr
    (work / "two.csv").write_text("path,file\na,b\n")
    assert (
        "several columns may be the image: 'file', 'path'. Say which: --column 'file'."
        in predict("two.csv", status=1).stderr
    )


def test_rows_of_missing_files_and_linked_folders_cost_nobody_else_a_row(work: Path) -> None:
    (work / "list.txt").write_text("photos/0.png\nphotos/nothing.png\nphotos/1.png\n")
    (work / "photos/more/back").symlink_to(work / "photos")
    ended = predict("list.txt", "photos/more", "--unreadable", "bad.csv", "--unreadable-status", "0")
    assert [row["image"] for row in table(ended.stdout)] == [*GOOD[:2], *GOOD[5:]]
    assert [row["image"] for row in table((work / "bad.csv").read_text("utf-8"))] == [
        "photos/nothing.png",
        "photos/more/back",
    ]


def test_overlays_are_of_the_decided_class_and_named_in_the_rows(work: Path) -> None:
    rows = table(predict("photos/more", "--overlays", "maps").stdout)
    assert [row["overlay"] for row in rows] == ["maps/000000-5.png", "maps/000001-6.png"]
    with Image.open(work / "maps/000001-6.png") as picture:
        assert picture.size == (256, 256)
    assert sorted(path.name for path in (work / "maps").iterdir()) == ["000000-5.png", "000001-6.png"]


BATCHES = [["a", "b", "c"], ["d"], ["e", "f"]]
MADE_WITH = {"model": "m"}
COLUMNS = ("predicted", "probability", "prob_x", "prob_y")


def rows_of(batch: Sequence[str]) -> tuple[list[Row], list[Row]]:
    values = ("x", 2 / 3, 2 / 3, 1 / 3)
    good = [{"image": n, "abstained": n == "a", **dict(zip(COLUMNS, values, strict=True))} for n in batch if n != "d"]
    return good, [{"image": n, "reason": "ä"} for n in batch if n == "d"]


def written(output: Path, number: int, *, finish: bool, made_with: dict[str, str] = MADE_WITH) -> Journal:
    """Writes the first batches, as far as they are not there."""
    journal = Journal(output, made_with)
    with journal.opened():
        journal.pass_over(iter([name for batch in BATCHES for name in batch]))
        done = journal.tally.num_images
        for place, batch in enumerate(BATCHES[:number]):
            if sum(map(len, BATCHES[: place + 1])) > done:
                journal.append(batch, *rows_of(batch))
        if finish:
            journal.finish(["image", "abstained", *COLUMNS], output.with_name("bad"))
    return journal


def contents(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.parent.iterdir()}


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("torn", [b"", b'{"image": "hal', b'{"image": "e"}\n{"ima'])
def test_a_journal_goes_on_after_its_last_whole_batch(number: int, torn: bytes, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "torn").mkdir()
    expected = written(tmp_path / "whole/out.csv", 3, finish=True).tally
    assert (expected.num_images, expected.num_unreadable, expected.num_abstained) == (6, 1, 1)
    assert expected.decided == {"x": 5}
    output = tmp_path / "torn/out.csv"
    written(output, number, finish=False)
    for name in ("rows.jsonl", "unreadable.jsonl"):  # a batch that was not finished
        with (journal_folder(output) / name).open("ab") as file:
            file.write(torn)
    assert written(output, 3, finish=True).tally == expected
    assert contents(output) == contents(tmp_path / "whole/out.csv")
    assert {*contents(output)} == {"out.csv", "bad"}


def test_a_journal_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    written(output, 1, finish=False)
    with pytest.raises(DataError, match=r"of another model \(m, now n\)\. Delete .*out\.csv\.partial to begin anew"):
        written(output, 2, finish=False, made_with={"model": "n"})
    journal = Journal(output, MADE_WITH)
    for names in (["a", "b", "x"], ["a", "b"]):
        with journal.opened(), pytest.raises(DataError, match="had other images, or another order of them"):
            journal.pass_over(iter(names))
    (journal_folder(output) / "rows.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match=r"rows\.jsonl: 0 bytes, \d+ were written"), journal.opened():
        pass


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from retinue import cli
import torch
from retinue.serving.predict import command  # all imports, once

arguments = ["predict", "photos", "--workers", "1", "--batch-size", "3", "--output", "killed.csv"]
torch.set_num_threads(1)
draw, landed = random.Random(0), 0
for attempt in range(int(sys.argv[1])):
    begun = time.monotonic()
    child = os.fork()
    if not child:
        try:
            cli.main(arguments)
        finally:
            os._exit(99)
    state = Path("killed.csv.partial/state.json")
    before = state.read_bytes() if state.exists() else b""
    while not Path("killed.csv").exists() and (state.read_bytes() if state.exists() else b"") == before:
        time.sleep(0.001)  # one batch more at least: it gets on
    time.sleep(draw.random() * 0.05)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    landed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if Path("killed.csv").exists():
        break
print(landed)
"""


@pytest.mark.slow
def test_what_was_killed_many_times_is_what_was_not(work: Path) -> None:
    rng = np.random.default_rng(1)
    for number in range(450):
        pixels = rng.integers(0, 256, (300, 300, 3), np.uint8)
        Image.fromarray(pixels).save(work / f"photos/more/k{number:03d}.png", compress_level=0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, "20"]
    killed = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=True)
    assert int(killed.stdout.split()[-1]) >= 10, killed.stderr
    again = [
        sys.executable,
        "-m",
        "retinue.cli",
        "predict",
        "photos",
        "--workers",
        "1",
        "--batch-size",
        "3",
        "--output",
    ]
    for name in ("killed.csv", "whole.csv"):
        if not (work / name).exists():
            ended = subprocess.run(
                [*again, name], cwd=work, env=environment, capture_output=True, text=True, check=False
            )
            assert ended.returncode == 3, ended.stderr
    assert (work / "killed.csv").read_bytes() == (work / "whole.csv").read_bytes()
    assert (work / "killed.unreadable.csv").read_bytes() == (work / "whole.unreadable.csv").read_bytes()
    assert len(table((work / "whole.csv").read_text("utf-8"))) == 457


@pytest.mark.slow
def test_an_interrupted_prediction_says_so_and_keeps_what_it_has(work: Path) -> None:
    command = [sys.executable, "-m", "retinue.cli", "predict", "-", "--workers", "0", "--batch-size", "1"]
    command += ["--output", "found.csv"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(command, cwd=work, **pipes)
    assert running.stdin is not None
    running.stdin.write("photos/0.png\n")
    running.stdin.flush()
    state = work / "found.csv.partial/state.json"
    while not (state.exists() and json.loads(state.read_text("utf-8"))["tally"]["num_images"] == 1):
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in said
    assert "interrupted" in said
    rest = predict("-", "--batch-size", "1", "--output", "found.csv", stdin="photos/0.png\nphotos/1.png\n")
    assert "going on after 1 images" in rest.stderr
    assert [row["image"] for row in table((work / "found.csv").read_text("utf-8"))] == GOOD[:2]
