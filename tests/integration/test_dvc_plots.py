"""`dvc plots show` draws every plot of dvc.yaml without a network."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc_render import VegaRenderer
from dvc_render.html import render_html

from project import Project
from retinue.dashboard.plots_page import write_template
from retinue.metrics.registry import Predicted
from retinue.metrics.summary import curve_tables, metrics_document
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Epoch
from retinue.pipeline.files import write_table

EVALUATE = {
    "calibration_bins": 15,
    "curve_points": 1000,
    "confidence_level": 0.95,
}


def elements(page: Path) -> str:
    """The page without what is inside its script elements."""
    return re.sub(r"(?s)(<script\b[^>]*>).*?</script>", r"\1", page.read_text("utf-8"))


@pytest.mark.slow
def test_a_page_made_from_the_template_refers_to_nothing_outside(tmp_path: Path) -> None:
    write_template(tmp_path / "made" / "template.html")
    plot = VegaRenderer([{"x": 1, "y": 2, "rev": "workspace"}], "plot", x="x", y="y", template="simple")
    render_html([plot], tmp_path / "page.html", tmp_path / "made" / "template.html")
    text = elements(tmp_path / "page.html")
    assert len(re.findall(r"<script\b", text)) == 2  # Vega, and the plot
    assert not re.search(r"<script[^>]*\ssrc|<link|https?://|\{\w+\}", text)
    assert "vegaEmbed('#plot'" in (tmp_path / "page.html").read_text("utf-8")


@pytest.fixture
def plotted(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A DVC repository with the plots of the project and results to draw."""
    project = Project(tmp_path)
    project.run("git", "init", "--quiet")
    project.run("dvc", "init", "--quiet")
    shutil.copytree(root / ".dvc" / "plots", tmp_path / ".dvc" / "plots")
    shutil.copy2(root / ".dvc" / "config", tmp_path / ".dvc" / "config")
    declared = yaml.safe_load((root / "dvc.yaml").read_text("utf-8"))
    (tmp_path / "dvc.yaml").write_text(
        yaml.safe_dump({"plots": declared["plots"], "metrics": [str(artifacts.METRICS)]}), "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    write_template(Path(".dvc/tmp/plots.html"))
    write_results(seed=0)
    project.commit("results")
    return project


def write_results(seed: int) -> None:
    """A history, and the curves and metrics of a classifier of three classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(90) % 3
    predicted = Predicted.from_logits(rng.normal(size=(90, 3)) + 2 * np.eye(3)[labels])
    classes = ["ant", "bee", "moth"]
    for name, rows in curve_tables(labels, predicted, classes, EVALUATE).items():
        write_table(artifacts.CURVES / f"{name}.csv", type(rows[0]), rows)
    artifacts.write_metrics(metrics_document(labels, predicted, classes, EVALUATE, units=np.arange(len(labels))))
    epochs = [Epoch(i, 0.1, 1 / (i + 1), 0.5, 1.1 / (i + 1), 0.5, 0.8, 3) for i in range(1, 6)]
    write_table(artifacts.MODEL / "history.csv", Epoch, epochs)


@pytest.mark.slow
def test_every_plot_is_drawn_without_a_network(plotted: Project) -> None:
    plotted.run("dvc", "plots", "show", "--out", "shown")
    page = drawn(plotted.path / "shown" / "index.html")
    assert (
        page.count('class="marks"') == len(yaml.safe_load((plotted.path / "dvc.yaml").read_text("utf-8"))["plots"]) >= 6
    )
    for text in ("ant", "moth", "macro", "train_loss", "ROC, test split"):
        assert f">{text}</text>" in page


@pytest.mark.slow
def test_plots_and_metrics_are_compared_without_a_network(plotted: Project) -> None:
    write_results(seed=1)
    plotted.run("dvc", "plots", "diff", "HEAD", "--out", "compared")
    page = drawn(plotted.path / "compared" / "index.html")
    assert page.count('class="marks"') >= 6
    assert page.count(">HEAD</text>") >= 6
    shown = plotted.run("dvc", "metrics", "diff", "--md").stdout
    assert re.search(r"\| accuracy_score +\| 0\.\d+ +\| 0\.\d+ +\| -?0\.\d+ +\|", shown)


def drawn(page: Path) -> str:
    """What Chromium makes of `page` when no host can be reached."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium to draw the page with")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [
        f"--user-data-dir={page.parent / 'profile'}",
        "--virtual-time-budget=10000",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
