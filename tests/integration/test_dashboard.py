"""`retinue dashboard` over real DVC experiments: the numbers are DVC's, what is missing is said, nothing is changed."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.api import DVCFileSystem
from scipy import stats

from project import Project
from retinue.dashboard.collect import chosen_outcomes, collect
from retinue.dashboard.page import render_dashboard
from retinue.experiments.outcomes import Experiment, all_experiments, committed
from retinue.metrics import summary
from retinue.metrics.registry import Predicted
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Prediction
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.files import read_json, read_table, write_table

pytestmark = pytest.mark.slow  # over experiments of real pipelines

GALLERY = "explanations/gallery.json"


def settle(project: Project, name: str, *, noise: float, draw: int = 0, lr: str | None = None) -> None:
    """Saves the workspace as the DVC experiment `name`, its logits blurred as another network would have them."""
    if lr is not None:
        params = project.path / "params.yaml"
        params.write_text(re.sub(r"\n  lr: \S+", f"\n  lr: {lr}", params.read_text("utf-8"), count=1), "utf-8")
    folder = project.path / artifacts.PREDICTIONS
    rows = read_table(folder / "predictions.csv", Prediction)
    logits = np.load(folder / "logits.npy")
    logits = (logits + noise * np.random.default_rng(draw).normal(size=logits.shape)).astype(np.float32)
    write_evaluation(project, rows, logits)
    save(project, name)


def write_evaluation(project: Project, rows: list[Prediction], logits: np.ndarray) -> None:
    """evaluation/ as the stage writes it, of these logits."""
    from retinue.pipeline.composition import load_params

    options = load_params(project.path / "params.yaml")["evaluate"]
    labels, scored = np.array([row.label for row in rows]), Predicted.from_logits(logits)
    probs = scored.probs
    classes = artifacts.read_dataset(project.path / artifacts.PROCESSED / "dataset.json").classes
    predicted = scored.predicted
    table = [
        Prediction(row.image_id, row.label, int(p), float(c), row.unit)
        for row, p, c in zip(rows, predicted, probs.max(axis=1), strict=True)
    ]
    folder = project.path / artifacts.PREDICTIONS
    write_table(folder / "predictions.csv", Prediction, table)
    np.save(folder / "logits.npy", logits)
    units = np.array([row.unit for row in rows], np.int64)
    artifacts.write_metrics(
        summary.metrics_document(labels, scored, classes, options, units=units), folder=project.path
    )
    curve = summary.curve_tables(labels, scored, classes, options)["roc"]
    write_table(project.path / artifacts.CURVES / "roc.csv", type(curve[0]), curve)


def save(project: Project, name: str) -> None:
    project.run(sys.executable, "-m", "dvc", "exp", "save", "--force", "--name", name)


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout with experiments; its workspace is that of the last one."""
    project = finished.copy(tmp_path_factory.mktemp("experiments") / "project")
    settle(project, "twin", noise=0.2, lr="0.0021")
    settle(project, "poor", noise=12.0, lr="0.1")
    project.run("git", "checkout", "--quiet", "--", ".")
    project.run(sys.executable, "-m", "dvc", "checkout", "--force", "--quiet")
    rows = read_table(project.path / artifacts.PREDICTIONS / "predictions.csv", Prediction)
    write_evaluation(project, rows[:300], np.load(project.path / artifacts.PREDICTIONS / "logits.npy")[:300])
    save(project, "fewer-images")
    (project.path / artifacts.METRICS).write_text('{"accuracy": 0.9}\n', "utf-8")
    save(project, "old-format")
    project.run("git", "checkout", "--quiet", "--", ".")
    project.run(sys.executable, "-m", "dvc", "checkout", "--force", "--quiet")
    settle(project, "gone", noise=0.5, draw=9, lr="0.0005")
    with chdir(project.path):
        gone = next(experiment for experiment in all_experiments() if experiment.name == "gone")
        for file in gone.files("evaluation/predictions").values():
            file.unlink()
    return project


@pytest.fixture(scope="module")
def page(project: Project) -> str:
    """The page that the command writes."""
    finished = project.run(sys.executable, "-m", "retinue.cli", "dashboard", "--baseline", "HEAD")
    target = project.path / "dashboard" / "index.html"
    assert finished.stdout.splitlines()[-1] == f"dashboard {target.resolve().as_uri()}"
    assert "6 of 7" in finished.stderr
    return target.read_text("utf-8")


@pytest.fixture
def inside(project: Project) -> Iterator[Project]:
    with chdir(project.path):
        yield project


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def rows_of(page: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in data_of(page)["rows"]}


def shown(project: Project) -> dict[str, Mapping[str, Any]]:
    """Name -> what `dvc exp show --json` has of it."""
    text = project.run(sys.executable, "-m", "dvc", "exp", "show", "--json").stdout
    workspace, baseline = json.loads(text)
    found = {"workspace": workspace["data"], "HEAD": baseline["data"]}
    for experiment in baseline["experiments"]:
        (revision,) = experiment["revs"]
        found[revision["name"]] = revision["data"]
    return found


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def test_every_number_is_that_of_dvc(project: Project, page: str) -> None:
    rows, common = rows_of(page), data_of(page)["common"]
    dvc = shown(project)
    assert set(rows) == set(dvc) - {"old-format"} == {"workspace", "HEAD", "twin", "poor", "fewer-images", "gone"}
    for name, row in rows.items():
        assert row["metrics"] == flat(dvc[name]["metrics"]["evaluation/metrics.json"]["data"])  # DVC leaves lists out
        params = flat(dvc[name]["params"]["params.yaml"]["data"])
        ours = {**common, **row["settings"]}
        assert set(ours) == set(params)
        for key, value in params.items():
            assert ours[key] == (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)), key


def test_curves_are_those_of_dvc_plots_diff(project: Project, page: str) -> None:
    """Point by point; a curve of more than 121 points is thinned, which does not move its area."""
    text = project.run(sys.executable, "-m", "dvc", "plots", "diff", "HEAD", "poor", "--json").stdout
    content = json.loads(text)["data"]["ROC"][0]["content"]
    drawn = (json.loads(content) if isinstance(content, str) else content)["data"]["values"]
    equal = 0
    for name in ("HEAD", "poor"):
        for curve, ours in rows_of(page)[name]["curves"].items():
            rows = [row for row in drawn if (row["rev"], row["curve"]) == (name, curve)]
            theirs = [[float(row[key]) for row in rows] for key in ("false_positive_rate", "true_positive_rate")]
            assert np.trapezoid(ours[1], ours[0]) == pytest.approx(np.trapezoid(theirs[1], theirs[0]), abs=1e-12)
            if len(rows) <= 121:
                assert ours == theirs
                equal += 1
    assert equal > 10


def test_every_digit_of_metrics_json_stands_in_the_table(project: Project, page: str) -> None:
    with chdir(project.path):
        texts = {e.name: e.text("evaluation/metrics.json") for e in (*all_experiments(), committed("HEAD"))}
    texts["workspace"] = (project.path / artifacts.METRICS).read_text("utf-8")
    for name, row in rows_of(page).items():
        assert row["intervals"] == json.loads(texts[name])["intervals"]
        line = re.search(rf'<tr data-row="{row_index(page, name)}">.*?</tr>', page, re.DOTALL)
        assert line
        for number in re.findall(r'_(?:score|error|loss)": ([\d.e-]+)', texts[name]):
            assert f'data-value="{number}"' in line[0], (name, number)


def row_index(page: str, name: str) -> int:
    return next(i for i, row in enumerate(data_of(page)["rows"]) if row["name"] == name)


def test_settings_that_differ_are_columns(page: str) -> None:
    assert [column["name"] for column in data_of(page)["changed"]] == ["optimizer.lr"]


def test_the_paired_test_is_that_of_the_stored_predictions(project: Project, page: str) -> None:
    """Recomputed from the files that DVC itself hands out."""
    with chdir(project.path):
        revisions = {e.name: e.revision for e in all_experiments()}

    def right(name: str) -> np.ndarray:
        system = DVCFileSystem(str(project.path), rev=revisions[name])
        rows = csv.DictReader(system.read_text("evaluation/predictions/predictions.csv").splitlines())
        return np.array([row["label"] == row["predicted"] for row in rows])

    twin, poor = right("twin"), right("poor")
    i, j = sorted((row_index(page, "twin"), row_index(page, "poor")))
    found = next(pair for pair in data_of(page)["pairs"] if pair[:2] == [i, j])
    only_twin, only_poor = int((twin & ~poor).sum()), int((poor & ~twin).sum())
    sense = 1 if i == row_index(page, "twin") else -1
    assert found[2] == pytest.approx(sense * (only_twin - only_poor) / len(twin))
    assert found[5] == pytest.approx(stats.binomtest(only_twin, only_twin + only_poor).pvalue)
    assert rows_of(page)["poor"]["standings"]["accuracy_score"]["apart"] is True
    assert rows_of(page)["twin"]["standings"]["accuracy_score"]["apart"] is False


def test_other_test_images_are_a_set_of_their_own(page: str) -> None:
    sets = {row["set"]: [] for row in data_of(page)["rows"]}
    for name, row in rows_of(page).items():
        sets[row["set"]].append(name)
    assert sorted(map(sorted, sets.values())) == [["HEAD", "gone", "poor", "twin", "workspace"], ["fewer-images"]]


def test_what_is_broken_is_listed_with_its_reason(page: str) -> None:
    notes = page[page.index('<section id="notes">') :]
    assert "<strong>old-format</strong>" in notes
    assert "has no accuracy_score" in notes
    assert "predictions: evaluation/predictions/predictions.csv is not in DVC&#39;s cache" in notes
    assert rows_of(page)["gone"]["predicted"] is None
    assert rows_of(page)["gone"]["curves"]  # what is there is shown


def test_overlays_are_those_of_the_experiments(project: Project, page: str) -> None:
    gallery = read_json(project.path / GALLERY)["images"]
    images = data_of(page)["images"]
    assert 0 < len(images) <= 16
    ids = {entry["image_id"]: entry for entry in gallery}
    for image in images:
        for overlay in image["overlays"].values():
            assert overlay["uri"].startswith("data:image/jpeg;base64,")
            assert overlay["confidence"] == ids[image["id"]]["confidence"]


def test_reading_is_what_dvc_would_read(inside: Project) -> None:
    experiment = next(e for e in all_experiments() if e.name == "twin")
    system = DVCFileSystem(str(inside.path), rev=experiment.revision)
    for path in ("models/architecture.json", "explanations/gallery.json", "data/processed/dataset.json"):
        assert experiment.files(path)[""].read_bytes() == system.read_bytes(path)
    files = experiment.files("models")
    assert set(files) == {Path(p).name for p in system.find("models")}
    assert experiment.document("models/architecture.json") == json.loads(system.read_text("models/architecture.json"))
    assert experiment.document("evaluation/metrics.json") == json.loads(system.read_text("evaluation/metrics.json"))
    with pytest.raises(RetinueError, match=r"no output data/elsewhere"):
        experiment.files("data/elsewhere")
    with pytest.raises(RetinueError, match=r"no file data/raw/nothing"):
        experiment.files("data/raw/nothing")


def test_the_bundle_in_the_cache_predicts(inside: Project, tmp_path: Path) -> None:
    from retinue.bundle import Bundle

    experiment = next(e for e in all_experiments() if e.name == "twin")
    for name, cached in experiment.files("models").items():
        (tmp_path / name).symlink_to(cached)
    bundle = Bundle.load(tmp_path)
    assert bundle.predict([np.zeros((32, 32), np.uint8)]).logits.shape == (1, 10)


def test_latency_is_measured_when_it_is_asked_for(inside: Project) -> None:
    from retinue.dashboard.command import run

    target = run(["twin", "gone"], output=inside.path / "timed.html", baseline=None, images=0, with_latency=True)
    rows = rows_of(target.read_text("utf-8"))
    assert set(rows) == {"twin", "gone"}
    assert all(0 < row["cost"]["latency"] < 1000 for row in rows.values())


def test_a_large_page_is_warned_of(
    inside: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retinue.dashboard import command

    monkeypatch.setattr(command, "LARGE_BYTES", 1000)
    command.run(["twin"], output=inside.path / "large", baseline=None, images=0, with_latency=False)
    assert "warning: more than 1.00 kB; fewer --images" in capsys.readouterr().out
    assert (inside.path / "large" / "index.html").is_file()


def test_without_latency_there_is_no_torch(project: Project) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from retinue.cli import main\n"
        "result = CliRunner().invoke(main, ['dashboard', '--output', 'light.html'])\n"
        "assert result.exit_code == 0, result.output\n"
        "assert 'torch' not in sys.modules and 'pytorch_lightning' not in sys.modules"
    )
    project.run(sys.executable, "-c", code)
    assert "latency" not in (project.path / "light.html").read_text("utf-8").split("<main")[1].split('id="reading"')[0]


def test_nothing_in_the_checkout_changes(project: Project, page: str) -> None:
    def state() -> str:
        git = project.run("git", "status", "--porcelain").stdout + project.run("git", "for-each-ref").stdout
        stage = project.run("git", "diff").stdout
        return hashlib.sha256((git + stage).encode()).hexdigest()

    before = state()
    project.run(sys.executable, "-m", "retinue.cli", "dashboard", "twin", "poor")
    assert state() == before
    assert (project.path / "dashboard" / "index.html").is_file()
    assert not list(project.path.glob("dashboard/*.partial"))


def test_names_choose(inside: Project) -> None:
    assert [o.name for o, _ in chosen_outcomes(["poor", "workspace"], None)] == ["workspace", "poor"]
    with pytest.raises(RetinueError, match=r"Unknown experiment 'twni'. Did you mean 'twin'\?"):
        chosen_outcomes(["twni"], None)
    with pytest.raises(RetinueError, match="git knows no commit 'nowhere'"):
        chosen_outcomes([], "nowhere")


def test_without_experiments_it_says_how_to_make_one(finished: Project) -> None:
    failed = finished.run(sys.executable, "-m", "retinue.cli", "dashboard", check=False)
    assert failed.returncode == 1
    assert "dvc exp run -S" in failed.stderr
    assert "Traceback" not in failed.stderr
    alone = finished.run(
        *(sys.executable, "-m", "retinue.cli", "dashboard", "--baseline", "HEAD", "--output", "out/page.html")
    )
    assert alone.stdout.splitlines()[0].startswith("2 ")
    shutil.rmtree(finished.path / "out")


@pytest.mark.slow
def test_a_hundred_experiments_take_well_under_a_minute(inside: Project) -> None:
    """Each is read anew: nothing is kept from one to the next but the manifest they share."""
    twin = next(e for e in all_experiments() if e.name == "twin")
    many = [(Experiment(f"e{n:03d}", twin.revision, twin.baseline), "experiment") for n in range(100)]
    begun = time.process_time()
    board = collect(many, images=8, measure=None, progress=lambda _: None)
    text = render_dashboard(board, "many")
    assert time.process_time() - begun < 40
    assert len(board.groups[0].pairs["auc_score"]) == 40 * 39 / 2
    assert len(text.encode()) < 25_000_000


def test_git_ignores_the_page(project: Project) -> None:
    ignored = subprocess.run(["git", "check-ignore", "dashboard/index.html"], cwd=project.path, check=False)
    assert ignored.returncode == 0
