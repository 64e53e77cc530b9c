"""W&B mirrors what the stages write: one run per stage. The files are the record; with tracking off nothing is lost.

Only this module knows W&B. It imports wandb, Lightning and torch no earlier than it needs them.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.artifacts import CACHE
from retinue.config import Settings
from retinue.errors import RetinueError, SettingsError, unknown
from retinue.lineage import Declared, declared, dvc_md5, experiment, hashes, revision

MODES = ("offline", "online", "off")
START_TIMEOUT_S = 30
FINISH_TIMEOUT_S = 300
RETRIES = 4
"""How often a request is repeated, after 2, 4, 8, … s; W&B's own 20 hold up the end of a stage for many minutes."""

MAX_POINTS = 10_000
"""Rows of one chart that W&B draws; it drops the others without a word."""

MAX_TAG = 64
"""Characters of a tag that W&B takes."""

RECORDED_ONLY = "dataset"
"""Kind of artifact of which W&B gets DVC's hash and not the bytes: DVC keeps them, and `dvc get` brings them back."""


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
        if not 1 <= len(self.project) <= 128 or re.search(r"[/\\#?%:]", self.project):
            raise SettingsError(
                f"tracking.project: expected 1 to 128 characters, none of / \\ # ? % :, got {self.project!r}."
            )
        for tag in self.tags:
            if not 1 <= len(tag) <= MAX_TAG:
                raise SettingsError(f"tracking.tags: expected 1 to {MAX_TAG} characters per tag, got {tag!r}.")


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

        # save_dir is where Lightning puts what it has no other place for; the default is the checkout
        return WandbLogger(experiment=self._run, project=self._run.project, save_dir=self._run.settings.sync_dir)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sets final `values` of the run, the columns of W&B's table of runs."""
        if self._run is not None:
            with _warned(self._run, "the summary"):
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
        with _warned(self._run, f"the artifact {path}"):
            self._run.log_artifact(artifact, aliases=["latest", self._lineage["settings_fingerprint"]])
            self._logged.append(artifact)

    def finish(self, exit_code: int) -> None:
        """Ends the run and waits for what is still to be sent.

        Args:
            exit_code: of the stage; anything but 0 marks the run as failed.
        """
        if self._run is None:
            return
        remedy = f" `wandb sync {_shown(self._run)}` sends what is on disk."
        if not self._run.offline:
            remedy = f" `wandb sync --no-skip-online {_shown(self._run)}` sends what is on disk: all but the artifacts."
        with _warned(self._run, "the end of the run", remedy=remedy):
            self._run.finish(exit_code=exit_code)
            for artifact in self._logged if not self._run.offline else ():
                with _warned(self._run, f"the artifact {artifact.name}"):
                    artifact.wait(timeout=0)

    def _log(self, key: str, value: Any) -> None:
        with _warned(self._run, key):
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
    own = settings.section("tracking", TrackingSettings)
    if own.mode == "off":
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
    tags = list(dict.fromkeys([*own.tags, *([source["sweep"][:MAX_TAG]] if "sweep" in source else [])]))
    with _service(own.mode):
        run = _start(own, config, tags, group=fingerprint, job_type=stage)
        print(f"W&B run {run.name}: {run.url if own.mode == 'online' else _shown(run)}", flush=True)
        tracker = Tracker(run, origin)
        try:
            yield tracker
            tracker.summary({"outs": hashes(paths.outs)})
        except BaseException:
            tracker.finish(exit_code=1)
            raise
        tracker.finish(exit_code=0)


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` (>= 2) of the indices 0 … `count` - 1, evenly spread, the first and the last among them.

    >>> evenly(11, 3), evenly(3, 10)
    ([0, 5, 10], [0, 1, 2])
    """
    if count <= limit:
        return list(range(count))
    return [index * (count - 1) // (limit - 1) for index in range(limit)]


@contextmanager
def _service(mode: str) -> Iterator[None]:
    """W&B's background process for the time of the block.

    The runs go below wandb/ in WANDB_DIR, or else in .cache/ of the checkout. W&B's other files (copies of artifacts,
    logs of the process) would go to the home folder; they go there, too. Client and process read these places from
    the environment, which is as before afterwards.
    """
    import wandb

    folder = Path(os.environ.get("WANDB_DIR") or CACHE).resolve()
    (folder / "wandb").mkdir(parents=True, exist_ok=True)  # W&B itself would fall back to a temporary folder
    ours = {
        "WANDB_DIR": str(folder),
        "WANDB_DATA_DIR": str(folder / "wandb" / "data"),
        "WANDB_CACHE_DIR": str(folder / "wandb" / "cache"),
        "WANDB_HTTP_TIMEOUT": "10",  # s that a chart or an artifact waits for a server that has gone; 19 by default
        "WANDB_ERROR_REPORTING": "false",  # the client's crash reports would go to its makers in every mode
    }
    added = {key: value for key, value in ours.items() if not os.environ.get(key)}
    os.environ.update(added)
    try:
        wandb.setup(wandb.Settings(**_options(mode, folder)))
        yield
    finally:
        # a process that was killed must not end the stage: not with its exit status, not with a broken connection
        with suppress(SystemExit, ConnectionError):
            wandb.teardown()
        for key in added:
            del os.environ[key]


def _options(mode: str, folder: Path) -> dict[str, Any]:
    return {
        "mode": mode,
        "root_dir": str(folder),
        "use_dot_wandb": False,
        "init_timeout": float(os.environ.get("WANDB_INIT_TIMEOUT", START_TIMEOUT_S)),
        "finish_timeout": float(os.environ.get("WANDB_FINISH_TIMEOUT", FINISH_TIMEOUT_S)),
        "finish_timeout_raises": True,
        "show_info": False,
        "console": "off",
        "disable_code": True,
        "save_code": False,
        "label_disable": True,  # else the stage's source is searched for labels
        "disable_git": True,  # else a patch of the uncommitted changes is saved with the run
        "x_disable_stats": True,  # a process of its own: 0.1 s
        "x_disable_viewer": True,  # two requests more, each 5 s where there is no server
        "x_graphql_retry_max": RETRIES,
        "x_save_requirements": False,  # requirements.lock is in the commit
        "x_transaction_log_flush_interval": 1,  # s of history that a crash of the machine costs; 15 by default
    }


def _start(own: TrackingSettings, config: Mapping[str, Any], tags: list[str], *, group: str, job_type: str) -> Any:
    import wandb
    from wandb.sdk.lib.import_hooks import unregister_all_post_import_hooks

    server = wandb.setup().settings.base_url
    alternative = "or choose tracking=offline (`wandb sync` sends such runs later)"
    try:
        if own.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RetinueError(f"tracking.mode=online: no API key for {server}. Run `wandb login`, {alternative}.")
        run = wandb.init(
            project=own.project,
            entity=own.entity,
            tags=tags,
            group=group,
            job_type=job_type,
            name=f"{job_type}-{group}",
            config=dict(config),
            settings=wandb.Settings(silent=True),  # no header and footer; warnings about the upload come all the same
        )
    except wandb.Error as error:
        if own.mode == "offline":
            raise RetinueError(f"W&B cannot open a run: {_line(error)}. tracking=off goes without one.") from error
        raise RetinueError(
            f"tracking.mode=online: {server} did not take the run: {_line(error)}. "
            f"Check WANDB_BASE_URL and the key (`wandb login`), {alternative}."
        ) from error
    # W&B counts which libraries are imported later; in a forked loader worker that count would end the worker
    unregister_all_post_import_hooks()
    if own.mode == "online":
        with _warned(run, "the check of the key"):
            run._public_api()  # the first chart or artifact would ask, and be lost where the server has gone by then
    for pattern in ("train/*", "val/*", "lr"):  # not test/*: the charts of evaluate belong to no epoch
        run.define_metric(pattern, step_metric="epoch")
    return run


@contextmanager
def _warned(run: Any, what: str, *, remedy: str = "") -> Iterator[None]:
    """Turns what W&B refuses in the block into a warning: the results are in the files already.

    A name that is too long for W&B is a ValueError, a process of it that died a ConnectionError.
    """
    from wandb import Error

    try:
        yield
    except (Error, ValueError, ConnectionError, TimeoutError) as error:
        warning = (
            f"warning: W&B did not take {what} ({run.name}): {_line(error)}. The results are not affected.{remedy}"
        )
        print(warning, file=sys.stderr, flush=True)


def _shown(run: Any) -> str:
    return os.path.relpath(run.settings.sync_dir)


def _line(error: Exception) -> str:
    """The first line of what W&B says, without its advice to programmers."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
