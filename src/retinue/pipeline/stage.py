"""How a stage starts and ends: settings, lock, tracking, errors, exit status.

This file imports neither torch nor Lightning, so that a stage that needs neither (report) stays light.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retinue.pipeline.checked import ensure_checked_for
from retinue.pipeline.composition import compose, load_params, project_root
from retinue.pipeline.ending import explained
from retinue.pipeline.errors import RetinueError, SettingsError
from retinue.pipeline.record import declared
from retinue.pipeline.running import lock, remove_leftovers
from retinue.pipeline.settings import Settings
from retinue.pipeline.snapshot import InputSnapshot
from retinue.pipeline.temporary import temporary_folder
from retinue.pipeline.tracker import Tracker, track


def main(name: str, run: Callable[[Settings, Tracker], None], sections: Sequence[str]) -> None:
    """Runs the stage `name` as a process: `run(settings, tracker)` inside its lock and its W&B run.

    The settings come from params.yaml where the command line has no overrides, inside DVC and by hand, else from conf/
    composed with them. All of them are checked before the W&B run begins, the sections of other stages, too. At its end
    the stage compares what it read with what is there, and fails where dvc.lock would describe another run. An error
    that is explained ends the process with its message alone and a non-zero status; RETINUE_TRACEBACK=1 adds the
    traceback.

    Args:
        name: of the stage, as in dvc.yaml.
        run: does the work.
        sections: of the settings the stage reads, exactly as dvc.yaml declares them.
    """
    with explained(f"stage {name}"):
        root = project_root()
        os.chdir(root)
        _check_checkout(root)
        overrides = sys.argv[1:]
        values = _values(overrides)
        settings = Settings(values, sections)
        if not is_first_process():  # rank 0 holds lock and W&B run
            run(settings, Tracker(None))
            return
        ensure_checked_for(name, values)
        stages = declared(values)
        with lock(name):
            remove_leftovers(name, {stage: paths.outs for stage, paths in stages.items()})
            params = None if overrides else {section: values[section] for section in sections}
            snapshot = InputSnapshot.take(params, stages[name].deps if name in stages else ())
            with temporary_folder(), track(name, settings) as tracker:
                run(settings, tracker)
                snapshot.check()


def _values(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of this start.

    Raises:
        SettingsError: they cannot be used, or overrides would make dvc.lock record settings that were not used.
    """
    if not overrides:
        return load_params()
    if "DVC_STAGE" in os.environ:
        raise SettingsError(
            f"{' '.join(overrides)}: inside DVC a stage reads params.yaml, which is what dvc.lock records. Take the "
            "overrides out of dvc.yaml; `retinue compose` takes them."
        )
    values = compose(overrides)
    if is_first_process():
        print(f"settings: conf/ with {' '.join(overrides)}; params.yaml is not used", flush=True)
    return values


def is_first_process() -> bool:
    """Whether this process is the only one of its stage, or the first of several.

    Lightning's ddp, torchrun and SLURM's srun tell a process its place in these variables, before Lightning is there.
    """
    return not any(int(os.environ.get(key, 0)) for key in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def _check_checkout(root: Path) -> None:
    code = Path(__file__).resolve()
    if not code.is_relative_to(root.resolve()):
        raise RetinueError(
            f"the code that runs is {code.parent}, the checkout is {root}: a result would not belong to this commit. "
            "Start stages with PYTHONPATH=src from the checkout, as dvc.yaml does."
        )
