"""What a sweep is called and where its files are: one answer for the launcher, the sweeper and the next start."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from retinue.experiments.outcomes import all_experiments
from retinue.pipeline.artifacts import CACHE
from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.files import read_json, write_json
from retinue.pipeline.settings import fingerprint, strict
from retinue.sweeps.axes import Axes, parse
from retinue.sweeps.checkout import Snapshot
from retinue.sweeps.settings import SweepSettings

RECIPE = "+sweep="

RECORD = "sweep.json"
"""What a sweep is, in its folder."""


class Sweep(NamedTuple):
    """A sweep of one state of the code.

    Attributes:
        name: of the sweep; its experiments are called name-0, name-1, …
        settings: conf/sweep.
        axes: what varies.
        snapshot: the code.
    """

    name: str
    settings: SweepSettings
    axes: Axes
    snapshot: Snapshot

    @property
    def folder(self) -> Path:
        """The folder of its study, its logs and its table."""
        return self.snapshot.root / CACHE / "sweeps" / self.name

    @property
    def varies_folds(self) -> bool:
        """Whether its trials are folds of cross-validations, of which the best one is no choice."""
        return "preprocess.fold" in self.axes.choices

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this sweep and no other, as JSON would give it back."""
        own = self.settings
        identity = {
            "code": self.snapshot.fingerprint(),
            "axes": self.axes._asdict(),
            "search": [own.search, own.objectives, own.seed, own.prune],
        }
        return json.loads(json.dumps(identity))

    def has_begun(self) -> bool:
        """Whether an earlier start made the folder."""
        return (self.folder / RECORD).exists()

    def take_place(self) -> None:
        """Makes the folder, or finds it as an earlier start of this sweep left it.

        Raises:
            SettingsError: the name is that of another sweep.
            DataError: nobody can tell whose folder it is.
        """
        path = self.folder / RECORD
        if path.exists():
            remedy = f"Delete it if {self.folder} is of this sweep, or give this one another sweep.name."
            earlier = read_json(path, remedy=remedy)
            if not isinstance(earlier, dict):
                raise DataError(f"{path}: says nothing of a sweep. {remedy}")
            other = [key for key, value in self.identity.items() if earlier.get(key) != value]
            if other:
                raise self._taken(f"{self.folder} is of a sweep with other {' and other '.join(other)}")
            return
        for each in all_experiments():
            if re.fullmatch(rf"{re.escape(self.name)}-\d+", each.name) and each.baseline != self.snapshot.commit:
                raise self._taken(f"there is an experiment {each.name} of commit {each.baseline[:7]}")
        write_json(path, self.identity)

    def _taken(self, by: str) -> SettingsError:
        return SettingsError(f"sweep.name={self.name}: {by}. Give this one another sweep.name.")

    @classmethod
    def of(cls, config: DictConfig) -> "Sweep":
        """The sweep that a multirun composition describes.

        The name is the same for the same code, axes, fixed overrides, search, objective and seed: then it is the same
        sweep, which goes on where it was. More trials, more workers and another place to run them do not change it.
        """
        settings = strict(SweepSettings, _plain_settings(config.sweep), where="sweep")
        arguments = list(config.hydra.overrides.task)
        params = config.hydra.sweeper.params  # None of Hydra's own sweeper
        axes = parse({} if params is None else _plain_settings(params), arguments)
        snapshot = Snapshot.take(project_root().resolve())
        if settings.name is not None:
            return cls(settings.name, settings, axes, snapshot)
        unnamed = cls("", settings, axes, snapshot)
        recipe = next((each.removeprefix(RECIPE) for each in arguments if each.startswith(RECIPE)), "default")
        if not re.fullmatch(r"\w+", recipe):
            raise SettingsError(f"sweep={recipe}: expected the name of a file in conf/sweep/.")
        stem = "sweep" if recipe == "default" else recipe.replace("_", "-")
        return unnamed._replace(name=f"{stem}-{fingerprint(unnamed.identity)[:6]}")


def _plain_settings(node: Any) -> dict[str, Any]:
    """A Hydra composition, or a section of it, as plain containers."""
    values = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(values, dict):
        raise SettingsError(f"got {values!r}, expected the keys and values of a recipe in conf/sweep/.")
    return {str(key): value for key, value in values.items()}
