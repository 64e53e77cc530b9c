"""Recorded results, found and computed again, in a project of one stage that takes a second."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wandb_server
from project import Project
from retinue.metrics import scalar
from retinue.metrics.registry import metrics_of
from retinue.pipeline import artifacts
from retinue.pipeline.composition import load_params
from retinue.pipeline.settings import fingerprint_of

COMMAND = [sys.executable, "-m", "retinue.cli"]
STAGE = """
import json, sys
from pathlib import Path
from retinue.pipeline.settings import Settings
from retinue.pipeline.composition import load_params
from retinue.pipeline.tracker import track

with track("evaluate", Settings(load_params())) as tracker:
    values = [int(path.read_text()) for path in sorted(Path("photos").iterdir())]
    score = load_params()["optimizer"]["lr"] * sum(values) / 7 + OFFSET
    metrics = {"auc_score": score, "num_images": len(values), "intervals": {"auc_score": [score / 2, 1.0]}}
    Path("evaluation/predictions").mkdir(parents=True, exist_ok=True)
    Path("evaluation/predictions/values.json").write_text(json.dumps(values))
    Path("evaluation/metrics.json").write_text(json.dumps(metrics))
    tracker.summary({"test/auc_score": score, "test/num_images": len(values)})
    tracker.summary({"test/auc_score_low": score / 2, "test/auc_score_high": 1.0})
"""
DVC_YAML = """
stages:
  evaluate:
    cmd: python stage.py
    deps: ["${source.path}", stage.py]
    params: [optimizer]
    outs: [evaluation/predictions]
    metrics:
      - evaluation/metrics.json:
          cache: false
"""
CONFIG = """
source: {path: photos}
optimizer: {lr: 0.3, momentum: 0.0}
tracking: {mode: offline, project: ants, entity: null, tags: [], timeout_s: 30, finish_timeout_s: 300}
trainer: {name: cpu}
"""


@pytest.fixture
def small(small_once: "Small", tmp_path: Path) -> "Small":
    """A committed project, its one stage done: images that git does not hold, metrics, an offline W&B run."""
    return Small(small_once.copy(tmp_path / "project").path)


@pytest.fixture(scope="module")
def small_once(tmp_path_factory: pytest.TempPathFactory) -> "Small":
    folder = tmp_path_factory.mktemp("rerun") / "project"
    (folder / "photos").mkdir(parents=True)
    for name, value in (("a", 2), ("b", 5)):
        (folder / "photos" / name).write_text(str(value))
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text(CONFIG)
    (folder / "params.yaml").write_text(CONFIG)
    (folder / "stage.py").write_text(STAGE.replace("OFFSET", "0"))
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / ".gitignore").write_text("/.cache\n/photos\n/evaluation/predictions\n")
    project = Small(folder)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.name", "test")  # `dvc exp run` puts uncommitted changes into a commit
    project.run("git", "config", "user.email", "test@localhost")
    project.run(sys.executable, "-m", "dvc", "init", "--quiet")
    (folder / ".dvc" / "config").write_text(
        "[core]\n    analytics = false\n[hydra]\n    enabled = true\n    config_dir = conf\n    config_name = config\n"
    )
    project.commit("the project")
    project.repro()
    project.commit("results")
    return project


class Small(Project):
    """A project that runs the code of the checkout under test."""

    def environment(self, **variables: str) -> dict[str, str]:
        root = Path(__file__).resolve().parents[2]
        return super().environment(PYTHONPATH=str(root / "src"), HOME=str(self.path.parent), **variables)

    def experiment(self, name: str, *overrides: str) -> None:
        sets = [part for override in overrides for part in ("--set-param", override)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--name", name, *sets]
        self.run(*command, RETINUE_SWEEP="rates")

    def retinue(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(*COMMAND, *arguments, check=check)

    def lineage(self, name: str) -> dict[str, Any]:
        return json.loads(self.retinue("lineage", name, "--json").stdout)

    def metrics(self, text: str) -> None:
        """Commits other metrics than those that were computed."""
        path = self.path / "evaluation" / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **json.loads(text)}))
        self.commit("other metrics")

    @property
    def fingerprint(self) -> str:
        (name,) = {self.lineage(path.name.rpartition("-")[2])["settings_fingerprint"] for path in self.folders}
        return name

    @property
    def folders(self) -> list[Path]:
        return sorted((self.path / ".cache/wandb").glob("offline-run-*"))

    @property
    def run_id(self) -> str:
        (folder,) = self.folders
        return folder.name.rpartition("-")[2]


@pytest.mark.slow
def test_a_run_an_experiment_and_a_fingerprint_lead_to_one_another(small: Small):
    small.experiment("slow", "optimizer.lr=0.1")
    baseline = small.run("git", "rev-parse", "HEAD").stdout.strip()
    by_name = small.lineage("slow")
    fingerprint = by_name["settings_fingerprint"]
    (experiment,) = by_name["experiments"]
    assert (experiment["name"], experiment["baseline"]) == ("slow", baseline)
    listed = small.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/slow").stdout.strip()
    assert experiment["commit"] == by_name["commit"] == listed
    assert by_name["sweeps"] == ["rates"]
    (run,) = by_name["runs"]
    assert (run["stage"], run["state"], run["url"], run["sent"]) == ("evaluate", "finished", None, False)
    assert (small.path / run["folder"]).is_dir()
    assert by_name["commands"]["bring it into the checkout"] == "dvc exp apply slow"
    assert by_name["commands"]["send its runs"] == f"wandb sync {run['folder']}"
    for other in (fingerprint, run["run_id"], run["folder"]):
        assert small.lineage(other) == by_name, other


@pytest.mark.slow
def test_the_commands_that_lineage_prints_work(small: Small):
    small.experiment("slow", "optimizer.lr=0.1")
    small.run("git", "checkout", "--quiet", "--", ".")
    commands = small.lineage("slow")["commands"]
    small.run("sh", "-c", commands["bring it into the checkout"])
    applied = json.loads((small.path / "evaluation/metrics.json").read_text())
    assert applied["auc_score"] == 0.1 * 7 / 7


@pytest.mark.slow
def test_an_experiment_is_reproduced_by_name_fingerprint_run_and_folder(small: Small):
    small.experiment("slow", "optimizer.lr=0.1")
    runs = small.lineage("slow")["runs"]
    for name in ("slow", small.lineage("slow")["settings_fingerprint"], runs[0]["run_id"]):
        done = small.retinue("rerun", name)
        assert "experiment slow: settings" in done.stdout
        assert "Running stage 'evaluate'" in done.stdout, "computed, not taken from a cache"
        assert "reproduced: 4 of 4 numbers are equal.\n2 of 2 outs of the stages are the same" in done.stdout
    assert len(small.folders) == 2, "the reproductions are no W&B runs"
    assert small.run("git", "status", "--porcelain", "--", "stage.py", "dvc.yaml").stdout == ""


@pytest.mark.slow
def test_the_result_of_the_branch_is_found_by_its_fingerprint_and_its_run(small: Small):
    (small.path / "README").write_text("a later commit without results")
    small.commit("later")
    done = small.retinue("rerun", small.fingerprint)
    assert "reproduced: 4 of 4 numbers are equal." in done.stdout
    done = small.retinue("rerun", small.run_id)
    assert f"W&B run {small.run_id}" in done.stdout
    assert "reproduced: 4 of 4 numbers are equal." in done.stdout


@pytest.mark.slow
def test_a_run_of_settings_that_were_never_committed_is_reproduced(small: Small):
    path = small.path / "params.yaml"
    path.write_text(path.read_text().replace("lr: 0.3", "lr: 1.0"))
    small.repro()
    newest = small.folders[-1].name.rpartition("-")[2]
    assert small.lineage(newest)["dirty"] is False, "params.yaml does not count: the run records the settings"
    done = small.retinue("rerun", newest)
    assert "auc_score" in done.stdout
    assert "reproduced: 4 of 4 numbers are equal." in done.stdout


@pytest.mark.slow
def test_a_number_that_differs_is_told_and_tolerated_on_demand(small: Small):
    small.metrics('{"auc_score": 0.2}')
    done = small.retinue("rerun", small.fingerprint, check=False)
    assert done.returncode == 1
    assert "differs by 0.1" in done.stdout
    assert "not reproduced: 1 of 4 numbers differ." in done.stdout
    done = small.retinue("rerun", small.fingerprint, "--tolerance", "0.1001")
    assert "differs by 0.1, within the tolerance" in done.stdout


@pytest.mark.slow
def test_a_number_that_is_missing_is_no_reproduction(small: Small):
    small.metrics('{"log_loss": 0.2}')
    done = small.retinue("rerun", small.fingerprint, "--tolerance", "9", check=False)
    assert done.returncode == 1
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("log_loss")] == ["missing"]


@pytest.mark.slow
def test_changed_code_is_refused_unless_asked_for(small: Small):
    (small.path / "stage.py").write_text(STAGE.replace("OFFSET", "1"))
    small.repro()
    newest = small.folders[-1].name.rpartition("-")[2]
    done = small.retinue("rerun", newest, check=False)
    assert done.returncode == 1
    assert "differed from commit" in done.stderr
    assert "--anyway" in done.stderr
    done = small.retinue("rerun", newest, "--anyway", check=False)
    assert done.returncode == 1, "the code of the commit has no offset"
    assert "differs by 1" in done.stdout


@pytest.mark.slow
def test_images_that_are_gone_or_changed_are_named(small: Small):
    (small.path / "photos" / "b").write_text("6")
    done = small.retinue("rerun", small.fingerprint, check=False)
    assert done.returncode == 1
    assert "photos: it has changed since: its DVC hash was " in done.stderr
    done = small.retinue("rerun", small.fingerprint, "--anyway", check=False)
    assert done.returncode == 1
    assert "warning: photos: it has changed since" in done.stdout
    assert "not reproduced" in done.stdout
    (small.path / "photos").rename(small.path / "moved")
    done = small.retinue("rerun", small.fingerprint, check=False)
    assert done.returncode == 1
    assert f"it is not at {small.path / 'photos'} any more" in done.stderr


@pytest.mark.slow
def test_images_at_an_absolute_path_are_read_there(small: Small, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    (small.path / "photos").rename(elsewhere)
    (small.path / "stage.py").write_text(
        STAGE.replace("OFFSET", "0").replace('Path("photos")', 'Path(load_params()["source"]["path"])')
    )
    for path in (small.path / "params.yaml", small.path / "conf/config.yaml"):
        path.write_text(path.read_text().replace("path: photos", f"path: {elsewhere}"))
    small.repro()
    small.commit("elsewhere")
    newest = small.lineage(small.folders[-1].name.rpartition("-")[2])["settings_fingerprint"]
    assert "reproduced: 4 of 4" in small.retinue("rerun", newest).stdout
    elsewhere.rename(tmp_path / "gone")
    done = small.retinue("rerun", newest, check=False)
    assert done.returncode == 1
    assert f"it is not at {elsewhere} any more" in done.stderr


@pytest.mark.slow
def test_images_beside_the_checkout_are_linked_beside_the_clone(small: Small, tmp_path: Path):
    (small.path / "photos").rename(tmp_path / "beside")
    (small.path / "stage.py").write_text(STAGE.replace("OFFSET", "0").replace('"photos"', '"../beside"'))
    for path in (small.path / "params.yaml", small.path / "conf/config.yaml"):
        path.write_text(path.read_text().replace("path: photos", "path: ../beside"))
    small.repro()
    small.commit("beside")
    newest = small.lineage(small.folders[-1].name.rpartition("-")[2])["settings_fingerprint"]
    assert "reproduced: 4 of 4" in small.retinue("rerun", newest).stdout
    (tmp_path / "far").mkdir()
    done = small.retinue("rerun", newest, "--keep", str(tmp_path / "far" / "clone"), check=False)
    assert done.returncode == 1
    assert "../beside: this place is outside of " in done.stderr
    assert not (tmp_path / "far" / "beside").exists()


@pytest.mark.slow
def test_a_run_of_the_server_is_found_and_reproduced(small: Small):
    with wandb_server.serving() as server:
        account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": wandb_server.API_KEY}
        path = small.path / "params.yaml"
        path.write_text(path.read_text().replace("mode: offline", "mode: online").replace("lr: 0.3", "lr: 1.0"))
        small.repro(**account)
        (run,) = server.runs.values()
        small.run("rm", "-rf", ".cache")  # another machine
        small.run("git", "checkout", "--quiet", "--", ".")
        name = f"tester/ants/{run.run_id}"
        shown = small.run(*COMMAND, "lineage", name, "--online", "--json", **account)
        document = json.loads(shown.stdout)
        assert document["settings_fingerprint"] == run.group
        (listed,) = document["runs"]
        assert (listed["run_id"], listed["url"]) == (run.run_id, f"{server.url}/tester/ants/runs/{run.run_id}")
        assert document["hashes"]["photos"] == run.config["lineage"]["deps"]["photos"]
        done = small.run(*COMMAND, "rerun", name, **account)
        assert "reproduced: 4 of 4 numbers are equal.\n2 of 2 outs" in done.stdout
        assert len(server.runs) == 1, "the reproduction is no W&B run"
        assert server.unknown == []


@pytest.mark.slow
def test_the_whole_pipeline_is_reproduced_byte_for_byte(finished: Project, tmp_path: Path):
    project = finished.copy(tmp_path / "project")
    fingerprint = fingerprint_of(load_params(project.path / "params.yaml"))
    done = project.run(*COMMAND, "rerun", fingerprint)
    said = re.search(
        r"reproduced: (\d+) of \1 numbers are equal\.\n(\d+) of \2 outs of the stages are the same", done.stdout
    )
    assert said, done.stdout
    assert int(said[1]) >= len(metrics_of(scalar))
    assert int(said[2]) == len(artifacts.OUTS)


@pytest.mark.slow
def test_the_clone_is_kept_on_demand_and_the_cache_shared_on_demand(small: Small, tmp_path: Path):
    kept = tmp_path / "kept"
    done = small.retinue("rerun", small.fingerprint, "--keep", str(kept), "--shared-cache")
    assert "Running stage" not in done.stdout, "taken from the cache of the checkout"
    assert "reproduced: 4 of 4 numbers are equal." in done.stdout
    assert json.loads((kept / "evaluation/predictions/values.json").read_text()) == [2, 5]
    assert (kept / "photos/a").samefile(small.path / "photos/a"), "linked, not copied"
    done = small.retinue("rerun", small.fingerprint, "--keep", str(kept), check=False)
    assert "exists already" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("slwo", "Unknown experiment 'slwo'. Did you mean 'slow'? Available: slow."),
        ("0123456789ab", "0123456789ab: no commit of this branch, no DVC experiment and no W&B run here"),
    ],
)
def test_what_is_not_there_is_named(small: Small, name: str, message: str):
    small.experiment("slow", "optimizer.lr=0.1")
    for command in ("lineage", "rerun"):
        done = small.retinue(command, name, check=False)
        assert done.returncode == 1
        assert f"error: {command}: {message}" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_experiments_with_the_same_settings_are_told_apart_by_name(small: Small):
    small.experiment("slow", "optimizer.lr=0.1")
    small.experiment("again", "optimizer.lr=0.1")
    fingerprint = small.lineage("slow")["settings_fingerprint"]
    done = small.retinue("lineage", fingerprint, check=False)
    assert "Name one of them: again, slow." in done.stderr


@pytest.mark.slow
def test_a_run_whose_commit_is_elsewhere_is_named(small: Small, tmp_path: Path):
    other = Small(tmp_path / "other")
    other.path.mkdir()
    for name in ("dvc.yaml", "params.yaml", "stage.py", "conf"):
        small.run("cp", "-r", name, str(other.path / name))
    other.run("git", "init", "--quiet")
    other.commit("another history")
    done = other.retinue("rerun", str(small.folders[0]), check=False)
    assert done.returncode == 1
    assert "is not in this repository. `git fetch` it" in done.stderr
