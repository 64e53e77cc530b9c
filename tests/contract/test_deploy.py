"""deploy/: what the image installs, how it starts and what watches it are what the project has."""

import json
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from installed import RUN_TIME, brought_by, names_in
from retinue.cli import main

DEPLOY = RUN_TIME.parent
ROOT = DEPLOY.parent


def dockerfile() -> str:
    """The text of deploy/Dockerfile."""
    return (DEPLOY / "Dockerfile").read_text("utf-8")


def compose() -> dict[str, Any]:
    """The services of deploy/compose.yaml by name."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]


def test_what_is_installed_is_pinned_and_trains_nothing() -> None:
    pinned = re.findall(r"^([\w.-]+)==\S+$", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    assert names_in(RUN_TIME) == sorted(names_in(RUN_TIME))
    assert brought_by(RUN_TIME) <= {re.sub(r"[-_.]+", "-", name).lower() for name in pinned}
    assert not {"torch", "pytorch-lightning", "dvc", "wandb", "hydra-core", "albumentations"} & brought_by(RUN_TIME)


def test_what_is_copied_is_there_and_let_through() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    let_through = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert {*sources} == {"requirements.lock", "deploy/requirements.txt", "src/retinue"}
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in let_through
    (model,) = re.findall(r"^ARG MODEL=(.+)$", dockerfile(), re.MULTILINE)
    assert Path(model).parts[0] in let_through


def test_it_starts_with_options_that_there_are() -> None:
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", dockerfile(), re.MULTILINE)
    python, dash_m, module, name, *options = [*json.loads(entry), *compose()["model"]["command"]]
    assert (python, dash_m, module) == ("python", "-m", "retinue")
    found = main.commands[name].make_context(name, options).params
    assert found["host"] == "0.0.0.0"
    assert re.findall(r"^COPY --chmod=444 \$\{MODEL\} (\S+)$", dockerfile(), re.MULTILINE) == [str(found["exported"])]
    assert f"EXPOSE {found['port']}\n" in dockerfile()
    assert f"127.0.0.1:{found['port']}/ready" in dockerfile()
    assert str(found["api_key_file"]) == "/run/secrets/api_key"
    assert "\nUSER 10001\n" in dockerfile()


def test_prometheus_asks_the_service_with_the_key_and_nothing_is_open_to_others() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text("utf-8"))["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["model:8000"]}]
    assert job["authorization"]["credentials_file"] == "/run/secrets/api_key"
    assert {*compose()} == {"model", "prometheus"}
    for service in compose().values():
        assert service["secrets"] == ["api_key"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    mounted = {volume.split(":")[0] for volume in compose()["prometheus"]["volumes"]}
    assert mounted == {"./prometheus.yaml", "measured"}


def test_the_size_in_the_documentation_is_about_that_of_what_is_installed() -> None:
    files = [each.locate() for name in brought_by(RUN_TIME) for each in distribution(name).files or ()]
    size = sum(path.stat().st_size for path in map(Path, map(str, files)) if path.suffix != ".pyc" and path.is_file())
    (told,) = re.findall(r"(\d+) MB of packages", (ROOT / "docs/deploy.md").read_text("utf-8"))
    assert size / 1e6 == pytest.approx(int(told), rel=0.15)
