"""W&B's client as the stages use it: where its files go, how long it may wait, and what it may not do to a stage."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retinue.pipeline.artifacts import CACHE
from retinue.pipeline.errors import RetinueError

START_TIMEOUT_S = 30
FINISH_TIMEOUT_S = 300
RETRIES = 4
"""How often a request is repeated, after 2, 4, 8, … s; W&B's own 20 hold up the end of a stage for many minutes."""


@contextmanager
def service(mode: str) -> Iterator[None]:
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


def start_run(mode: str, **run: Any) -> Any:
    """A `wandb.Run`, whose metrics of training have the epoch as their axis.

    Args:
        mode: "offline" or "online".
        run: arguments of `wandb.init`.

    Raises:
        RetinueError: `mode` is online, and there is no API key or no server that takes the run; or no run can be opened
            on this machine.
    """
    import wandb
    from wandb.sdk.lib.import_hooks import unregister_all_post_import_hooks

    server = wandb.setup().settings.base_url
    alternative = "or choose tracking=offline (`wandb sync` sends such runs later)"
    try:
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RetinueError(f"tracking.mode=online: no API key for {server}. Run `wandb login`, {alternative}.")
        # no header and footer; warnings about the upload come all the same
        opened = wandb.init(**run, settings=wandb.Settings(silent=True))
    except wandb.Error as error:
        if mode == "offline":
            raise RetinueError(f"W&B cannot open a run: {_said(error)}. tracking=off goes without one.") from error
        raise RetinueError(
            f"tracking.mode=online: {server} did not take the run: {_said(error)}. "
            f"Check WANDB_BASE_URL and the key (`wandb login`), {alternative}."
        ) from error
    # W&B counts which libraries are imported later; in a forked loader worker that count would end the worker
    unregister_all_post_import_hooks()
    if mode == "online":
        with warned(opened, "the check of the key"):
            opened._public_api()  # the first chart or artifact would ask, and be lost where the server has gone by then
    for pattern in ("train/*", "val/*", "lr"):  # not test/*: the charts of evaluate belong to no epoch
        opened.define_metric(pattern, step_metric="epoch")
    return opened


@contextmanager
def warned(run: Any, what: str, *, remedy: str = "") -> Iterator[None]:
    """Turns what W&B refuses in the block into a warning: the results are in the files already.

    A name that is too long for W&B is a ValueError, a process of it that died a ConnectionError.
    """
    from wandb import Error

    try:
        yield
    except (Error, ValueError, ConnectionError, TimeoutError) as error:
        warning = (
            f"warning: W&B did not take {what} ({run.name}): {_said(error)}. The results are not affected.{remedy}"
        )
        print(warning, file=sys.stderr, flush=True)


def folder_of(run: Any) -> str:
    """Folder of the run's files, relative to the working directory."""
    return os.path.relpath(run.settings.sync_dir)


def _said(error: Exception) -> str:
    """The first line of what W&B says, without its advice to programmers."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
