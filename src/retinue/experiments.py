"""The DVC experiments of this checkout, read from git and from DVC's cache; nothing is checked out, nothing changes."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from retinue.config import fingerprint_of, project_root
from retinue.errors import RetinueError

REFERENCES = "refs/exps"
_REFERENCE = re.compile(rf"{REFERENCES}/(?P<head>[0-9a-f]{{2}})/(?P<tail>[0-9a-f]{{38}})/(?P<name>[^/]+)")


class Experiment(NamedTuple):
    """A finished DVC experiment.

    Attributes:
        name: as `dvc exp show` lists it.
        revision: hash of its commit.
        baseline: hash of the commit it was started from.
    """

    name: str
    revision: str
    baseline: str

    def text(self, path: str) -> str:
        """A file of its commit: params.yaml, dvc.lock, evaluation/metrics.json. What DVC keeps is `document`'s.

        Raises:
            RetinueError: the commit has no such file.
        """
        shown = _git("show", f"{self.revision}:{path}")
        if shown.returncode:
            raise RetinueError(f"experiment {self.name}: no file {path} in its commit {self.revision[:7]}.")
        return shown.stdout

    def settings(self) -> dict[str, Any]:
        """Its params.yaml as plain containers."""
        from omegaconf import OmegaConf

        values = OmegaConf.to_container(OmegaConf.create(self.text("params.yaml")))
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items()}

    def fingerprint(self) -> str:
        """The settings fingerprint, which is the group of its W&B runs."""
        return fingerprint_of(self.settings())

    def document(self, path: str) -> dict[str, Any]:
        """A JSON file that DVC keeps, such as models/architecture.json."""
        from dvc.api import DVCFileSystem

        return json.loads(DVCFileSystem(str(project_root()), rev=self.revision).read_text(path))

    def fetch(self, path: str, target: Path) -> Path:
        """A copy of an output, file or folder, at `target`."""
        from dvc.api import DVCFileSystem

        DVCFileSystem(str(project_root()), rev=self.revision).get(path, str(target), recursive=True)
        return target


def all_experiments() -> list[Experiment]:
    """Every experiment, of whatever baseline, by name."""
    listed = _git("for-each-ref", "--format=%(objectname) %(refname)", REFERENCES)
    if listed.returncode:
        raise RetinueError(f"{project_root()}: {listed.stderr.strip() or 'git cannot list experiments'}.")
    found = []
    for line in listed.stdout.splitlines():
        revision, _, reference = line.partition(" ")
        if match := _REFERENCE.fullmatch(reference):
            found.append(Experiment(match["name"], revision, match["head"] + match["tail"]))
    return sorted(found)


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=project_root(), capture_output=True, text=True, check=False)
