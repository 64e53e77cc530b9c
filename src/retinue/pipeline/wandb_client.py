"""W&B's client as the stages use it: where its files go, how long it may hold a stage, and what it may not do to it."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from retinue.pipeline.artifacts import CACHE
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.numbers import seconds

RETRIES = 4
"""How often a request is repeated, after 2, 4, 8, … s; W&B's own 20 hold up the end of a stage for many minutes."""

_OWN_SHARE = 1 / 2
"""Of the time a start may take, what W&B's own limits get: it says what is wrong, and an offline run still begins."""

_Result = TypeVar("_Result")


class NoAnswerError(Exception):
    """W&B's client did not come back within its time."""


def within(limit_s: float, work: Callable[[], _Result]) -> _Result:
    """What `work` returns or raises, if it ends in time.

    wandb 0.31.0 has waits that no time limit of its own covers: a service that cannot be launched dead-locks
    `wandb.setup` where telemetry is on, `wandb.init` waits for ever for a service that has stopped answering, and
    `wandb.teardown` for its end. A thread cannot be ended from outside, but it can be left behind: this one is a
    daemon, for which the interpreter does not wait at its end.

    Args:
        limit_s: how long to wait, s.
        work: of W&B's client.

    Raises:
        NoAnswerError: it has not ended; its thread is left to itself.
    """
    outcome: Future[_Result] = Future()

    def resolve() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to who waits, who decides
            outcome.set_exception(error)

    threading.Thread(target=resolve, name="W&B", daemon=True).start()
    try:
        return outcome.result(limit_s)
    except TimeoutError:
        if outcome.done():
            raise  # W&B's own
        raise NoAnswerError(f"no answer within {seconds(limit_s)}") from None


class Service:
    """W&B's background process, from `start` to `end`.

    Args:
        limit_s: how long its start, and its end, may take, s.
    """

    def __init__(self, limit_s: float):
        self._limit_s = limit_s
        self._killed = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, options: dict[str, Any]) -> None:
        """Starts it with W&B's settings `options`. Call it `within` a limit."""
        import wandb

        without_telemetry()
        connection = wandb.setup(wandb.Settings(**options)).ensure_service()
        if connection._proc is not None:
            self._process = connection._proc._process

    def kill(self) -> None:
        """Ends it at once; what it has written stays on disk, and who waits for it is released."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """Ends it in order or, where that takes too long, at once; W&B's hook for the end of Python goes with it."""
        wandb = sys.modules.get("wandb")
        if wandb is None:  # its import failed
            return
        # the end of a process that was killed is told by its exit status (SystemExit) or as a broken connection; none
        # of it says more of the run than was told when it was lost
        with suppress(SystemExit, Exception):
            try:
                within(1 if self._killed else self._limit_s, wandb.teardown)
            except NoAnswerError:
                self.kill()


class OpenRun:
    """A run that W&B has opened. What W&B does not take of it is told in a warning and costs the stage nothing more.

    Args:
        run: a `wandb.Run`.
        service: that has it.
        timeout_s: how long W&B may take for one thing, s.
        finish_timeout_s: how long it may take to copy an artifact, or to send the rest of the run, s.
    """

    def __init__(self, run: Any, service: Service, timeout_s: float, finish_timeout_s: float):
        self.wandb_run = run
        self._service, self._timeout_s, self._finish_timeout_s = service, timeout_s, finish_timeout_s
        self._lost = False

    @property
    def offline(self) -> bool:
        return self.wandb_run.offline

    @property
    def folder(self) -> str:
        """Folder of the run's files, relative to the working directory."""
        return os.path.relpath(self.wandb_run.settings.sync_dir)

    @property
    def place(self) -> str:
        """Where to look at it: its page on the server, or its folder."""
        return self.folder if self.offline else self.wandb_run.url

    def give(self, what: str, work: Callable[[], object], *, large: bool = False) -> None:
        """Has W&B do `work` with its run.

        After the first time that it takes too long, or that its process is not there any more, nothing is given to it:
        whoever waits for it once waits each time.

        Args:
            what: is given, for the warning.
            work: of W&B's client.
            large: whether a file is copied, which may take as long as the end of the run.
        """
        limit_s = max(self._timeout_s, self._finish_timeout_s) if large else self._timeout_s
        self._give(what, work, limit_s, remedy="")

    def finish(self, exit_code: int, artifacts: list[Any]) -> None:
        """Ends the run and waits for what is still to be sent; of a run that failed, no longer than for anything else.

        Args:
            exit_code: of the stage; anything but 0 marks the run as failed.
            artifacts: that were logged.
        """
        limit_s = self._timeout_s + (0 if self.offline or exit_code else self._finish_timeout_s)
        self._give("the end of the run", lambda: self.wandb_run.finish(exit_code=exit_code), limit_s, self._remedy)
        for artifact in () if self.offline else artifacts:
            self.give(f"the artifact {artifact.name}", partial(artifact.wait, timeout=0))

    @property
    def _remedy(self) -> str:
        if self.offline:
            return f" `wandb sync {self.folder}` sends what is on disk."
        return f" `wandb sync --no-skip-online {self.folder}` sends what is on disk: all but the artifacts."

    def _give(self, what: str, work: Callable[[], object], limit_s: float, remedy: str) -> None:
        if self._lost:
            return
        try:
            within(limit_s, work)
        # Besides its own errors the client raises those of its mailbox, of asyncio and of the disk, which have no base
        # in common (wandb 0.31.0); the results are in the files already, and no such error may cost them.
        except Exception as error:  # noqa: BLE001
            told = f"warning: W&B did not take {what} ({self.wandb_run.name}): {_said(error)}."
            self._lost = isinstance(error, (NoAnswerError, ConnectionError))
            if self._lost:
                self._service.kill()
                told += " Nothing more of this stage is logged."
                remedy = self._remedy
            _warn(f"{told} The results are not affected.{remedy}")


@contextmanager
def open_run(mode: str, *, timeout_s: float, finish_timeout_s: float, **run: Any) -> Iterator[OpenRun | None]:
    """A W&B run for the time of the block, or None where W&B cannot open one: then a warning tells why.

    The runs go below wandb/ in WANDB_DIR, or else in .cache/ of the checkout. W&B's other files (copies of artifacts,
    logs of its process) would go to the home folder; they go there, too. A run that the server does not take is one of
    this machine, as offline runs are. Metrics of training have the epoch as their axis.

    Args:
        mode: "offline" or "online".
        timeout_s: how long W&B may take to start, and for one thing it is given, s.
        finish_timeout_s: how long it may take at the end, s.
        run: arguments of `wandb.init`.

    Raises:
        RetinueError: `mode` is online, and there is no API key.
    """
    service = Service(timeout_s)
    with _environment() as folder:

        def start() -> Any:
            (folder / "wandb").mkdir(parents=True, exist_ok=True)  # W&B itself would fall back to a temporary folder
            service.start(_options(mode, folder, timeout_s * _OWN_SHARE, finish_timeout_s))
            return _begin_run(mode, run)

        opened = None
        try:
            try:
                opened = OpenRun(within(timeout_s, start), service, timeout_s, finish_timeout_s)
            except RetinueError:
                raise
            except Exception as error:  # noqa: BLE001 - as in OpenRun: whatever it is, the stage can do without
                service.kill()
                _warn(f"warning: W&B does not start: {_said(error)}. The stage goes on without a run of it.")
            if opened is not None and not opened.offline:
                # the first chart or artifact would ask, and be lost where the server has gone by then
                opened.give("the check of the key", opened.wandb_run._public_api)
            yield opened
        finally:
            service.end()


def without_telemetry() -> None:
    """Keeps W&B's Python client from reporting errors to its makers, in every mode.

    In wandb 0.31.0 the report of a service that cannot be launched (a full disk is enough) takes a lock that its own
    caller holds, and blocks for ever; a report to a server that does not answer holds up the end of the process.
    """
    from wandb.analytics.opentelemetry import opentelemetry_proxy

    opentelemetry_proxy.disable()


@contextmanager
def _environment() -> Iterator[Path]:
    """Sets the places that client and process read from the environment; W&B's folder. Afterwards all is as before.

    Not after Ctrl-C: the thread that starts W&B is left behind, and would write into the home folder.
    """
    folder = Path(os.environ.get("WANDB_DIR") or CACHE).resolve()
    ours = {
        "WANDB_DIR": str(folder),
        "WANDB_DATA_DIR": str(folder / "wandb" / "data"),
        "WANDB_CACHE_DIR": str(folder / "wandb" / "cache"),
        "WANDB_HTTP_TIMEOUT": "10",  # s that a chart or an artifact waits for a server that has gone; 19 by default
        "WANDB_ERROR_REPORTING": "false",  # the process's crash reports would go to its makers in every mode
    }
    added = {key: value for key, value in ours.items() if not os.environ.get(key)}
    os.environ.update(added)
    # W&B keeps a log beside each run; of each line that a full disk does not take, `logging` would print a traceback
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield folder
    except KeyboardInterrupt:
        added.clear()
        raise
    finally:
        logging.raiseExceptions = raising
        for key in added:
            del os.environ[key]


def _options(mode: str, folder: Path, timeout_s: float, finish_timeout_s: float) -> dict[str, Any]:
    return {
        "mode": mode,
        "root_dir": str(folder),
        "use_dot_wandb": False,
        "x_service_wait": timeout_s,
        "init_timeout": timeout_s,
        "finish_timeout": finish_timeout_s,
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


def _begin_run(mode: str, run: dict[str, Any]) -> Any:
    """A `wandb.Run`; where the server does not take it, an offline one."""
    import wandb
    from wandb.sdk.lib.import_hooks import unregister_all_post_import_hooks

    opened, refusal = None, ""
    quiet = wandb.Settings(silent=True)  # no header and footer; warnings about the upload come all the same
    if mode == "online":
        server = wandb.setup().settings.base_url
        if not wandb.login(prompt=False, verify=False):
            raise RetinueError(
                f"tracking.mode=online: no API key for {server}. Run `wandb login`, or choose tracking=offline "
                "(`wandb sync` sends such runs later)."
            )
        try:
            opened = wandb.init(**run, settings=quiet)
        except (wandb.Error, ValueError) as error:
            refusal = f"{server} does not take the run: {_said(error)}"
    if opened is None:
        opened = wandb.init(**run, mode="offline", settings=quiet)
    # W&B counts which libraries are imported later; in a forked loader worker that count would end the worker
    unregister_all_post_import_hooks()
    for pattern in ("train/*", "val/*", "lr"):  # not test/*: the charts of evaluate belong to no epoch
        opened.define_metric(pattern, step_metric="epoch")
    if refusal:
        _warn(
            f"warning: tracking.mode=online: {refusal}. The run is kept on this machine: `wandb sync "
            f"{os.path.relpath(opened.settings.sync_dir)}` sends it. Check WANDB_BASE_URL and the key (`wandb login`)."
        )
    return opened


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _said(error: BaseException) -> str:
    """The first line of what W&B says, without its advice to programmers."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
