"""W&B mirrors what the stages write: one run per stage. The files are the record; with tracking off nothing is lost.

wandb, Lightning and torch are imported no earlier than they are needed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.record import Declared, declared, dvc_md5, experiment, hashes, revision
from retinue.pipeline.settings import Settings
from retinue.pipeline.wandb_client import folder_of, service, start_run, warned

MODES = ("offline", "online", "off")
MAX_POINTS = 10_000
"""Rows of one chart that W&B draws; it drops the others without a word."""

MAX_TAG = 64
"""Characters of a tag that W&B takes."""

RECORDED_ONLY = "dataset"
"""Kind of artifact of which W&B gets DVC's hash and not the bytes: DVC keeps them, and `dvc get` brings them back."""


@dataclass(frozen=True)
class TrackingSettings(Checked, section="tracking"):
    """conf/tracking: whether and where the runs go.

    Attributes:
        mode: "offline" (to files on this machine), "online" (to the W&B server as well) or "off".
        project: W&B project.
        entity: W&B user or team; None: the default one of the account.
        tags: of every run.
    """

    mode: str = field(metadata=allowed(choices=MODES))
    project: str = field(
        metadata=allowed(pattern=r"[^/\\#?%:]{1,128}", expected="a text of 1 to 128 characters, none of / \\ # ? % :")
    )
    entity: str | None
    tags: list[str] = field(
        default_factory=list,
        metadata=allowed(pattern=f".{{1,{MAX_TAG}}}", expected=f"texts of 1 to {MAX_TAG} characters"),
    )


class Tracker:
    """The W&B run of one stage; every method does nothing where tracking is off or the rank is not 0.

    What W&B refuses while the stage runs is told in a warning and costs the stage nothing.

    Args:
        run: a `wandb.Run`, or None.
        lineage: what the artifacts of the run carry as metadata besides their own DVC hash.
    """

    def __init__(self, run: Any, lineage: Mapping[str, Any] | None = None):
        self._run = run
        self._lineage = dict(lineage or {})
        self._logged: list[Any] = []

    def lightning_logger(self) -> Any:
        """A Lightning `WandbLogger` of this run for the Trainer's `logger`, or False, which is none."""
        if self._run is None:
            return False
        from pytorch_lightning.loggers import WandbLogger

        class FromOne(WandbLogger):
            """Logs epochs counted from 1, as the files have them; Lightning counts them from 0."""

            def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
                counted = {"epoch": metrics["epoch"] + 1} if "epoch" in metrics else {}
                super().log_metrics({**metrics, **counted}, step)

        # save_dir is where Lightning puts what it has no other place for; the default is the checkout
        return FromOne(experiment=self._run, project=self._run.project, save_dir=self._run.settings.sync_dir)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sets final `values` of the run, the columns of W&B's table of runs."""
        if self._run is not None:
            with warned(self._run, "the summary"):
                self._run.summary.update(dict(values))

    def images(self, key: str, paths: Sequence[Path], captions: Sequence[str]) -> None:
        """Logs a gallery: the image files at `paths`, one of the `captions` under each. W&B takes the first 108."""
        if self._run is not None:
            from wandb import Image

            pairs = zip(paths, captions, strict=True)
            self._log(key, [Image(str(path), caption=caption) for path, caption in pairs])

    def line(self, key: str, x: Sequence[float], ys: Mapping[str, Sequence[float]], *, x_name: str, title: str) -> None:
        """Logs a chart of lines over one axis, evenly thinned to `MAX_POINTS` points in all, both ends kept.

        Args:
            key: of the chart.
            x: the axis, n values.
            ys: name of the line -> its n values.
            x_name: label of the axis.
            title: of the chart.
        """
        if self._run is not None:
            from wandb.plot import line_series

            rows = evenly(len(x), MAX_POINTS // len(ys))
            lines = [[values[row] for row in rows] for values in ys.values()]
            self._log(key, line_series([x[row] for row in rows], lines, keys=list(ys), title=title, xname=x_name))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs a table."""
        if self._run is not None:
            from wandb import Table

            data = [list(row) for row in rows]
            self._log(key, Table(columns=list(columns), data=data, allow_mixed_types=True))

    def artifact(self, path: Path, kind: str) -> None:
        """Logs an out of the stage, a folder or a file, with its DVC hash and the run's lineage as metadata.

        Args:
            path: relative to the checkout, as in dvc.yaml; it names the artifact: data/raw is "data-raw".
            kind: W&B's type: "model", "report", … Of a "dataset" the hash is logged, the bytes stay with DVC.
        """
        if self._run is None:
            return
        from wandb import Artifact

        record = {"dvc_md5": dvc_md5(path), "path": path.as_posix()}
        artifact = Artifact(record["path"].replace("/", "-"), type=kind, metadata={**record, **self._lineage})
        if kind == RECORDED_ONLY:
            with artifact.new_file("dvc.json") as file:
                json.dump(record, file)
        elif path.is_dir():
            artifact.add_dir(str(path), skip_cache=True)
        else:
            artifact.add_file(str(path), skip_cache=True)
        with warned(self._run, f"the artifact {path}"):
            self._run.log_artifact(artifact, aliases=["latest", self._lineage["settings_fingerprint"]])
            self._logged.append(artifact)

    def finish(self, exit_code: int) -> None:
        """Ends the run and waits for what is still to be sent.

        Args:
            exit_code: of the stage; anything but 0 marks the run as failed.
        """
        if self._run is None:
            return
        folder = folder_of(self._run)
        remedy = f" `wandb sync {folder}` sends what is on disk."
        if not self._run.offline:
            remedy = f" `wandb sync --no-skip-online {folder}` sends what is on disk: all but the artifacts."
        with warned(self._run, "the end of the run", remedy=remedy):
            self._run.finish(exit_code=exit_code)
            for artifact in self._logged if not self._run.offline else ():
                with warned(self._run, f"the artifact {artifact.name}"):
                    artifact.wait(timeout=0)

    def _log(self, key: str, value: Any) -> None:
        with warned(self._run, key):
            self._run.log({key: value})


@contextmanager
def track(stage: str, settings: Settings) -> Iterator[Tracker]:
    """The W&B run of `stage`, open while the block runs; a block that raises ends it as failed.

    Its config holds all settings and, under `lineage`, the git revision, the settings' fingerprint, the DVC experiment
    and the sweep it belongs to, and the DVC hash of every dependency; its summary holds, under `outs`, the DVC hash of
    every out. The sweep is a tag, too. An upload that breaks off or takes too long does not fail the stage: a warning
    tells it, and how to send the run (without artifacts) from disk.

    Raises:
        SettingsError: the section tracking is wrong.
        RetinueError: mode is online, and there is no API key or no server that takes the run.
    """
    tracking = settings.section("tracking", TrackingSettings)
    if tracking.mode == "off":
        yield Tracker(None)
        return
    fingerprint = settings.fingerprint()
    stages = declared(settings.all())
    paths = stages.get(stage, Declared((), ()))
    commit, dirty = revision(path for each in stages.values() for path in each.outs)
    source = experiment()
    origin = {"git_revision": commit, "git_dirty": dirty, "settings_fingerprint": fingerprint, **source}
    exact = json.dumps(settings.all(), ensure_ascii=False)  # of the config itself W&B makes 1.0 a 1
    config = {**settings.all(), "lineage": {**origin, "deps": hashes(paths.deps), "settings": exact}}
    tags = list(dict.fromkeys([*tracking.tags, *([source["sweep"][:MAX_TAG]] if "sweep" in source else [])]))
    with service(tracking.mode):
        run = start_run(
            tracking.mode,
            project=tracking.project,
            entity=tracking.entity,
            tags=tags,
            group=fingerprint,
            job_type=stage,
            name=f"{stage}-{fingerprint}",
            config=config,
        )
        print(f"W&B run {run.name}: {run.url if tracking.mode == 'online' else folder_of(run)}", flush=True)
        tracker = Tracker(run, origin)
        try:
            yield tracker
            tracker.summary({"outs": hashes(paths.outs)})
        except BaseException:
            tracker.finish(exit_code=1)
            raise
        tracker.finish(exit_code=0)


def evenly(count: int, limit: int) -> list[int]:
    """Chooses at most `limit` (>= 2) of the indices 0 … `count` - 1, evenly, with the first and the last.

    >>> evenly(11, 3), evenly(3, 10)
    ([0, 5, 10], [0, 1, 2])
    """
    if count <= limit:
        return list(range(count))
    return [index * (count - 1) // (limit - 1) for index in range(limit)]
