"""The files that hosts, editors and package tools read: they parse, and agree with each other."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import retinue

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
PREFIX = "Programming Language :: Python :: "
PYTHONS = [text.removeprefix(PREFIX) for text in PROJECT["classifiers"] if re.fullmatch(PREFIX + r"3\.\d+", text)]


def git(*arguments: str, cwd: Path) -> bytes:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    return subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True).stdout


@pytest.mark.slow
def test_a_clone_on_windows_has_the_same_bytes(tmp_path: Path) -> None:
    """With core.autocrlf=true; without .gitattributes the lines would end otherwise, and every stage would be stale."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).decode().split("\0")
    files = [name for name in listed if name and (ROOT / name).is_file()]
    assert {"dvc.yaml", "dvc.lock", "params.yaml", "conf/config.yaml", "src/retinue/stages/train.py"} <= set(files)
    original = tmp_path / "original"
    for name in files:
        (original / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, original / name)

    def changed_in(clone: str) -> set[str]:
        git("add", "--all", cwd=original)
        git("commit", "--quiet", "--message", clone, cwd=original)
        git("-c", "core.autocrlf=true", "clone", "--quiet", "original", clone, cwd=tmp_path)
        return {
            name
            for name in files
            if (original / name).is_file() and (tmp_path / clone / name).read_bytes() != (ROOT / name).read_bytes()
        }

    git("init", "--quiet", cwd=original)
    assert changed_in("same") == set()
    (original / ".gitattributes").unlink()
    assert "params.yaml" in changed_in("other")


def test_the_versions_of_python_are_said_once() -> None:
    assert len(PYTHONS) >= 3
    first, last = PYTHONS[0], int(PYTHONS[-1].split(".")[1])
    assert PROJECT["requires-python"] == f">={first},<3.{last + 1}"
    assert f"Python {first} to 3.{last}" in (ROOT / "README.md").read_text("utf-8")
    assert f"Python {first} to 3.{last}" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    bounds = f"(3, {first.split('.')[1]}) <= sys.version_info < (3, {last + 1})"
    assert bounds in (ROOT / "Makefile").read_text("utf-8")
    assert PYPROJECT["tool"]["mypy"]["python_version"] == first
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + first.replace(".", "")


def test_continuous_integration_runs_every_version_and_what_is_there() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    jobs = workflow["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == PYTHONS
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = [command.split()[1] for command in commands if command.startswith("make ")]
    assert made == ["check", "test"]
    assert all(re.search(rf"(?m)^{target}:", makefile) for target in made)
    assert ".ci/run" in commands
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_the_development_container() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text("utf-8"))
    assert container["image"].startswith(f"python:{PYTHONS[0]}")
    assert container["postCreateCommand"] == "make check"


def test_the_citation_is_of_this_version() -> None:
    """The keys that version 1.2.0 of the Citation File Format requires, and those that can go stale."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == PROJECT["name"]
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["abstract"] == PROJECT["description"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert set(citation["keywords"]) <= set(PROJECT["keywords"])


def test_the_package_says_that_it_is_typed() -> None:
    package = Path(retinue.__file__).parent
    assert (package / "py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["retinue"]
    assert "Typing :: Typed" in PROJECT["classifiers"]
