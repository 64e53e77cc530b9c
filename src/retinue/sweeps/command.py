"""`retinue sweep`: a Hydra multirun with the launcher and the sweeper of this project."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import Fault, SettingsError, SettingsFaults, unknown
from retinue.pipeline.overrides import name_of, parsed, readable
from retinue.pipeline.ranges import checked
from retinue.pipeline.settings import first_line
from retinue.sweeps.axes import OF_SWEEPS, axes_of, points
from retinue.sweeps.inputs import check_trials
from retinue.sweeps.settings import SweepSettings
from retinue.sweeps.sweep import RECIPE
from retinue.sweeps.table import TrialTable

AXES_OF_A_RECIPE = "hydra.sweeper.params"

PLUGINS = ("hydra/launcher=dvc_experiments", "hydra/sweeper=study")


def run(overrides: Sequence[str]) -> TrialTable:
    """Runs the sweep that `overrides` describe.

    Args:
        overrides: Hydra's, with several values where something varies; sweep=NAME takes a file of conf/sweep/.

    Raises:
        SettingsError: the settings do not compose, or describe no sweep.
    """
    wrong = [*_wrong_settings(overrides)]
    given: list[str] = []
    for override in overrides:
        read = readable(f"+{override}" if override.startswith("sweep=") else override, several=True)
        if isinstance(read, Fault):
            wrong.append(read)
        else:
            given.append(read)
    if wrong:
        raise SettingsFaults([*wrong, *_faults_of_trials(given)])
    if not any(each.startswith("+sweep=") for each in given):
        given.insert(0, "+sweep=default")
    try:
        with initialize_config_dir(str(project_root() / "conf"), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            return hydra.multirun("config", lambda _: None, [*given, *PLUGINS], with_log_configuration=False)
    except SettingsFaults as error:
        if not any(fault.key.startswith("sweep.") for fault in error.faults):
            raise
        raise SettingsFaults([*error.faults, *_faults_of_trials(given)]) from error
    except (HydraException, OmegaConfBaseException) as error:
        if faults := _faults_of_trials(given):
            raise SettingsFaults(faults) from error
        raise SettingsError(first_line(error)) from error


def _faults_of_trials(given: Sequence[str]) -> list[Fault]:
    """What no trial of a command line can use, on any machine; a recipe's own settings are left out."""
    own = [each for each in given if name_of(each).split(".")[0] not in OF_SWEEPS]
    found = list(_recipe_faults(given))
    try:
        check_trials(project_root(), points(axes_of({}, own)), elsewhere=True)
    except SettingsFaults as error:
        found += error.faults
    return found


def _recipe_faults(given: Sequence[str]) -> Iterator[Fault]:
    available = sorted(path.stem for path in (project_root() / "conf" / "sweep").glob("*.yaml"))
    for each in given:
        name = each.removeprefix(RECIPE)
        if name != each and name not in available:
            yield Fault("sweep", name, "a file of conf/sweep/", unknown("sweep", name, available))


def _wrong_settings(overrides: Sequence[str]) -> Iterator[Fault]:
    """What is wrong by itself in the section `sweep`, which is no part of params.yaml, so it is checked here."""
    names = [field.name for field in fields(SweepSettings)]
    given = dict[str, Any]()
    for each in overrides:
        key, _, value = each.partition("=")
        if key.lstrip("+~").startswith(("hydra.sweeper", "hydra.launcher")) and not key.startswith(AXES_OF_A_RECIPE):
            yield Fault(key, value, f"nothing but {AXES_OF_A_RECIPE}", "A sweep has its own sweeper and launcher.")
        if key.startswith("sweep.") and key.split(".")[1] not in names:
            yield Fault(key, value, "a setting of conf/sweep/default.yaml", unknown("key", key.split(".")[1], names))
        elif key.startswith("sweep.") and (found := parsed(each)) is not None and found.is_sweep_override():
            yield Fault(key, value, "one value", "Trials vary in what they compute, not in how they are searched.")
        elif key.startswith("sweep.") and found is not None and key.count(".") == 1:
            given[key.split(".")[1]] = _plain(found.value())
    given = {name: given[name] for name in names if name in given and "${" not in str(given[name])}
    _, faults = checked(SweepSettings, given, where="sweep")
    yield from (fault for fault in faults if fault.key.removeprefix("sweep.") in given)


def _plain(value: Any) -> Any:
    """A value as Hydra's parser has it, its quoted texts as texts."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return {_plain(key): _plain(each) for key, each in value.items()} if isinstance(value, dict) else value
