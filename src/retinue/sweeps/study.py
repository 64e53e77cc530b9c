"""The memory of a sweep: an Optuna study in SQLite, which says what to try next and outlives the process."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from retinue.engine.reproducibility import draw_seed
from retinue.pipeline.errors import DataError
from retinue.pipeline.ranges import shown
from retinue.pipeline.settings import first_line
from retinue.sweeps.axes import Axes
from retinue.sweeps.settings import SweepSettings

REASON, ATTEMPTS, RETRY_OF = "reason", "attempts", "retry_of"
_LOCKED_S = 30
"""How long another process may be writing to the study."""
MAX_ATTEMPTS = 3
"""How often a trial that was killed, or lost a file to another, is started; then it counts as failed."""


class Study:
    """Trials of a sweep, in `folder`/study.db.

    Args:
        folder: of the sweep.
        settings: conf/sweep.
        axes: what varies.
    """

    def __init__(self, folder: Path, settings: SweepSettings, axes: Axes):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._settings, self._axes = settings, axes
        self._distributions = distributions(axes)
        with _readable(folder / "study.db") as address:
            self._storage = optuna.storages.RDBStorage(address)
            self._study = optuna.create_study(
                study_name=folder.name, storage=self._storage, directions=settings.directions, load_if_exists=True
            )
            self._check_params()
            self._take_up()
            if settings.search == "grid":
                for point in axes.grid()[len(self._own()) : self.size]:
                    self._study.enqueue_trial(point)

    @property
    def size(self) -> int:
        """Number of trials that the sweep is to have, retries left out."""
        if self._settings.search == "grid":
            points = len(self._axes.grid())
            return points if self._settings.trials is None else min(points, self._settings.trials)
        assert self._settings.trials is not None
        return self._settings.trials

    def trials(self) -> list[FrozenTrial]:
        """Every trial, by number."""
        return self._study.get_trials(deepcopy=False)

    def latest(self) -> dict[int, FrozenTrial]:
        """Number of a trial that is no retry -> the trial, or its last retry."""
        return {trial.user_attrs.get(RETRY_OF, trial.number): trial for trial in self.trials()}

    def num_finished(self) -> int:
        """Number of trials that have ended, whatever their end; one that is to be retried has not."""
        return sum(trial.state.is_finished() for trial in self.latest().values())

    def num_failed(self) -> int:
        """Number of trials whose last try failed."""
        return sum(trial.state == TrialState.FAIL for trial in self.latest().values())

    def ask(self) -> Trial | None:
        """The next trial to run: one that was interrupted or is to be retried, else a new one; None at the end."""
        waiting = [each.number for each in self.trials() if each.state == TrialState.WAITING]
        if not waiting and (self._settings.search == "grid" or len(self._own()) >= self.size):
            return None
        number = min(waiting, default=len(self.trials()))
        self._study.sampler = sampler(self._settings, number)
        return self._study.ask(self._distributions)

    def overrides(self, trial: Trial | FrozenTrial) -> list[str]:
        """The trial's point as overrides of conf/."""
        return [f"{key}={_choice_text(trial.params[key])}" for key in self._axes.keys]

    def complete(self, trial: Trial, values: Sequence[float]) -> None:
        """The trial's objectives."""
        self._study.tell(trial, list(values))

    def pruned(self, trial: Trial, reason: str) -> None:
        """The trial was ended for it fell behind."""
        trial.set_user_attr(REASON, reason)
        self._study.tell(trial, state=TrialState.PRUNED)

    def failed(self, trial: Trial, reason: str) -> None:
        """The trial ended with an error of its own."""
        trial.set_user_attr(REASON, reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def interrupted(self, trial: Trial, reason: str) -> bool:
        """Others ended the trial. It will be asked for again, and the answer is True, or it failed `MAX_ATTEMPTS`."""
        attempts = trial.user_attrs.get(ATTEMPTS, 1)
        if attempts >= MAX_ATTEMPTS:
            self.failed(trial, reason)
            return False
        trial.set_user_attr(ATTEMPTS, attempts + 1)
        self._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)
        return True

    def retry(self, numbers: Sequence[int]) -> None:
        """Has failed trials run again, each as a new trial of the same settings."""
        trials = self.trials()
        for number in numbers:
            self._study.enqueue_trial(trials[number].params, user_attrs={RETRY_OF: number})

    def should_prune(self, trial: Trial, epochs: Mapping[int, float]) -> bool:
        """Whether the trial, with these values of its objective by epoch, from 1, is behind the others.

        Epoch 0, a fitted head, counts with the first: it is kept where that is no better.
        """
        known = self.trials()[trial.number].intermediate_values
        better = max if self._settings.directions[0] == "maximize" else min
        for epoch, value in sorted(epochs.items()):
            if epoch and epoch - 1 not in known:  # Optuna counts from 0
                trial.report(better(value, epochs.get(0, value)) if epoch == 1 else value, epoch - 1)
        self._study.pruner = pruner(self._settings)
        return trial.should_prune()

    def _own(self) -> list[FrozenTrial]:
        """The trials that are no retries."""
        return [each for each in self.trials() if RETRY_OF not in each.user_attrs]

    def _check_params(self) -> None:
        """Refuses trials of other settings than vary: what they say becomes overrides of conf/."""
        for trial in self.trials():
            for key, value in {**trial.params, **trial.system_attrs.get("fixed_params", {})}.items():
                own = self._distributions.get(key)
                if own is None or not _holds_value(own, value):
                    raise ValueError(f"trial {trial.number} has {key}={shown(value)}, which is not of this sweep")

    def _take_up(self) -> None:
        """Trials that were running when the sweep was killed are to be asked for again."""
        for trial in self.trials():
            if trial.state == TrialState.RUNNING:
                self._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


@contextmanager
def _readable(path: Path) -> Iterator[str]:
    """The address of the database at `path`, whole if it is there; what goes wrong with it in the block is explained.

    Raises:
        DataError: it is damaged, of another version of Optuna, or no database.
    """
    try:
        if path.exists():
            with closing(sqlite3.connect(path, timeout=_LOCKED_S)) as database:
                for (said,) in database.execute("PRAGMA quick_check(1)"):
                    if said != "ok":
                        raise ValueError(said)
        yield f"sqlite:///{path}"
    except (OptunaError, SQLAlchemyError, sqlite3.Error, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the study of this sweep cannot be read ({first_line(error)}). Delete it, and the same command "
            "makes it anew: experiments that are finished are not run again."
        ) from error


def _holds_value(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and distribution._contains(float(value))


def distributions(axes: Axes) -> dict[str, BaseDistribution]:
    """What Optuna draws from: choices as text, intervals as numbers."""
    found: dict[str, BaseDistribution] = {key: CategoricalDistribution(values) for key, values in axes.choices.items()}
    for key, (low, high, log, integer) in axes.intervals.items():
        found[key] = IntDistribution(int(low), int(high), log) if integer else FloatDistribution(low, high, log)
    return found


def sampler(settings: SweepSettings, number: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler for trial `number`.

    Its draws are a function of the seed of the search, of the number and of the trials that are finished. So a sweep
    of one worker that was killed and taken up draws what it would have drawn.
    """
    seed = draw_seed("sweep", settings.seed, number)
    if settings.search == "tpe":
        # by default TPE draws ten trials at random before it models any: too many for a small sweep
        random_first = max(2, min(10, (settings.trials or 0) // 3))
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=random_first, multivariate=True, constant_liar=settings.workers > 1
        )
    if settings.search == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, (settings.trials or 0) // 4)))
    return optuna.samplers.RandomSampler(seed=seed)


def pruner(settings: SweepSettings) -> optuna.pruners.BasePruner:
    """Says which trial is behind, from the values by epoch."""
    if settings.prune == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    if settings.prune == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=2)
    return optuna.pruners.NopPruner()


def _choice_text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
