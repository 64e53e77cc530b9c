"""Where a result was recorded: found by DVC experiment, by settings fingerprint or by W&B run."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from retinue.experiments.lock import StageRecord, inputs_of, stale_stages
from retinue.experiments.outcomes import Experiment, all_experiments
from retinue.pipeline.artifacts import METRICS, flat_metrics
from retinue.pipeline.composition import project_root
from retinue.pipeline.documents import parse_json, typed
from retinue.pipeline.errors import RetinueError, unknown
from retinue.pipeline.git import ask, committed_text
from retinue.pipeline.record import SETTINGS
from retinue.pipeline.settings import fingerprint_of
from retinue.tracking.runs import RecordedRun, local_run, local_runs, online_run, online_runs

LOCK = "dvc.lock"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{12}")
_ONLINE = re.compile(r"[^/]+/[^/]+/[^/]+")


class Recorded(NamedTuple):
    """A result as it was recorded.

    Attributes:
        commit: with the code it was made by.
        settings: all of them, as plain containers.
        experiment: the DVC experiment that holds it, if one does.
        dirty: whether the code differed from `commit`; None where nobody knows.
        metrics: as `artifacts.flat_metrics` gives them; empty where none were recorded.
        hashes: path -> DVC's hash of what its stages wrote, and of what they read and no stage writes.
        stale: stage -> why what it last wrote is not of this result, and so in neither of the two.
        run: the W&B run it was found by, if it was.
    """

    commit: str
    settings: Mapping[str, Any]
    experiment: Experiment | None
    dirty: bool | None
    metrics: Mapping[str, float]
    hashes: Mapping[str, str]
    stale: Mapping[str, str]
    run: RecordedRun | None = None

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its settings, which is the group of its W&B runs."""
        return fingerprint_of(self.settings)

    @property
    def title(self) -> str:
        """What it is, in words."""
        if self.experiment is not None:
            return f"experiment {self.experiment.name}"
        return f"W&B run {self.run.run_id}" if self.run is not None else f"settings {self.fingerprint}"


def find(name: str) -> Recorded:
    """The result called `name`.

    Args:
        name: of a DVC experiment; a settings fingerprint (twelve hexadecimal digits); id or folder of a W&B run on this
            machine; entity/project/id of a run on the W&B server.

    Raises:
        RetinueError: there is no such result, or there are several.
    """
    experiments = all_experiments()
    for experiment in experiments:
        if experiment.name == name:
            return _of_commit(experiment)
    if _FINGERPRINT.fullmatch(name):
        return _of_fingerprint(name, experiments)
    run = local_run(name)
    if run is None and _ONLINE.fullmatch(name):
        run = online_run(name)
    if run is None:
        names = [experiment.name for experiment in experiments]
        raise RetinueError(
            f"{unknown('experiment', name, names)} It is no settings fingerprint (twelve hexadecimal digits), no W&B "
            "run on this machine (its id or folder) and no run of the server (entity/project/id) either."
        )
    return _of_run(run, experiments)


def _of_commit(experiment: Experiment) -> Recorded:
    lock = experiment.lock()
    scored = METRICS.as_posix() in lock.outs
    return Recorded(
        commit=experiment.revision,
        settings=experiment.settings(),
        experiment=experiment,
        dirty=False,  # the commit holds the code as well
        metrics=flat_metrics(experiment.metrics()) if scored else {},
        hashes={**lock.inputs, **lock.outs},
        stale=lock.stale,
    )


def _of_fingerprint(fingerprint: str, experiments: Iterable[Experiment]) -> Recorded:
    """The newest commit of this branch that recorded these settings; else the one experiment that did."""
    listed = ask(project_root(), "log", "--format=%H", "--", SETTINGS, LOCK, METRICS.as_posix()) or ""
    for digest in listed.split():
        commit = Experiment(digest, digest, digest)
        if committed_text(project_root(), digest, SETTINGS) and commit.fingerprint() == fingerprint:
            return _of_commit(commit)._replace(experiment=None)
    same = [experiment for experiment in experiments if experiment.fingerprint() == fingerprint]
    if len(same) > 1:
        names = ", ".join(experiment.name for experiment in same)
        raise RetinueError(f"{fingerprint}: several experiments have these settings. Name one of them: {names}.")
    if same:
        return _of_commit(same[0])
    runs = [run for run in local_runs(fingerprint) if "settings" in run.lineage]
    if runs:
        return _of_run(runs[-1], experiments)
    raise RetinueError(
        f"{fingerprint}: no commit of this branch, no DVC experiment and no W&B run here has these settings. "
        "`dvc exp show` lists experiments; a run of the W&B server is named entity/project/id."
    )


def _of_run(run: RecordedRun, experiments: Iterable[Experiment]) -> Recorded:
    """What is recorded of a run: by its experiment, where that is in this repository; else by the run itself."""
    lineage = run.lineage
    if "settings" not in lineage or not _COMMIT.fullmatch(str(lineage.get("git_revision"))):
        raise RetinueError(
            f"{run.place}: this run did not record its settings and its git revision (config.lineage), so it was not "
            "made by a stage of this project in a git repository."
        )
    for experiment in experiments:
        if experiment.name == lineage.get("experiment") and experiment.fingerprint() == run.group:
            return _of_commit(experiment)._replace(run=run)
    siblings = _siblings(run)
    records = {one.stage: _stage_record(one) for one in siblings}  # the last of each
    stale = stale_stages(records, {})
    outs = {path: md5 for stage, record in records.items() if stage not in stale for path, md5 in record.outs.items()}
    written = {path for record in records.values() for path in record.outs}
    return Recorded(
        commit=lineage["git_revision"],
        settings=_settings_of(run),
        experiment=None,
        dirty=any(sibling.lineage.get("git_dirty", True) for sibling in siblings),
        metrics={} if "evaluate" in stale else _logged_metrics(siblings),
        hashes={**inputs_of(records.values(), written), **outs},
        stale=stale,
        run=run,
    )


def _settings_of(run: RecordedRun) -> dict[str, Any]:
    """The settings that a run recorded; anybody who may write to the project may have changed them since.

    Raises:
        RetinueError: they are none, or are not those that its group names.
    """
    where = f"{run.place}: config.lineage.settings"
    settings = typed(dict[str, Any], parse_json(str(run.lineage["settings"]), where), where)
    if fingerprint_of(settings) != run.group:
        raise RetinueError(f"{where}: these settings have another fingerprint than the run's group, {run.group}.")
    return settings


def _stage_record(run: RecordedRun) -> StageRecord:
    deps = typed(dict[str, str], run.lineage.get("deps"), f"{run.place}: config.lineage.deps")
    return StageRecord(deps, typed(dict[str, str], run.summary["outs"], f"{run.place}: summary.outs"))


def _siblings(run: RecordedRun) -> list[RecordedRun]:
    """The finished runs of the same settings and the same commit, `run` among them."""
    if run.folder is not None:
        everyone = local_runs(run.group)
    else:
        assert run.url is not None
        *_, entity, project, _, _ = run.url.split("/")  # …/entity/project/runs/id
        everyone = online_runs(f"{entity}/{project}", run.group)
    commit = run.lineage["git_revision"]
    return [one for one in everyone if one.lineage.get("git_revision") == commit and "outs" in one.summary]


def _logged_metrics(runs: Iterable[RecordedRun]) -> dict[str, float]:
    """What the last of the `runs` of evaluate logged."""
    summaries = [run.summary for run in runs if run.stage == "evaluate"]
    logged = summaries[-1] if summaries else {}
    return {
        key.removeprefix("test/"): value
        for key, value in logged.items()
        if key.startswith("test/") and isinstance(value, int | float)
    }
