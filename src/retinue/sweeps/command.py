"""`retinue sweep`: a Hydra multirun with the launcher and the sweeper of this project."""

from collections.abc import Sequence
from dataclasses import fields

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from retinue.pipeline.composition import explain, project_root, quoted
from retinue.pipeline.errors import SettingsError, unknown
from retinue.sweeps.settings import SweepSettings
from retinue.sweeps.table import TrialTable

PLUGINS = ("hydra/launcher=dvc_experiments", "hydra/sweeper=study")


def run(overrides: Sequence[str]) -> TrialTable:
    """Runs the sweep that `overrides` describe.

    Args:
        overrides: Hydra's, with several values where something varies; sweep=NAME takes a file of conf/sweep/.

    Raises:
        SettingsError: the settings do not compose, or describe no sweep.
    """
    conf = project_root() / "conf"
    _check_keys(overrides)
    given = [quoted(f"+{each}" if each.startswith("sweep=") else each) for each in overrides]
    if not any(each.startswith("+sweep=") for each in given):
        given.insert(0, "+sweep=default")
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            return hydra.multirun("config", lambda _: None, [*given, *PLUGINS], with_log_configuration=False)
    except (HydraException, OmegaConfBaseException) as error:
        plain = [each for each in overrides if "," not in each and not each.startswith("sweep")]
        raise SettingsError(explain(error, conf, plain)) from error


def _check_keys(overrides: Sequence[str]) -> None:
    """The keys of `sweep` are no part of the composition that `explain` knows, so they are checked here."""
    names = [field.name for field in fields(SweepSettings)]
    for each in overrides:
        key = each.partition("=")[0]
        if key.startswith("sweep.") and key.split(".")[1] not in names:
            raise SettingsError(f"sweep: {unknown('key', key.split('.')[1], names)}")
