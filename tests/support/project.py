"""A checkout of its own for a test: the project's files in a new git and DVC repository.

What a test runs as `python -m MODULE` is a fork of one process that has imported the libraries, as in a sweep: the
seconds for torch and Lightning are spent once. The code of the project is imported by the fork, from the checkout.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from retinue.forkserver import client
from retinue.forkserver.process import Warm
from retinue.pipeline import artifacts

ROOT = Path(__file__).resolve().parents[2]
CONTENTS = (
    *("conf", "src", "dvc.yaml", "params.yaml", "requirements.lock", "pyproject.toml"),
    *(".gitignore", ".gitattributes", ".dvcignore"),
)


@cache
def forkserver() -> Warm:
    """The process that forks; it starts with the first call and ends with `end_forkserver`, or with this process."""
    warm = Warm(_folder())
    warm.wait()
    return warm


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="retinue-forkserver-"))


def end_forkserver() -> None:
    """Ends the process that forks, where there is one."""
    if forkserver.cache_info().currsize:
        forkserver().close()
        shutil.rmtree(_folder())


@dataclass(frozen=True)
class Project:
    """A checkout at `path`."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> "Project":
        """A committed copy of the checkout's own files, without results.

        Its stages compute with one thread, for the tests run two at a time on two cores.
        """
        path.mkdir(parents=True)
        for name in CONTENTS:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, path / name, **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}))
        for name in ("conf/trainer/cpu.yaml", "conf/trainer/ddp.yaml", "params.yaml"):
            text = (path / name).read_text("utf-8")
            assert "num_threads: 2" in text, name
            (path / name).write_text(text.replace("num_threads: 2", "num_threads: 1"), "utf-8")
        (path / "data").mkdir()
        shutil.copy2(ROOT / artifacts.CORRECTIONS, path / artifacts.CORRECTIONS)
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
        tests_own = ("DVC_", "WANDB_", "PYTEST_", "OMP_NUM_THREADS")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(tests_own)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**inherited, "PATH": path, "PYTHONPATH": "src", **variables}

    def run(
        self, *command: str, check: bool = True, fresh: bool = False, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs `command` here; its output is shown when it fails and `check` is set.

        Args:
            command: `sys.executable -m MODULE …` and `dvc …` are forked from the process that has the libraries.
            check: whether an exit status other than 0 fails the test.
            fresh: start a Python of its own also for a module.
            variables: of the environment.
        """
        if command[0] == "dvc":
            command = (sys.executable, "-m", *command)
        if command[:2] == (sys.executable, "-m") and not fresh and sys.platform == "linux":
            result = self._forked(command, self.environment(**variables))
        else:
            result = subprocess.run(
                command, cwd=self.path, env=self.environment(**variables), capture_output=True, text=True, check=False
            )
        if check and result.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def _forked(self, command: tuple[str, ...], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        warm = forkserver()
        changed = warm.environment(environment)
        _, _, module, *arguments = command
        with (
            Path(os.devnull).open("rb") as nothing,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            status = client.request(
                changed[client.SOCKET],
                module,
                arguments,
                folder=str(self.path),
                environment=changed,
                files=(nothing.fileno(), output.fileno(), errors.fileno()),
                group=True,
            )
            said = []
            for file in (output, errors):
                file.seek(0)
                said.append(file.read().decode())
        return subprocess.CompletedProcess(command, status, *said)

    def compose(self, *overrides: str) -> None:
        """Freezes conf/ with `overrides` in params.yaml."""
        self.run(sys.executable, "-m", "retinue.cli", "compose", *overrides)

    def repro(self, *arguments: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """`dvc repro`."""
        return self.run(sys.executable, "-m", "dvc", "repro", *arguments, check=check, **variables)

    def stage(self, name: str, *overrides: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A stage by hand: params.yaml or, with `overrides`, conf/. Of several ranks, each is a Python of its own."""
        fresh = "trainer=ddp" in overrides
        return self.run(sys.executable, "-m", f"retinue.stages.{name}", *overrides, check=check, fresh=fresh)

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

    def start_stage(self, name: str, *overrides: str) -> subprocess.Popen[str]:
        """Starts a stage by hand and returns at once; `stage_pid` is the process that does the work."""
        return self.start_module(f"retinue.stages.{name}", *overrides)

    def start_module(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """Starts `python -m module` here, forked where that can be, and returns at once; its output is a pipe."""
        if sys.platform != "linux":
            return self.start(sys.executable, "-m", module, *arguments)
        return subprocess.Popen(
            ("python", "-m", module, *arguments),
            cwd=self.path,
            env=forkserver().environment(self.environment(PYTHONUNBUFFERED="1")),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stage_pid(self, name: str) -> int:
        """The process that holds the lock of a stage that runs."""
        return int((self.path / ".cache" / "locks" / f"{name}.pid").read_text())

    def kill_training(self, epoch: int, *overrides: str) -> None:
        """Starts train and kills -9 it at the end of `epoch`, while or before its checkpoint is written."""
        process = self.start_stage("train", *overrides)
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(rf"epoch +{epoch}/", line):
                os.kill(self.stage_pid("train"), signal.SIGKILL)
                break
        rest = process.stdout.read()
        assert process.wait() == -signal.SIGKILL, rest

    def copy(self, path: Path) -> "Project":
        """This checkout with all its results, at `path`."""
        shutil.copytree(self.path, path, symlinks=True)
        return Project(path)
