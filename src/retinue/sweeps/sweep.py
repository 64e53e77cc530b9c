"""What a sweep is called and where its files are: one answer for the launcher, the sweeper and the next start."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from retinue.artifacts import CACHE
from retinue.config import fingerprint, project_root, strict
from retinue.errors import SettingsError
from retinue.sweeps.axes import Axes, parse
from retinue.sweeps.checkout import Snapshot
from retinue.sweeps.settings import SweepSettings

RECIPE = "+sweep="


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
        """Of its study, its logs and its table."""
        return self.snapshot.root / CACHE / "sweeps" / self.name

    @classmethod
    def of(cls, config: DictConfig) -> "Sweep":
        """The sweep that a multirun composition describes.

        The name is the same for the same code, axes, fixed overrides, search, objective and seed: then it is the same
        sweep, which goes on where it was. More trials, more workers and another place to run them do not change it.
        """
        settings = strict(SweepSettings, _plain(config.sweep), where="sweep")
        arguments = list(config.hydra.overrides.task)
        params = config.hydra.sweeper.params  # None of Hydra's own sweeper
        axes = parse({} if params is None else _plain(params), arguments)
        snapshot = Snapshot.take(project_root().resolve())
        if settings.name is not None:
            return cls(settings.name, settings, axes, snapshot)
        recipe = next((each.removeprefix(RECIPE) for each in arguments if each.startswith(RECIPE)), "default")
        if not re.fullmatch(r"\w+", recipe):
            raise SettingsError(f"sweep={recipe}: expected the name of a file in conf/sweep/.")
        searched = [settings.search, settings.objectives, settings.seed, settings.prune, axes, snapshot.fingerprint()]
        stem = "sweep" if recipe == "default" else recipe.replace("_", "-")
        return cls(f"{stem}-{fingerprint(searched)[:6]}", settings, axes, snapshot)


def _plain(node: Any) -> dict[str, Any]:
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
