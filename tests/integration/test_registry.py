"""`retinue register` with the real W&B client and a local server."""

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

import wandb_server
from project import Project
from report_artifacts import BINARY, write_artifacts
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import UNCALIBRATED
from retinue.pipeline.files import read_json, sha256, write_json

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[wandb_server.Server]:
    with wandb_server.serving() as server:
        yield server


@pytest.fixture
def reported(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A checkout whose stages but the last have run."""
    project.compose("tracking=online")
    monkeypatch.chdir(project.path)
    write_artifacts(replace(BINARY, sections=None))
    write_json(artifacts.DECISION, {**read_json(artifacts.DECISION), "weights_sha256": sha256(artifacts.WEIGHTS)})
    return project


def test_the_logged_model_is_linked_with_its_card(reported: Project, server: wandb_server.Server) -> None:
    account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": wandb_server.API_KEY, "WANDB_ERROR_REPORTING": "false"}
    command = (sys.executable, "-m", "retinue.cli", "register", "insects", "--alias", "production")

    def registering() -> tuple[int, str]:
        done = reported.run(*command, check=False, **account)
        return done.returncode, done.stdout + done.stderr

    status, said = registering()
    assert (status, "a model is registered with its card" in said) == (1, True), said
    reported.run(sys.executable, "-m", "retinue.stages.report", **account)
    logged = [artifact for run in server.runs.values() for artifact in run.artifacts if artifact.type == "model"]
    assert {"model_card.json", "model_card.md"} <= {*logged[-1].files}
    status, said = registering()
    assert status == 0, said
    assert "registered as org-entity/wandb-registry-model/insects:v0" in said
    ((_, collection, aliases),) = server.links
    assert (collection, aliases) == ("org-entity/wandb-registry-model/insects", ["production"])
    (reported.path / "models/history.csv").write_text("another training")
    status, said = registering()
    assert (status, "is another one than models/" in said) == (1, True), said
    logged[-1].aliases.clear()
    status, said = registering()
    assert (status, "the server has no such model" in said) == (1, True), said
    assert len(server.links) == 1
    assert UNCALIBRATED.weights_sha256 == ""
