"""W&B runs that were recorded, read back: from the folders on this machine, or from the W&B server.

The folders are read by W&B itself, as `wandb leet inspect` reads them, without a connection.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from retinue.pipeline.artifacts import CACHE
from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.wandb_client import without_telemetry

TIMEOUT_S = 10
"""How long one request to the server may take."""

READ_TIMEOUT_S = 60
"""How long W&B may read the folder of one run."""


class RecordedRun(NamedTuple):
    """A W&B run as it was recorded by a stage.

    Attributes:
        run_id: W&B's.
        stage: of the pipeline.
        group: settings fingerprint.
        state: "finished", "failed", "running" or what else W&B says.
        folder: on this machine; None where it was read from the server.
        url: of its page on the server; None where it is not there, or where the folder does not say of which entity.
        sent: whether the server has it: while it ran, or by `wandb sync`.
        config: all settings and, under `lineage`, where the run comes from.
        summary: final values.
    """

    run_id: str
    stage: str
    group: str
    state: str
    folder: str | None
    url: str | None
    sent: bool
    config: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def lineage(self) -> Mapping[str, Any]:
        found = self.config.get("lineage")
        return found if isinstance(found, Mapping) else {}

    @property
    def place(self) -> str:
        """Where to look at it: its page, else its folder."""
        return self.url or self.folder or self.run_id


def runs_folder() -> Path:
    """Where the stages of this checkout put the folders of their runs."""
    return Path(os.environ.get("WANDB_DIR") or project_root() / CACHE) / "wandb"


def local_runs(fingerprint: str) -> list[RecordedRun]:
    """The runs of one settings fingerprint on this machine, oldest first.

    Raises:
        RetinueError: a run folder cannot be read.
    """
    marker = fingerprint.encode()
    # the group stands in the first record of the file as it is; only the files that hold it are worth a process
    files = [file for file in _run_files(runs_folder()) if marker in file.read_bytes()]
    return [run for run in map(read_folder, files) if run.group == fingerprint]


def local_run(name: str) -> RecordedRun | None:
    """The run with the id `name`, or in the folder `name`; None where there is none on this machine.

    Raises:
        RetinueError: the folder cannot be read.
    """
    if Path(name).is_dir() or name.endswith(".wandb"):
        return read_folder(Path(name))
    files = [file for file in _run_files(runs_folder()) if file.stem == f"run-{name}"]
    return read_folder(files[-1]) if files else None


def read_folder(path: Path) -> RecordedRun:
    """The run in a run folder, or in its .wandb file; that of a killed stage up to where it got.

    Raises:
        RetinueError: there is no run, or W&B cannot read it.
    """
    from wandb.util import get_core_path

    file = path if path.suffix == ".wandb" else next(path.glob("run-*.wandb"), None)
    if file is None or not file.is_file():
        raise RetinueError(f"{path}: no file run-….wandb there, so it is no folder of a W&B run.")
    # what `wandb leet inspect` starts, without the 0.5 s that the command itself takes; pinned with wandb
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--summary", "--json"]
    command += ["--run-file", str(file.absolute()), str(file.absolute().parents[1])]
    options: dict[str, Any] = {"env": {**os.environ, **_added()}, "capture_output": True, "text": True, "check": False}
    try:
        done = subprocess.run(command, timeout=READ_TIMEOUT_S, **options)
    except subprocess.TimeoutExpired as error:
        raise RetinueError(f"{file}: W&B did not read the run within {READ_TIMEOUT_S} s.") from error
    if done.returncode:
        raise RetinueError(f"{file}: W&B cannot read a run there: {done.stderr.strip() or done.stdout.strip()}")
    try:
        return _of_document(file, json.loads(done.stdout))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RetinueError(f"{file}: W&B reads something else than a run there ({error!r}).") from error


def _of_document(file: Path, found: Mapping[str, Any]) -> RecordedRun:
    """The run in the file at `file`, of which W&B says `found`."""
    online = not file.parent.name.startswith("offline-")
    return RecordedRun(
        run_id=found["run_id"],
        stage=_stage(found["name"]),
        group=_fingerprint_of_run(found["config"]),
        state=found["state"],
        folder=os.path.relpath(file.parent),
        url=_url(found) if online and found["entity"] else None,
        sent=online or Path(f"{file}.synced").exists(),
        config=found["config"],
        summary=found["summary"],
    )


@contextmanager
def server() -> Iterator[Any]:
    """The W&B server as a `wandb.Api`; what goes wrong with it in the block is explained.

    Raises:
        RetinueError: there is no API key, no server, or the server refuses what is asked.
    """
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    without_telemetry()
    added = _added()
    os.environ.update(added)
    address = ""
    try:
        settings = wandb.setup(wandb.Settings(silent=True, x_graphql_retry_max=1)).settings
        address = settings.base_url
        if not wandb.login(prompt=False, verify=False):
            raise RetinueError(f"no API key for {address}. Run `wandb login`, or set WANDB_API_KEY and WANDB_BASE_URL.")
        yield wandb.Api(timeout=TIMEOUT_S)
    except (wandb.Error, WandbApiFailedError, ValueError) as error:
        raise RetinueError(
            f"{address}: {str(error).strip().partition(chr(10))[0]}. Check WANDB_BASE_URL and the key (`wandb login`)."
        ) from error
    finally:
        wandb.teardown()
        for key in added:
            del os.environ[key]


def online_run(path: str) -> RecordedRun:
    """The run entity/project/id of the W&B server.

    Raises:
        RetinueError: there is no server, no key or no such run.
    """
    with server() as api:
        return _of_server(api.run(path))


def online_runs(project: str, fingerprint: str) -> list[RecordedRun]:
    """The runs of one settings fingerprint on the W&B server, oldest first.

    Args:
        project: entity/project, or project: that of the default entity.
        fingerprint: of the settings.
    """
    with server() as api:
        found = api.runs(project, filters={"group": fingerprint}, order="+created_at", lazy=False)
        return [_of_server(run) for run in found]


def _of_server(run: Any) -> RecordedRun:
    config = dict(run.config)
    summary = {key: value for key, value in run.summary_metrics.items() if not key.startswith("_")}
    return RecordedRun(
        run.id, _stage(run.name), _fingerprint_of_run(config), run.state, None, run.url, True, config, summary
    )


def _url(found: Mapping[str, Any]) -> str:
    import wandb

    without_telemetry()
    try:
        address = wandb.setup(wandb.Settings(silent=True)).settings.app_url
    finally:
        wandb.teardown()
    return f"{address}/{found['entity']}/{found['project']}/runs/{found['run_id']}"


def _added() -> dict[str, str]:
    """What the environment of W&B's client lacks: its files stay in the checkout, its makers get no reports."""
    folder = runs_folder()
    ours = {
        "WANDB_DIR": str(folder.parent),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_ERROR_REPORTING": "false",
    }
    return {key: value for key, value in ours.items() if not os.environ.get(key)}


def _run_files(folder: Path) -> list[Path]:
    """The files of runs below `folder`, oldest first: a folder is called [offline-]run-<time, s>-<id>."""

    def age(file: Path) -> tuple[str, int]:
        started = file.parent.name.removeprefix("offline-").rpartition("-")[0]
        return started, file.stat().st_mtime_ns

    return sorted(folder.glob("*run-*/run-*.wandb"), key=age)


def _stage(name: str) -> str:
    return name.rpartition("-")[0] or name


def _fingerprint_of_run(config: Mapping[str, Any]) -> str:
    lineage = config.get("lineage")
    return str(lineage.get("settings_fingerprint", "")) if isinstance(lineage, Mapping) else ""
