"""W&B mirrors what the stages write: one run per stage. The files are the record; with tracking off nothing is lost.

Only this module knows W&B, and it imports wandb, Lightning and torch no earlier than it needs them.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.artifacts import CACHE, SPLITS
from retinue.config import Settings
from retinue.errors import RetinueError, SettingsError, unknown
from retinue.lineage import declared, dvc_md5, hashes, revision

MODES = ("offline", "online", "off")
MAX_POINTS = 10_000
"""Rows of one chart that W&B draws; it drops the rest without a word."""

START_TIMEOUT_S = 30
FINISH_TIMEOUT_S = 300
RECORDED_ONLY = "dataset"
"""Kind of artifact of which W&B gets DVC's hash and not the bytes: DVC keeps them, `dvc get` brings them back."""


@dataclass(frozen=True)
class TrackingSettings:
    """conf/tracking: whether and where the runs go.

    Attributes:
        mode: "offline" (to files on this machine), "online" (to the W&B server as well) or "off".
        project: W&B project.
        entity: W&B user or team; None: the default one of the account.
        tags: of every run.
    """

    mode: str
    project: str
    entity: str | None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            hint = ' YAML reads a bare off as false: write "off".' if self.mode == "False" else ""
            raise SettingsError(f"tracking.mode: {unknown('mode', self.mode, MODES)}{hint}")
        if not self.project or len(self.project) > 128 or re.search(r"[/\\#?%:]", self.project):
            raise SettingsError(
                f"tracking.project: expected 1 to 128 characters, none of / \\ # ? % :, got {self.project!r}."
            )
        for tag in self.tags:
            if not 1 <= len(tag) <= 64:
                raise SettingsError(f"tracking.tags: expected 1 to 64 characters per tag, got {tag!r}.")


class Tracker:
    """The W&B run of one stage; every method does nothing where tracking is off or the rank is not 0.

    Args:
        run: a `wandb.Run`, or None.
        lineage: what the run's artifacts carry besides their own hash.
    """

    def __init__(self, run: Any, lineage: Mapping[str, Any] | None = None):
        self._run = run
        self._lineage = dict(lineage or {})

    def lightning_logger(self) -> Any:
        """A Lightning `WandbLogger` of this run for the Trainer's `logger`, or False, which is none."""
        if self._run is None:
            return False
        from pytorch_lightning.loggers import WandbLogger

        # save_dir: where Lightning puts what it has no other place for; its default is the checkout
        return WandbLogger(experiment=self._run, project=self._run.project, save_dir=self._run.settings.sync_dir)

    def summary(self, values: Mapping[str, float | int | str]) -> None:
        """Sets the final `values` of the run, the columns of W&B's table of runs."""
        if self._run is not None:
            self._run.summary.update(dict(values))

    def images(self, key: str, paths: Sequence[Path], captions: Sequence[str]) -> None:
        """Logs a gallery: the image files at `paths`, one of the `captions` under each."""
        if self._run is not None:
            from wandb import Image

            pairs = zip(paths, captions, strict=True)
            self._run.log({key: [Image(str(path), caption=caption) for path, caption in pairs]})

    def line(
        self, key: str, x: Sequence[float], ys: Mapping[str, Sequence[float]], *, x_name: str, title: str
    ) -> None:
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
            thinned = [[values[row] for row in rows] for values in ys.values()]
            chart = line_series([x[row] for row in rows], thinned, keys=list(ys), title=title, xname=x_name)
            self._run.log({key: chart})

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs a table."""
        if self._run is not None:
            from wandb import Table

            data = [list(row) for row in rows]
            self._run.log({key: Table(columns=list(columns), data=data, allow_mixed_types=True)})

    def artifact(self, path: Path, kind: str) -> None:
        """Logs an out of the stage, a folder or a file, with its DVC hash and the run's lineage as metadata.

        Args:
            path: relative to the checkout, as in dvc.yaml; it names the artifact: data/raw is "data-raw".
            kind: W&B's type: "model", "report", … Of a "dataset" the hash is logged, the bytes stay with DVC.
        """
        if self._run is None:
            return
        from wandb import Artifact

        md5 = dvc_md5(path)
        metadata = {"path": path.as_posix(), "dvc_md5": md5, **self._lineage}
        artifact = Artifact(path.as_posix().strip("./").replace("/", "-"), type=kind, metadata=metadata)
        if kind == RECORDED_ONLY:
            with artifact.new_file("dvc.json") as file:
                file.write(f'{{"md5": "{md5}", "path": "{path.as_posix()}"}}\n')
        elif path.is_dir():
            artifact.add_dir(str(path), skip_cache=True)
        else:
            artifact.add_file(str(path), skip_cache=True)
        self._run.log_artifact(artifact, aliases=["latest", self._lineage["settings_fingerprint"]])


@contextmanager
def track(stage: str, settings: Settings) -> Iterator[Tracker]:
    """The W&B run of `stage`, open while the block runs; it ends as failed when the block raises.

    Its config holds all settings and, under `lineage`, the git revision, the settings' fingerprint and the DVC hash of
    every dependency; its summary holds, under `outs`, the DVC hash of every out. An upload that breaks off or lasts
    too long is reported and costs nothing: the run is complete on disk, and `wandb sync` sends it.

    Raises:
        SettingsError: the section tracking is wrong.
        RetinueError: mode is online, and there is no API key or no server that takes the run.
    """
    own = settings.section("tracking", TrackingSettings)
    if own.mode == "off":
        yield Tracker(None)
        return
    fingerprint = settings.fingerprint()
    paths = declared(stage, settings.all())
    commit, dirty = revision(settings.all())
    origin = {"git_revision": commit, "git_dirty": dirty, "settings_fingerprint": fingerprint}
    config = {**settings.all(), "lineage": {**origin, "deps": hashes(paths.deps)}}
    with _wandb_folders() as folder:
        run = _start(own, folder, config, group=fingerprint, job_type=stage, name=f"{stage}-{fingerprint}")
        where = run.url if own.mode == "online" else _shown(run)
        print(f"W&B run {run.name}: {where}", flush=True)
        try:
            yield Tracker(run, origin)
            run.summary["outs"] = hashes(paths.outs)
        except BaseException:
            _finish(run, exit_code=1)
            raise
        _finish(run, exit_code=0)


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` (>= 2) of the indices 0 … `count` - 1, evenly spread, the first and the last among them.

    >>> evenly(11, 3), evenly(3, 10)
    ([0, 5, 10], [0, 1, 2])
    """
    if count <= limit:
        return list(range(count))
    return [index * (count - 1) // (limit - 1) for index in range(limit)]


@contextmanager
def _wandb_folders() -> Iterator[Path]:
    """The folder whose subfolder wandb/ holds the runs: WANDB_DIR, or .cache/ of the checkout.

    W&B's other files (copies of artifacts, logs of its service) would go to the home folder; they go below it, too.
    The client and its service read these places from the environment, which is as before afterwards.
    """
    folder = Path(os.environ.get("WANDB_DIR") or CACHE).resolve()
    # W&B would fall back to the temporary folder where this one cannot be made
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    ours = {
        "WANDB_DIR": str(folder),
        "WANDB_DATA_DIR": str(folder / "wandb" / "data"),
        "WANDB_CACHE_DIR": str(folder / "wandb" / "cache"),
        "WANDB_ERROR_REPORTING": "false",  # crash reports of the client go to its maker, whatever the mode
    }
    added = {key: value for key, value in ours.items() if not os.environ.get(key)}
    os.environ.update(added)
    try:
        yield folder
    finally:
        for key in added:
            del os.environ[key]


def _start(own: TrackingSettings, folder: Path, config: Mapping[str, Any], **names: str) -> Any:
    import wandb

    options = wandb.Settings(
        mode=own.mode,
        root_dir=str(folder),
        use_dot_wandb=False,
        init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", START_TIMEOUT_S)),
        finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", FINISH_TIMEOUT_S)),
        finish_timeout_raises=True,
        console="off",
        show_info=False,
        disable_code=True,
        disable_git=True,  # else a patch of the uncommitted changes is saved with the run
        save_code=False,
        label_disable=True,  # else the stage's source file is searched for labels
        x_disable_stats=True,  # starts a second process, 0.1 s
        x_disable_viewer=True,  # two more requests, 5 s each where there is no server
        x_save_requirements=False,  # requirements.lock is in the commit
        x_transaction_log_flush_interval=1,  # seconds of history that a crash of the machine costs; 15 by default
    )
    server = wandb.setup(options).settings.base_url
    try:
        if own.mode == "online" and not wandb.login(prompt=False):
            raise RetinueError(
                f"tracking.mode=online: no API key for {server}. Run `wandb login` once, or set WANDB_API_KEY; "
                "or choose tracking=offline: `wandb sync` sends such runs later."
            )
        options.silent = True  # W&B's own header and footer; warnings about the upload still come
        run = wandb.init(project=own.project, entity=own.entity, tags=own.tags, config=config, settings=options, **names)
    except (wandb.Error, OSError) as error:
        wandb.teardown(exit_code=1)
        ...
    for pattern in (*(f"{split}/*" for split in SPLITS), "lr"):
        run.define_metric(pattern, step_metric="epoch")
    return run
