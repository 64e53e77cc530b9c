"""`retinue sweep`: a Hydra multirun with the launcher and the sweeper of this project."""

from collections.abc import Sequence

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from retinue.config import explain, project_root, quoted
from retinue.errors import SettingsError
from retinue.sweeps.table import Table

PLUGINS = ("hydra/launcher=dvc_experiments", "hydra/sweeper=study")


def run(overrides: Sequence[str]) -> Table:
    """Runs the sweep that `overrides` describe.

    Args:
        overrides: Hydra's, with several values where something varies; sweep=NAME takes a file of conf/sweep/.

    Raises:
        SettingsError: the settings do not compose, or describe no sweep.
    """
    conf = project_root() / "conf"
    given = [quoted(f"+{each}" if each.startswith("sweep=") else each) for each in overrides]
    if not any(each.startswith("+sweep=") for each in given):
        given.insert(0, "+sweep=default")
    with initialize_config_dir(str(conf), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            arguments = [*given, *PLUGINS]
            return hydra.multirun("config", lambda _: None, arguments, with_log_configuration=False)
        except (HydraException, OmegaConfBaseException) as error:
            raise SettingsError(explain(error, conf, overrides)) from error
