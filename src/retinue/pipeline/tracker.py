"""W&B mirrors what the stages write: one run per stage. The files are the record; with tracking off nothing is lost.

wandb, Lightning and torch are imported no earlier than they are needed.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.pipeline import wandb_charts
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.record import Declared, declared, experiment, hashes, revision
from retinue.pipeline.settings import Settings
from retinue.pipeline.wandb_charts import Curve
from retinue.pipeline.wandb_client import OpenRun, open_run

MODES = ("offline", "online", "off")
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
        timeout_s: seconds that W&B may hold up a stage, at its start and for each thing it is given; then the stage
            goes on without W&B.
        finish_timeout_s: seconds that W&B may copy an artifact, or send the rest of a run at the end of a stage.
    """

    mode: str = field(metadata=allowed(choices=MODES))
    project: str = field(
        metadata=allowed(pattern=r"[^/\\#?%:]{1,128}", expected="a text of 1 to 128 characters, none of / \\ # ? % :")
    )
    entity: str | None
    tags: list[str] = field(
        metadata=allowed(pattern=f".{{1,{MAX_TAG}}}", expected=f"texts of 1 to {MAX_TAG} characters"),
    )
    timeout_s: float = field(metadata=allowed(ge=1, le=3600))
    finish_timeout_s: float = field(metadata=allowed(ge=1, le=86400))


class Tracker:
    """The W&B run of one stage; every method does nothing where tracking is off or the rank is not 0.

    What W&B refuses, or does not take in time, is told in a warning and costs the stage nothing.

    Args:
        run: that is open, or None.
        lineage: what the artifacts of the run carry as metadata besides their own DVC hash.
    """

    def __init__(self, run: OpenRun | None, lineage: Mapping[str, Any] | None = None):
        self._run = run
        self._lineage = dict(lineage or {})
        self._logged: list[Any] = []

    def lightning_logger(self) -> Any:
        """A Lightning `WandbLogger` of this run for the Trainer's `logger`, or False, which is none."""
        if self._run is None:
            return False
        from pytorch_lightning.loggers import WandbLogger

        opened = self._run

        class Bounded(WandbLogger):
            """Logs within W&B's time, and epochs counted from 1, as the files have them; Lightning counts from 0."""

            def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
                counted = {"epoch": metrics["epoch"] + 1} if "epoch" in metrics else {}
                values = {**metrics, **counted}
                opened.give("the metrics of an epoch", lambda: WandbLogger.log_metrics(self, values, step))

            def log_hyperparams(self, params: Any) -> None:
                opened.give("the hyperparameters", lambda: WandbLogger.log_hyperparams(self, params))

        run = opened.wandb_run
        # save_dir is where Lightning puts what it has no other place for; the default is the checkout
        return Bounded(experiment=run, project=run.project, save_dir=run.settings.sync_dir)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sets final `values` of the run, the columns of W&B's table of runs."""
        if self._run is not None:
            summary = self._run.wandb_run.summary
            self._run.give("the summary", lambda: summary.update(dict(values)))

    def images(self, key: str, paths: Sequence[Path], captions: Sequence[str]) -> None:
        """Logs a gallery: the image files at `paths`, one of the `captions` under each. W&B takes the first 108."""
        pairs = list(zip(paths, captions, strict=True))

        def gallery() -> Any:
            from wandb import Image

            return [Image(str(path), caption=caption) for path, caption in pairs]

        self._log(key, gallery)

    def curves(self, key: str, series: Mapping[str, Curve], *, x_name: str, title: str) -> None:
        """Logs a chart of lines, evenly thinned to `MAX_POINTS` points in all, both ends of each kept.

        Args:
            key: of the chart.
            series: name of the line -> the x and the y of its points.
            x_name: label of the axis.
            title: of the chart.
        """
        self._log(key, lambda: wandb_charts.curves_chart(series, x_name=x_name, title=title))

    def confusion(self, key: str, cells: Sequence[tuple[str, str, int]], *, title: str) -> None:
        """Logs a confusion matrix of (actual class, predicted class, number of images); missing cells are empty."""
        self._log(key, lambda: wandb_charts.confusion_chart(cells, title=title))

    def bars(self, key: str, counts: Mapping[str, int], *, label: str, title: str) -> None:
        """Logs how many images there are of each name; `label` says what the names are."""
        self._log(key, lambda: wandb_charts.bar_chart(counts, label=label, title=title))

    def histogram(self, key: str, values: Sequence[float]) -> None:
        """Logs how often values occur."""
        self._log(key, lambda: wandb_charts.histogram_chart(values))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs a table; a cell that is a path or an array uint8 (H, W, C) is a picture, and then it has 108 rows."""
        self._log(key, lambda: wandb_charts.filled_table(columns, rows))

    def page(self, key: str, path: Path) -> None:
        """Logs an HTML page, as it is."""

        def html() -> Any:
            from wandb import Html

            return Html(str(path), inject=False)

        self._log(key, html)

    def artifact(self, path: Path, kind: str) -> None:
        """Logs an out of the stage, a folder or a file, with its DVC hash and the run's lineage as metadata.

        Args:
            path: relative to the checkout, as in dvc.yaml; it names the artifact: data/raw is "data-raw".
            kind: W&B's type: "model", "report", … Of a "dataset" the hash is logged, the bytes stay with DVC.
        """
        if self._run is None:
            return
        found = hashes([path.as_posix()])
        if not found:  # a DVC that was started beside this stage has taken it away
            print(f"warning: W&B gets no artifact {path}: it is not there, or cannot be read", file=sys.stderr)
            return
        run, record = self._run.wandb_run, {"dvc_md5": found[path.as_posix()], "path": path.as_posix()}

        def log() -> None:
            from wandb import Artifact

            artifact = Artifact(record["path"].replace("/", "-"), type=kind, metadata={**record, **self._lineage})
            if kind == RECORDED_ONLY:
                with artifact.new_file("dvc.json") as file:
                    json.dump(record, file)
            elif path.is_dir():
                artifact.add_dir(str(path), skip_cache=True)
            else:
                artifact.add_file(str(path), skip_cache=True)
            run.log_artifact(artifact, aliases=["latest", self._lineage["settings_fingerprint"]])
            self._logged.append(artifact)

        self._run.give(f"the artifact {path}", log, large=True)

    def finish(self, exit_code: int) -> None:
        """Ends the run and waits for what is still to be sent.

        Args:
            exit_code: of the stage; anything but 0 marks the run as failed.
        """
        if self._run is not None:
            self._run.finish(exit_code, self._logged)

    def _log(self, key: str, make: Callable[[], Any]) -> None:
        """Logs what `make` makes of W&B's kinds, which write files of their own."""
        if self._run is not None:
            run = self._run.wandb_run
            self._run.give(key, lambda: run.log({key: make()}))


@contextmanager
def track(stage: str, settings: Settings) -> Iterator[Tracker]:
    """The W&B run of `stage`, open while the block runs; a block that raises ends it as failed.

    Its config holds all settings and, under `lineage`, the git revision, the settings' fingerprint, the DVC experiment
    and the sweep it belongs to, and the DVC hash of every dependency; its summary holds, under `outs`, the DVC hash of
    every out. The sweep is a tag, too. Whatever becomes of W&B, its start, its process, its server or its disk, neither
    fails the stage nor holds it up for longer than the settings say: a warning tells what W&B lost, and how to send
    what is on disk.

    Raises:
        SettingsError: the section tracking is wrong.
        RetinueError: mode is online, and there is no API key.
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
    with open_run(
        tracking.mode,
        timeout_s=tracking.timeout_s,
        finish_timeout_s=tracking.finish_timeout_s,
        project=tracking.project,
        entity=tracking.entity,
        tags=tags,
        group=fingerprint,
        job_type=stage,
        name=f"{stage}-{fingerprint}",
        config=config,
    ) as run:
        if run is not None:
            print(f"W&B run {run.wandb_run.name}: {run.place}", flush=True)
        tracker = Tracker(run, origin)
        try:
            yield tracker
            tracker.summary({"outs": hashes(paths.outs)})
        except BaseException:
            tracker.finish(exit_code=1)
            raise
        tracker.finish(exit_code=0)
