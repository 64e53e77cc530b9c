"""A checkout of its own for a test: the project's files in a new git and DVC repository."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONTENTS = ("conf", "src", "dvc.yaml", "params.yaml", "requirements.lock", "pyproject.toml", ".gitignore", ".dvcignore")


@dataclass(frozen=True)
class Project:
    """A checkout at `path`."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> "Project":
        """A committed copy of the checkout's own files, without results."""
        path.mkdir(parents=True)
        for name in CONTENTS:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, path / name, **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}))
        (path / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy2(ROOT / ".dvc" / name, path / ".dvc" / name)
        shutil.copytree(ROOT / ".dvc" / "plots", path / ".dvc" / "plots")
        project = cls(path)
        project.run("git", "init", "--quiet", "--initial-branch=main")
        project.commit("the project")
        return project

    def commit(self, message: str) -> None:
        """Commits everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run(
            *("git", "-c", "user.name=test", "-c", "user.email=test@localhost"),
            *("commit", "--quiet", "--allow-empty", "--message", message),
        )

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of a user in this checkout: its own code, the test's Python."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "WANDB_", "PYTEST_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**inherited, "PATH": path, "PYTHONPATH": "src", **variables}

    def run(self, *command: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs `command` here; its output is shown when it fails and `check` is set."""
        result = subprocess.run(
            command, cwd=self.path, env=self.environment(**variables), capture_output=True, text=True, check=False
        )
        if check and result.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def compose(self, *overrides: str) -> None:
        """Freezes conf/ with `overrides` in params.yaml."""
        self.run(sys.executable, "-m", "retinue.cli", "compose", *overrides)

    def repro(self, *arguments: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """`dvc repro`."""
        return self.run(sys.executable, "-m", "dvc", "repro", *arguments, check=check, **variables)

    def stage(self, name: str, *overrides: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A stage by hand, without DVC: params.yaml or, with `overrides`, conf/."""
        return self.run(sys.executable, "-m", f"retinue.stages.{name}", *overrides, check=check)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Starts `command` here and returns at once; its output is a pipe."""
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=self.environment(PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def kill_training(self, epoch: int, *overrides: str) -> None:
        """Starts train and kills -9 it at the end of `epoch`, while or before its checkpoint is written."""
        process = self.start(sys.executable, "-m", "retinue.stages.train", *overrides)
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(rf"epoch +{epoch}/", line):
                os.kill(process.pid, signal.SIGKILL)
                break
        rest = process.stdout.read()
        assert process.wait() == -signal.SIGKILL, rest

    def copy(self, path: Path) -> "Project":
        """This checkout with all its results, at `path`."""
        shutil.copytree(self.path, path, symlinks=True)
        return Project(path)
