"""The real W&B client: files of offline runs, a server on the loopback interface, and what goes wrong."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from omegaconf import OmegaConf
from PIL import Image

import wandb_offline
import wandb_server
from retinue.pipeline import wandb_client
from retinue.pipeline.errors import RetinueError, SettingsError
from retinue.pipeline.record import dvc_md5
from retinue.pipeline.settings import Settings, fingerprint_of
from retinue.pipeline.tracker import MODES, Tracker, TrackingSettings, track
from retinue.pipeline.wandb_charts import MAX_POINTS, evenly
from retinue.tracking import runs

X = [step / 20_000 for step in range(20_001)]
DVC_YAML = """
stages:
  train:
    cmd: python train.py
    deps: ["${source.inputs}"]
    outs: [models]
"""


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one stage, its dependency and an empty home folder, entered; W&B is not configured."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, home in (("HOME", ""), ("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config")):
        monkeypatch.setenv(name, str(tmp_path / "home" / home))
    (tmp_path / "home").mkdir()
    Path("dvc.yaml").write_text(DVC_YAML)
    Path("data.csv").write_text("label\n1\n")
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[wandb_server.Server]:
    with wandb_server.serving() as server:
        use(server, monkeypatch)
        yield server


def use(server: wandb_server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.API_KEY)


def settings(mode: str, **changes: Any) -> Settings:
    own = {"mode": mode, "project": "ants", "entity": None, "tags": ["first"], "timeout_s": 30, "finish_timeout_s": 300}
    own |= changes
    model = {"name": "lenet5", "layers": [6, 16], "dropout": None}
    return Settings({"source": {"inputs": "data.csv"}, "model": model, "seed": 0, "tracking": own, "trainer": {}})


def run_stage(tracker: Tracker) -> None:
    """A stage that writes a model and logs everything there is to log."""
    Path("models/parts").mkdir(parents=True, exist_ok=True)
    Path("models/weights.bin").write_bytes(bytes(range(256)))
    Path("models/parts/head.bin").write_bytes(b"head")
    Image.new("RGB", (4, 3), (255, 0, 0)).save("red.png")
    tracker.images("overlays", [Path("red.png"), Path("red.png")], ["an ant", "a bee"])
    tracker.curves("roc", {"ant": (X, X), "bee": (X, [x * x for x in X])}, x_name="rate", title="ROC")
    tracker.table("quarantine", ["image", "reason"], [["a.jpg", "truncated"], [7, None]])
    tracker.summary({"test/auc_score": 0.96, "epochs": 3})
    tracker.artifact(Path("models"), "model")
    tracker.artifact(Path("data.csv"), "dataset")


def offline_folder() -> Path:
    (folder,) = Path(".cache/wandb").glob("offline-run-*")
    return folder


def offline_run() -> wandb_offline.Run:
    (path,) = offline_folder().glob("run-*.wandb")
    return wandb_offline.read_run(path)


def sync(command: str) -> None:
    """Runs `command`, a `wandb sync …`, without the client's reports to its makers."""
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        env={**os.environ, "WANDB_ERROR_REPORTING": "false"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Finished syncing" in done.stderr, done.stderr


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def named(artifacts: list[Any], name: str) -> Any:
    (found,) = [artifact for artifact in artifacts if artifact.name == name]
    return found


def named_as(artifacts: list[Any], ending: str) -> Any:
    (found,) = [artifact for artifact in artifacts if artifact.name.endswith(ending)]
    return found


def without_times(values: Any) -> Any:
    """`values` without what differs between two runs that log the same: times and W&B's ids of artifacts."""
    if not isinstance(values, Mapping):
        return values
    changing = ("_timestamp", "_runtime", "_wandb", "_latest_artifact_path", "artifact_path")
    return {key: without_times(value) for key, value in values.items() if key not in changing}


@pytest.mark.slow
def test_offline_run_names_stage_settings_and_lineage():
    given = settings("offline")
    with track("train", given) as tracker:
        run_stage(tracker)
    run = offline_run()
    fingerprint = given.fingerprint()
    assert (run.project, run.group, run.job_type) == ("ants", fingerprint, "train")
    assert (run.name, run.tags, run.exit_code) == (f"train-{fingerprint}", ["first"], 0)
    lineage = run.config.pop("lineage")
    del run.config["_wandb"]
    assert run.config == given.all()
    assert json.loads(lineage.pop("settings")) == given.all()
    assert lineage == {
        "git_revision": None,
        "git_dirty": None,
        "settings_fingerprint": fingerprint,
        "deps": {"data.csv": "4c55a844d6128af93921a7b3f4d89d0c"},
    }
    assert run.summary["outs"] == {"models": dvc_md5(Path("models"))}
    assert (run.summary["test/auc_score"], run.summary["epochs"]) == (0.96, 3)


@pytest.mark.slow
def test_a_run_names_its_experiment_and_its_sweep(monkeypatch: pytest.MonkeyPatch):
    told = {"DVC_EXP_NAME": "rates-3", "DVC_EXP_BASELINE_REV": "a" * 40, "RETINUE_SWEEP": "rates"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with track("train", settings("offline")) as tracker:
        run_stage(tracker)
    run = offline_run()
    named = {"experiment": "rates-3", "baseline": "a" * 40, "sweep": "rates"}
    assert {key: run.config["lineage"][key] for key in named} == named
    assert run.tags == ["first", "rates"]
    metadata = [artifact.metadata for artifact in run.artifacts if "dvc_md5" in artifact.metadata]
    assert len(metadata) == 2
    assert all({key: each[key] for key in named} == named for each in metadata)


def test_a_sweep_that_is_a_tag_already_is_one_tag_and_a_long_one_is_cut(monkeypatch: pytest.MonkeyPatch):
    for sweep, tags in (("first", ["first"]), ("s" * 70, ["first", "s" * 64])):
        monkeypatch.setenv("RETINUE_SWEEP", sweep)
        monkeypatch.setenv("WANDB_DIR", str(Path(sweep[:5]).absolute()))
        with track("train", settings("offline")):
            pass
        (path,) = Path(sweep[:5]).glob("wandb/offline-run-*/run-*.wandb")
        assert wandb_offline.read_run(path).tags == tags


@pytest.mark.parametrize("place", ["folder", "server"])
def test_the_settings_come_back_from_a_run_to_the_last_digit(
    place: str, server: wandb_server.Server, monkeypatch: pytest.MonkeyPatch
):
    """W&B itself makes 1.0 a 1, and another fingerprint of the settings."""
    Path("conf").mkdir()
    exact = {"lr": 1e-06, "factor": 1.0, "zero": 0.0, "many": 12345678.0, "ü": None, "steps": [1, 2.0]}
    own = {**settings("online").plain("tracking"), "entity": wandb_server.ENTITY}
    given = Settings({**settings("online").all(), "tracking": own, "optimizer": exact})
    with track("train", given):
        pass
    (sent,) = server.runs.values()
    name = next(Path(".cache/wandb").glob("run-*")).name if place == "folder" else f"tester/ants/{sent.run_id}"
    run = runs.local_run(f".cache/wandb/{name}") if place == "folder" else runs.online_run(name)
    assert run is not None
    assert (run.stage, run.group, run.state, run.sent) == ("train", given.fingerprint(), "finished", True)
    assert run.url == f"{server.url}/tester/ants/runs/{sent.run_id}"
    assert fingerprint_of(json.loads(run.lineage["settings"])) == given.fingerprint()
    assert server.unknown == []


@pytest.mark.slow
def test_the_runs_of_a_group_are_found_on_this_machine_and_on_the_server(server: wandb_server.Server):
    Path("conf").mkdir()
    for given in (settings("online"), Settings({**settings("online").all(), "seed": 1})):
        for stage in ("train", "evaluate"):
            with track(stage, given):
                pass
    fingerprint = settings("online").fingerprint()
    local, online = runs.local_runs(fingerprint), runs.online_runs("tester/ants", fingerprint)
    assert [run.stage for run in local] == [run.stage for run in online] == ["train", "evaluate"]
    assert {run.run_id for run in local} == {run.run_id for run in online}
    assert all(run.sent and run.folder is not None for run in local)
    assert len(server.runs) == 4


@pytest.mark.slow
def test_a_run_that_was_synced_is_known_as_sent(server: wandb_server.Server):
    Path("conf").mkdir()
    with track("train", settings("offline")):
        pass
    (run,) = runs.local_runs(settings("offline").fingerprint())
    assert (run.sent, run.url, run.folder) == (False, None, str(offline_folder()))
    sync(f"wandb sync {run.folder}")
    assert runs.read_folder(offline_folder()).sent


def test_a_run_that_is_not_on_the_server_is_told(server: wandb_server.Server):
    Path("conf").mkdir()
    with pytest.raises(RetinueError, match="Could not find run") as caught:
        runs.online_run("tester/ants/absent")
    assert server.url in str(caught.value)


@pytest.mark.slow
def test_offline_run_holds_charts_images_and_tables():
    with track("train", settings("offline")) as tracker:
        run_stage(tracker)
    run, files = offline_run(), offline_folder() / "files"
    logged = {key: value for row in run.history for key, value in row.items()}
    assert logged["overlays"]["captions"] == ["an ant", "a bee"]
    assert (logged["overlays"]["width"], logged["overlays"]["height"]) == (4, 3)
    assert all((files / name).is_file() for name in logged["overlays"]["filenames"])
    points = json.loads((files / logged["roc_table"]["path"]).read_text())["data"]
    assert len(points) == MAX_POINTS
    bee = [(x, y) for x, name, y in points if name == "bee"]
    assert (bee[0], bee[-1]) == ((0, 0), (1, 1))
    assert all(y == x * x for x, y in bee)
    table = json.loads((files / logged["quarantine"]["path"]).read_text())
    assert (table["columns"], table["data"]) == (["image", "reason"], [["a.jpg", "truncated"], [7, None]])
    assert run.step_metrics == {"train/*": "epoch", "val/*": "epoch", "lr": "epoch"}


def test_confusion_counts_pictures_and_pages_are_held():
    Image.new("RGB", (4, 3), (255, 0, 0)).save("red.png")
    with track("train", settings("offline")) as tracker:
        tracker.confusion("confusion", [("ant", "ant", 3), ("bee", "ant", 1)], title="confusion matrix")
        tracker.bars("classes", {"ant": 3, "bee": 1}, label="class", title="images of each class")
        tracker.histogram("sides", [10, 10, 20])
        tracker.table(
            "predictions", ["image", "map", "label"], [[np.zeros((3, 4, 1), np.uint8), Path("red.png"), "ant"]]
        )
        Path("page.html").write_text("<p>report</p>")
        tracker.page("report", Path("page.html"))
    run, files = offline_run(), offline_folder() / "files"
    logged = {key: value for row in run.history for key, value in row.items()}
    cells = json.loads((files / logged["confusion_table"]["path"]).read_text())["data"]
    assert sorted(cells) == [["ant", "ant", 3], ["ant", "bee", 0], ["bee", "ant", 1], ["bee", "bee", 0]]
    bars = json.loads((files / logged["classes_table"]["path"]).read_text())
    assert (bars["columns"], bars["data"]) == (["class", "images"], [["ant", 3], ["bee", 1]])
    assert sum(logged["sides"]["values"]) == 3
    assert (files / logged["report"]["path"]).read_text() == "<p>report</p>"
    pictures = named_as(run.artifacts, "predictions")  # W&B keeps a table with pictures as an artifact
    assert sum(name.endswith(".png") for name in pictures.files) == 2


@pytest.mark.slow
def test_artifacts_carry_hashes_and_datasets_stay_with_dvc():
    given = settings("offline")
    with track("train", given) as tracker:
        run_stage(tracker)
    artifacts = offline_run().artifacts
    model, data = named(artifacts, "models"), named(artifacts, "data.csv")
    assert (model.type, model.files) == ("model", ["parts/head.bin", "weights.bin"])
    assert (data.type, data.files) == ("dataset", ["dvc.json"])
    assert data.metadata == {
        "path": "data.csv",
        "dvc_md5": "4c55a844d6128af93921a7b3f4d89d0c",
        "git_revision": None,
        "git_dirty": None,
        "settings_fingerprint": given.fingerprint(),
    }
    assert model.metadata["dvc_md5"] == dvc_md5(Path("models"))
    assert set(model.aliases) == {"latest", given.fingerprint()}


@pytest.mark.slow
def test_everything_goes_below_the_cache_and_one_line_is_printed(
    checkout: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    environment = dict(os.environ)
    threads = set(threading.enumerate())
    with track("train", settings("offline")) as tracker:
        run_stage(tracker)
    assert dict(os.environ) == environment
    assert set(threading.enumerate()) == threads
    assert [child for child in psutil.Process().children() if child.name() == "wandb-core"] == []
    own = {"dvc.yaml", "data.csv", "red.png", "models/weights.bin", "models/parts/head.bin"}
    outside = {name for name in files_below(checkout) if not name.startswith(".cache/wandb/")}
    assert outside == own
    assert files_below(checkout.parent / "home") == set()
    output = capfd.readouterr()
    assert output.out == f"W&B run train-{settings('offline').fingerprint()}: {offline_folder()}\n"
    assert output.err == ""


@pytest.mark.slow
def test_wandb_dir_of_the_user_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "kept"))
    with track("train", settings("offline")) as tracker:
        run_stage(tracker)
    assert not Path(".cache").exists()
    assert len(list((tmp_path / "kept/wandb").glob("offline-run-*/run-*.wandb"))) == 1


def test_off_imports_nothing_and_writes_nothing(root: Path, checkout: Path):
    code = """
import sys
from pathlib import Path
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import track
own = {"mode": "off", "project": "ants", "entity": None, "tags": [], "timeout_s": 30, "finish_timeout_s": 300}
with track("train", Settings({"tracking": own, "trainer": {}})) as tracker:
    tracker.summary({"a": 1})
    tracker.images("b", [Path("none.png")], ["c"])
    tracker.curves("d", {"e": ([0], [0])}, x_name="f", title="g")
    tracker.confusion("j", [("k", "k", 1)], title="l")
    tracker.bars("m", {"n": 1}, label="o", title="p")
    tracker.histogram("q", [1])
    tracker.page("r", Path("none.html"))
    tracker.table("h", ["i"], [[0]])
    tracker.artifact(Path("none"), "model")
    assert tracker.lightning_logger() is False
print(sorted({"wandb", "torch", "pytorch_lightning"} & set(sys.modules)))
"""
    before = files_below(checkout)
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert files_below(checkout) == before


def test_an_out_that_is_taken_away_costs_its_artifact_alone(capfd: pytest.CaptureFixture[str]):
    with track("train", settings("offline")) as tracker:
        tracker.artifact(Path("models"), "model")
        tracker.summary({"epochs": 3})
    assert "warning: W&B gets no artifact models: it is not there, or cannot be read" in capfd.readouterr().err
    assert offline_run().summary["epochs"] == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failed_stage_is_a_failed_run(error: type[BaseException]):
    with pytest.raises(error), track("train", settings("offline")) as tracker:
        tracker.summary({"reached": 1})
        raise error
    run = offline_run()
    assert (run.exit_code, run.summary["reached"]) == (1, 1)
    assert "outs" not in run.summary


KILLED = """
import sys
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import track
own = {"mode": "offline", "project": "ants", "entity": None, "tags": [], "timeout_s": 30, "finish_timeout_s": 300}
values = {"source": {"inputs": "data.csv"}, "tracking": own, "trainer": {}}
with track("train", Settings(values)) as tracker:
    for epoch in range(3):
        tracker._run.wandb_run.log({"epoch": epoch, "train/loss": 1 / (epoch + 1)})
    sys.stdin.read()
"""


@pytest.mark.slow
def test_history_survives_kill_9(root: Path):
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"W&B run train-")
        deadline = time.monotonic() + 10  # the flush by default comes after 15 s
        while not (list(Path(".cache/wandb").glob("offline-run-*/run-*.wandb")) and len(offline_run().history) == 3):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the history is not written while the stage runs"
            time.sleep(0.05)
        (service,) = psutil.Process(process.pid).children()
        for killed in (service, process):
            killed.send_signal(signal.SIGKILL)
        assert process.wait(timeout=10) == -signal.SIGKILL
        service.wait(timeout=10)
    run = offline_run()
    assert [row["train/loss"] for row in run.history] == [1, 1 / 2, 1 / 3]
    assert run.exit_code is None


@pytest.mark.slow
def test_service_ends_with_a_killed_stage(root: Path):
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"W&B run train-")
        (service,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=10) == -signal.SIGKILL
    service.wait(timeout=20)
    assert not service.is_running()


@pytest.mark.slow
def test_online_run_arrives(server: wandb_server.Server, capfd: pytest.CaptureFixture[str]):
    given = settings("online")
    with track("train", given) as tracker:
        run_stage(tracker)
    with track("evaluate", given) as tracker:
        tracker.summary({"test/auc_score": 0.5})
    assert server.unknown == []
    first, second = server.runs.values()
    assert (first.group, first.job_type) == (given.fingerprint(), "train")
    assert (second.group, second.job_type) == (given.fingerprint(), "evaluate")
    assert (first.project, first.name, first.tags) == ("ants", f"train-{given.fingerprint()}", ["first"])
    assert first.config["model"]["layers"] == [6, 16]
    assert first.config["lineage"]["deps"] == {"data.csv": "4c55a844d6128af93921a7b3f4d89d0c"}
    logged = [key for row in first.history for key in row if not key.startswith("_")]
    assert logged == ["overlays", "roc_table", "quarantine"]
    assert (first.summary["test/auc_score"], second.summary["test/auc_score"]) == (0.96, 0.5)
    assert (first.exit_code, second.exit_code) == (0, 0)
    model, data = named(first.artifacts, "models"), named(first.artifacts, "data.csv")
    assert model.committed
    assert model.files["weights.bin"] == bytes(range(256))
    assert model.files["parts/head.bin"] == b"head"
    assert json.loads(data.files["dvc.json"])["dvc_md5"] == dvc_md5(Path("data.csv"))
    output = capfd.readouterr()
    lines = [f"W&B run {run.name}: {server.url}/tester/ants/runs/{run.run_id}" for run in (first, second)]
    assert output.out.splitlines() == lines
    assert output.err == ""


def test_failed_stage_is_a_failed_run_online(server: wandb_server.Server):
    with pytest.raises(ValueError, match="bad"), track("train", settings("online")):
        raise ValueError("bad")
    (run,) = server.runs.values()
    assert run.exit_code == 1


@pytest.mark.slow
def test_syncing_an_offline_run_sends_what_an_online_run_sends(server: wandb_server.Server, checkout: Path):
    with track("train", settings("online")) as tracker:
        run_stage(tracker)
    with track("train", settings("offline")) as tracker:
        run_stage(tracker)
    sync(f"wandb sync {offline_folder()}")
    assert server.unknown == []
    online, synced = server.runs.values()
    assert synced.run_id == offline_run().run_id
    for attribute in ("project", "group", "job_type", "name", "tags", "exit_code"):
        assert getattr(synced, attribute) == getattr(online, attribute)
    for run in (online, synced):  # the one setting that differs, and the copy of it
        del run.config["tracking"]["mode"], run.config["lineage"]["settings"]
    assert without_times(synced.config) == without_times(online.config)
    assert without_times(synced.summary) == without_times(online.summary)
    assert [without_times(row) for row in synced.history] == [without_times(row) for row in online.history]
    for name in ("models", "data.csv"):
        one, other = named(online.artifacts, name), named(synced.artifacts, name)
        del one.files["wandb_manifest.json"], other.files["wandb_manifest.json"]
        assert one == other


@contextmanager
def refused_start() -> Iterator[pytest.ExceptionInfo[RetinueError]]:
    """A start that is refused, and leaves earlier results and the process as they were."""
    Path("models").mkdir()
    Path("models/weights.bin").write_bytes(b"earlier")
    threads = set(threading.enumerate())
    with pytest.raises(RetinueError) as caught:
        yield caught
    assert Path("models/weights.bin").read_bytes() == b"earlier"
    assert set(threading.enumerate()) == threads


def test_online_without_a_key_says_what_to_do(server: wandb_server.Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_API_KEY")
    with refused_start() as caught, track("train", settings("online")):
        pytest.fail("the stage ran")
    assert str(caught.value) == (
        f"tracking.mode=online: no API key for {server.url}. Run `wandb login`, "
        "or choose tracking=offline (`wandb sync` sends such runs later)."
    )
    assert server.runs == {}


@pytest.mark.slow
def test_online_with_a_wrong_key_is_kept_and_sent_with_the_right_one(
    server: wandb_server.Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with track("train", settings("online")) as tracker:
        run_stage(tracker)
    output = capfd.readouterr()
    (warning,) = output.err.splitlines()
    assert f"{server.url} does not take the run: invalid API key." in warning
    assert output.out == f"W&B run train-{settings('online').fingerprint()}: {offline_folder()}\n"
    assert server.runs == {}
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.API_KEY)
    advice = re.search(r"`(wandb sync .*?)` sends it", warning)
    assert advice is not None, warning
    sync(advice[1])
    (run,) = server.runs.values()
    assert (run.exit_code, run.summary["test/auc_score"]) == (0, 0.96)


@pytest.mark.slow
def test_server_that_goes_away_costs_nothing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setattr(wandb_client, "RETRIES", 1)
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    with ExitStack() as leaving:
        use(leaving.enter_context(wandb_server.serving()), monkeypatch)
        with track("train", settings("online", finish_timeout_s=1)) as tracker:
            leaving.close()
            tracker.table("quarantine", ["image"], [["a.jpg"]])
            tracker.summary({"test/auc_score": 0.96})
            tracker.artifact(Path("data.csv"), "dataset")
    warnings = capfd.readouterr().err
    advice = re.search(r"did not take the end of the run .* `(wandb sync .*)` sends what is on disk", warnings)
    assert advice is not None, warnings
    with wandb_server.serving() as back:
        use(back, monkeypatch)
        sync(advice[1])
    (run,) = back.runs.values()
    assert (run.exit_code, run.summary["test/auc_score"]) == (0, 0.96)
    assert [row["quarantine"]["nrows"] for row in run.history] == [1]


@pytest.mark.slow
def test_artifact_that_the_server_refuses_is_told(
    server: wandb_server.Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    server.refused.add("CreateArtifact")
    with track("train", settings("online")) as tracker:
        run_stage(tracker)
    warnings = capfd.readouterr().err.splitlines()
    assert len(warnings) == 2
    assert warnings[0].startswith("warning: W&B did not take the artifact models ")
    assert "CreateArtifact is refused" in warnings[0]
    (run,) = server.runs.values()
    assert (run.exit_code, run.summary["test/auc_score"]) == (0, 0.96)


def test_chart_whose_name_is_too_long_is_told(capfd: pytest.CaptureFixture[str]):
    with track("evaluate", settings("offline")) as tracker:
        tracker.curves(f"test/roc/{'a' * 200}", {"rate": ([0, 1], [0, 1])}, x_name="rate", title="ROC")
        tracker.curves("test/roc/bee", {"rate": ([0, 1], [0, 1])}, x_name="rate", title="ROC")
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith("warning: W&B did not take test/roc/aaa")
    assert warning.endswith("The results are not affected.")
    assert [key for row in offline_run().history for key in row if not key.startswith("_")] == ["test/roc/bee_table"]


def test_service_that_is_killed_costs_nothing(capfd: pytest.CaptureFixture[str]):
    with track("train", settings("offline")) as tracker:
        (service,) = [child for child in psutil.Process().children() if child.name() == "wandb-core"]
        service.kill()
        service.wait(timeout=10)
        run_stage(tracker)
    (warning,) = capfd.readouterr().err.splitlines()
    assert "warning: W&B did not take overlays" in warning
    assert "Nothing more of this stage is logged. The results are not affected." in warning
    assert f"`wandb sync {offline_folder()}` sends what is on disk" in warning


def test_lightning_logs_against_epochs_and_leaves_no_files(checkout: Path):
    import pytorch_lightning as L
    import torch
    from torch.utils.data import DataLoader

    class Line(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(0.0))

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            loss = ((self.slope - 1) * batch).square().mean()
            self.log("train/loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: torch.Tensor, index: int) -> None:
            self.log("val/error", (self.slope - 1).abs())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.25)

    loader = DataLoader(torch.ones(2, 1), batch_size=2)
    before = files_below(checkout)
    with track("train", settings("offline")) as tracker:
        trainer = L.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=tracker.lightning_logger(),
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[L.callbacks.ModelCheckpoint()],
        )
        trainer.fit(Line(), loader, loader)
    rows = offline_run().history
    # loss = (slope - 1)², d loss / d slope = 2 (slope - 1): a step of 0.25 halves slope - 1
    assert [(row["epoch"], row["train/loss"]) for row in rows if "train/loss" in row] == [
        (1, 1),
        (2, 1 / 4),
        (3, 1 / 16),
    ]
    assert [(row["epoch"], row["val/error"]) for row in rows if "val/error" in row] == [
        (1, 1 / 2),
        (2, 1 / 4),
        (3, 1 / 8),
    ]
    assert {name for name in files_below(checkout) if not name.startswith(".cache/wandb/")} == before


def test_other_ranks_log_nothing(checkout: Path):
    before = files_below(checkout)
    tracker = Tracker(None)
    run_stage(tracker)
    tracker.finish(0)
    assert tracker.lightning_logger() is False
    assert files_below(checkout) - before == {"red.png", "models/weights.bin", "models/parts/head.bin"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mode": "ofline"},
            "tracking.mode: got 'ofline', expected one of offline, online, off. Did you mean 'offline'?",
        ),
        ({"mode": False}, "YAML reads a bare on, off, yes and no as true and false: put it in quotes."),
        (
            {"project": "a/b"},
            "project: got 'a/b', expected a text of 1 to 128 characters, none of / \\ # ? % :",
        ),
        (
            {"tags": [""], "timeout_s": 30, "finish_timeout_s": 300},
            "tracking.tags: got [''], expected a list of texts of 1 to 64 characters",
        ),
        ({"projct": "a"}, "Did you mean tracking.project?"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], message: str):
    values = {**settings("offline").all(), "tracking": {**settings("offline").plain("tracking"), **change}}
    with pytest.raises(SettingsError) as caught, track("train", Settings(values)):
        pytest.fail("the stage ran")
    assert message in str(caught.value)


def test_every_choice_in_conf_is_the_mode_it_is_named_after(root: Path):
    choices = sorted((root / "conf/tracking").glob("*.yaml"))
    assert [path.stem for path in choices] == sorted(MODES)
    for path in choices:
        values = OmegaConf.to_container(OmegaConf.load(path))
        assert Settings({"tracking": values}).section("tracking", TrackingSettings).mode == path.stem


@pytest.mark.parametrize("count", [1, 2, 9_999, 10_000, 10_001, 123_456])
def test_thinning_keeps_both_ends_and_spreads_evenly(count: int):
    rows = evenly(count, 10_000)
    assert len(rows) == min(count, 10_000)
    assert (rows[0], rows[-1]) == (0, count - 1)
    gaps = {after - before for before, after in pairwise(rows)}
    assert max(gaps, default=1) - min(gaps, default=1) <= 1
    assert 0 not in gaps
