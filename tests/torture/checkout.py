"""Checkouts for the cases: a small project, its state before each stage, and what is right after it."""

import compileall
import hashlib
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from tests.torture.forks import COUNTERS, FAULT, LOG, PREFIX, ROOT, TARGETS
from tests.torture.processes import Running

from project import Project

STAGES = tuple(yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"])
PYTHON = sys.executable
OPERATIONS = ("write", "open", "rename", "sync", "mkdir", "unlink", "read", "shm", "clock", "change")
"""What faults.c counts and fails; change is each of the first six."""

LIMIT_S = 180.0
"""Longer than that no command of a case takes: it hangs."""

SETTINGS = (
    *("source=image_folder", "source.path=images", "model=lenet5", "augment=light", "train.max_epochs=2"),
    *("train.batch_size=8", "explain.images_per_outcome=1", "explain.confident_errors=1", "trainer.num_workers=1"),
    *(
        "trainer.train_workers=1",
        "trainer.num_threads=1",
        "trainer.progress_bar=false",
    ),
)
"""A pipeline that takes seconds and uses every kind of process."""

VARIANTS = {"plain": ("tracking=off",), "tracked": ("tracking=offline",), "other": ("tracking=off", "seed=1")}

_VOLATILE = (
    (re.compile(r"^checkout/\.git/.*"), ""),
    (re.compile(r".*__pycache__.*"), ""),
    # a run that was killed is a run: W&B's record of it stays
    (re.compile(r"(offline-run|run)-\d{8}_\d{6}-\w+.*|wandb/(debug|latest).*|core-debug-[\d_]+\.log"), "RUN"),
    (re.compile(r"artifacts/staging/tmp\w+$"), "artifacts/staging/COPY"),  # which `wandb sync` sends later
    (re.compile(r"(cache|links|index|db)[^/]*\.db(-wal|-shm|-journal)?$"), r"\1.db"),  # SQLite mends itself
    (re.compile(r"site/repo/[0-9a-f]{32}"), "site/REPOSITORY"),  # of the path of the checkout
    (re.compile(r"\.cache/checked/[0-9a-f]+"), ".cache/checked/STAMP"),  # of the packages that are installed, too
)


@dataclass
class Reference:
    """What is right when a stage has ended.

    Attributes:
        outs: path -> digest, of dvc.lock and all outs up to this stage.
        writers: path -> the stage that writes it.
        names: of all files below the folder of a case, without what differs from run to run.
        seconds: of `dvc repro` of the stage without a fault.
        stage_seconds: of the stage by hand.
        worker_seconds: of the processes that load its data, from the first start to the last end; 0: it has none.
        counts: calls of the C library by kind that changed or read something, of the stage by hand.
        dvc_counts: the same for `dvc repro` of the stage.
    """

    outs: dict[str, str]
    writers: dict[str, str]
    names: set[str]
    seconds: float = 1.0
    stage_seconds: float = 1.0
    worker_seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    dvc_counts: dict[str, int] = field(default_factory=dict)


class Place:
    """The folder of one case: checkout/, home/, tmp/, site/ (DVC's own) and, beside it, what commands said.

    Args:
        folder: does not exist, or is a template.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.checkout = folder / "checkout"
        self._outputs = folder.with_name(f"{folder.name}.said")
        self._started = 0
        self.commands: list[Running] = []
        self.private_shm = False

    @classmethod
    def create(cls, folder: Path, variant: str) -> "Place":
        """A committed project with a few dozen images, composed with the settings of the variant."""
        place = cls(folder)
        folder.mkdir(parents=True)
        place._prepare()
        project = Project.create(place.checkout)
        compileall.compile_dir(place.checkout / "src", quiet=1)
        _draw_images(place.checkout / "images")
        (place.checkout / ".gitignore").open("a").write("/images/\n")
        status, running = place.run(PYTHON, "-m", "retinue.cli", "compose", *SETTINGS, *VARIANTS[variant])
        if status != 0:
            raise RuntimeError(running.said())
        project.commit("settings")
        place.commands.clear()
        return place

    def copy(self, folder: Path) -> "Place":
        """This place at `folder`."""
        copy = Place(folder)
        shutil.copytree(self.folder, folder, symlinks=True)
        copy._prepare()
        return copy

    def _prepare(self) -> None:
        for folder in (*(self.folder / name for name in ("home", "tmp", "site")), self._outputs):
            folder.mkdir(exist_ok=True)
        (self.folder / "home" / ".gitconfig").write_text("[user]\nname = test\nemail = test@localhost\n")

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of a user whose home and temporary folders are those of this place."""
        left_out = ("DVC_", "WANDB_", "PYTEST_", "TORTURE_", "RETINUE_", "LD_PRELOAD", "XDG_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        path = f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}"
        ours = {
            "PATH": path,
            "PYTHONPATH": "src",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "DVC_SITE_CACHE_DIR": str(self.folder / "site"),
            "SHELL": "/bin/sh",
            "PYTHONUNBUFFERED": "1",
        }
        return {**inherited, **ours, **variables}

    def start(self, *command: str, **variables: str) -> Running:
        """Starts `command` in the checkout and returns at once; `dvc` and stages may be named alone."""
        self._started += 1
        running = Running(
            list(command), self.checkout, self.environment(**variables), self._outputs / f"{self._started:02d}"
        )
        self.commands.append(running)
        return running

    def run(self, *command: str, **variables: str) -> tuple[int | None, Running]:
        """Runs `command` to its end; its exit status, None where it hangs."""
        running = self.start(*command, **variables)
        return running.wait(LIMIT_S), running

    def outs(self) -> dict[str, str]:
        """Path -> digest of dvc.lock and of every file of the outs that it names."""
        lock = self.checkout / "dvc.lock"
        if not lock.exists():
            return {}
        content = lock.read_bytes()
        try:
            stages: dict[str, Any] = yaml.safe_load(content)["stages"]
        except (yaml.YAMLError, TypeError, KeyError):
            return {"dvc.lock": "cannot be read"}
        found = {"dvc.lock": hashlib.sha256(content).hexdigest()}
        for out in sorted(out["path"] for stage in stages.values() for out in stage.get("outs", ())):
            path = self.checkout / out
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if not file.is_dir():
                    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "missing"
                    found[file.relative_to(self.checkout).as_posix()] = digest
        return found

    def writers(self) -> dict[str, str]:
        """Path of each file in `outs` -> the stage that dvc.lock says wrote it."""
        stages = yaml.safe_load((self.checkout / "dvc.lock").read_bytes())["stages"]
        places = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", ())}
        return {
            file: stage for file in self.outs() for out, stage in places.items() if f"{file}/".startswith(f"{out}/")
        }

    def names(self) -> set[str]:
        """The files and folders below the folder, with what differs from run to run made alike."""
        found = set()
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            for pattern, alike in _VOLATILE:
                name = pattern.sub(alike, name)
            found.add(name)
        return found

    def fault(self, fault: str, targets: str, below: str = "") -> dict[str, str]:
        """The environment variables of a fault below the folder; "" counts calls only.

        Args:
            fault: "OP:N:ERRNO:LAST", see faults.c.
            targets: kinds of processes, separated by commas.
            below: a path in the folder; calls elsewhere neither fail nor count.
        """
        counters, log = self._outputs / "counters", self._outputs / "delivered"
        counters.write_bytes(bytes(8 * (len(OPERATIONS) + 1)))  # the last is faults.c's own
        log.touch()
        return {
            FAULT: fault,
            COUNTERS: str(counters),
            LOG: str(log),
            PREFIX: f"{self.folder}/{below}",
            TARGETS: targets,
        }

    def counts(self) -> dict[str, int]:
        """Operation -> calls since `fault`."""
        values = np.frombuffer((self._outputs / "counters").read_bytes(), np.uint64)[: len(OPERATIONS)]
        return {name: int(value) for name, value in zip(OPERATIONS, values, strict=True)}

    def delivered(self) -> list[str]:
        """A line for each call that failed by the fault."""
        return (self._outputs / "delivered").read_text("utf-8", errors="replace").splitlines()

    def remove(self) -> None:
        """Deletes the folder and what commands said."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self._outputs, ignore_errors=True)


def stage_command(stage: str) -> tuple[str, ...]:
    """A stage by hand."""
    return PYTHON, "-m", f"retinue.stages.{stage}"


def repro_command(*arguments: str) -> tuple[str, ...]:
    """`dvc repro`."""
    return PYTHON, "-m", "dvc", "repro", *arguments


def _draw_images(folder: Path) -> None:
    """Forty images of two classes, dark and light, in four formats."""
    draws = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 150)):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            pixels = draws.integers(level, level + 80, (36, 40, 3), dtype=np.uint8)
            suffix = ("png", "jpg", "bmp", "webp")[number % 4]
            Image.fromarray(pixels).save(folder / label / f"{number:02d}.{suffix}")
