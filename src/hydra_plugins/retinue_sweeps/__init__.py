"""What Hydra finds of `retinue sweep`: a launcher that runs jobs as DVC experiments, a sweeper that drives Optuna.

Hydra imports every plugin at each start, so nothing is imported here before it is used.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ExperimentLauncher(Launcher):
    """Each job of a multirun is a DVC experiment in a checkout of its own (retinue.sweeps.launcher)."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from retinue.sweeps.launcher import Experiments

        self.experiments = Experiments.of(config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self.experiments.launch(job_overrides, initial_job_idx)


class StudySweeper(Sweeper):
    """Grid, random, TPE and multi-objective search, with a study that outlives the process (retinue.sweeps.sweeper).

    Args:
        params: key -> values, as after the command; the command line has the last word.
    """

    def __init__(self, params: DictConfig):
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from retinue.sweeps.sweeper import sweep

        assert self.config is not None, "setup() comes first"
        return sweep(dict(self.params), arguments, self.launcher)


def _node(target: type, **settings: Any) -> dict[str, Any]:
    return {"_target_": f"{target.__module__}.{target.__name__}", **settings}


_store = ConfigStore.instance()
_store.store(group="hydra/launcher", name="dvc_experiments", node=_node(ExperimentLauncher), provider="retinue")
_store.store(group="hydra/sweeper", name="study", node=_node(StudySweeper, params={}), provider="retinue")
