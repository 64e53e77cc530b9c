"""Makes every Python that is started here, or by what is started here, a fork of this process.

A stage that starts cold spends seconds on imports; a fork of a process that has the libraries starts in a few
hundredths. `subprocess.Popen` stays the interface, for the harness and for DVC, which is forked, too: the process that
DVC starts for a stage is the stage. The code of the project is imported by the fork, from its checkout.
"""

import ctypes
import fcntl
import gc
import importlib
import importlib.util
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
import weakref
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from multiprocessing import process
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "src/retinue/forkserver/server.py"

FAULT, COUNTERS, LOG, PREFIX, TARGETS = (
    f"TORTURE_{name}" for name in ("FAULT", "COUNTERS", "LOG", "PREFIX", "TARGETS")
)
"""Environment variables of a fault; TARGETS are the kinds of processes that meet it, separated by commas."""

MEMORY = "TORTURE_MEMORY"
"""Environment variable: bytes of address space that a stage may take beyond what it has when it starts."""

COLD = "TORTURE_COLD"
"""Environment variable: set where Pythons are to start as they do without the harness."""

_PR_SET_NAME = 15
_libc = ctypes.CDLL(None)
_popen = subprocess.Popen._execute_child  # type: ignore[attr-defined]


class Start(NamedTuple):
    """A Python that is to start.

    Attributes:
        kind: "dvc", "retinue", "server" (the warm process of a sweep) or the name of a stage.
        module: run as `python -m`.
        arguments: of the module.
        environment: all of it.
    """

    kind: str
    module: str
    arguments: list[str]
    environment: dict[str, str]


def load_server() -> ModuleType:
    """The project's own forking process, as a module that is not part of the package."""
    spec = importlib.util.spec_from_file_location("torture_forkserver", SERVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.end_with_parent = lambda: None  # type: ignore[attr-defined] # a stage outlives a DVC that is killed
    return module


def install() -> None:
    """Imports the libraries; from here on Pythons are forks."""
    global _server, _hydra, _main
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    _server = load_server()
    for library in _server.LIBRARIES:
        importlib.import_module(library)
    _hydra, _main = {**Singleton._instances}, process.current_process()
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what it is asked for when all objects are looked at
        _server.keep_temporary_folders()
    gc.freeze()
    subprocess.Popen._execute_child = _execute_child  # type: ignore[attr-defined]


def python_start(command: Any, environment: Mapping[str, str]) -> Start | None:
    """What `command` starts, where that is a Python of the project: DVC, `retinue`, a stage or the warm process."""
    if isinstance(command, (str, bytes)) or COLD in environment:
        return None
    words = [os.fspath(word) for word in command]
    variables = dict(environment)
    if len(words) >= 3 and words[-2] == "-c" and Path(words[0]).name in ("sh", "bash", "dash"):
        words = shlex.split(words[-1])
        if words[:1] == ["env"]:
            words = words[1:]
            while "=" in words[0]:
                key, _, value = words.pop(0).partition("=")
                variables[key] = value
    match words:
        case [python, "-m", "dvc" | "retinue.cli" as module, *arguments] if Path(python).name.startswith("python"):
            return Start(module.removesuffix(".cli"), module, arguments, variables)
        case ["python" | sys.executable, "-m", module, *arguments] if module.startswith("retinue.stages."):
            if "RETINUE_WARM_SOCKET" in variables:  # a stage of a sweep: a fork of the sweep's own warm process
                return None
            return Start(module.removeprefix("retinue.stages."), module, arguments, variables)
        case [sys.executable, path, *arguments] if Path(path).name == SERVER.name:
            return Start("server", SERVER.stem, arguments, {**variables, "PYTHONPATH": str(Path(path).parent)})
    return None


def _execute_child(
    self: Any,
    args: Any,
    executable: Any,
    preexec_fn: Any,
    close_fds: Any,
    pass_fds: Any,
    cwd: Any,
    env: Any,
    *rest: Any,
) -> None:
    """`Popen._execute_child`, with its private arguments; a fork where it would start one of our Pythons."""
    start = python_start(args, os.environ if env is None else env)
    # of startupinfo, creationflags, shell, six pipe ends, restore_signals, three gids, umask, session and group
    pipes, new_session, group = rest[3:9], rest[-2], rest[-1]
    if start is None or new_session:
        _popen(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)
        return
    child_input, _, _, child_output, _, child_error = pipes
    folder = os.fspath(cwd) if cwd is not None else os.getcwd()  # noqa: PTH109 - as Popen does
    self.pid = os.fork()
    if not self.pid:
        _become(start, folder, (child_input, child_output, child_error), group, kept_open=pass_fds)
    self._child_created = True
    self._close_pipe_fds(*pipes)


def _become(start: Start, folder: str, files: Sequence[int], group: int, kept_open: Collection[int]) -> NoReturn:
    """Runs `start` in this process, a fork, as a Python would that had just been started."""
    try:
        if group >= 0:
            os.setpgid(0, group)
        _libc.prctl(_PR_SET_NAME, f"t:{start.kind}".encode()[:15])
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(-1)
        kept = [fcntl.fcntl(target if file < 0 else file, fcntl.F_DUPFD, 800) for target, file in enumerate(files)]
        _close(below=min(kept), but=kept_open)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - that of multiprocessing's processes is not file 0
        for name in [name for name in sys.modules if name.partition(".")[0] in ("retinue", "hydra_plugins")]:
            del sys.modules[name]
        sys.path[:] = [sys.path[0], *(entry for entry in sys.path[1:] if not Path(entry).is_relative_to(ROOT / "src"))]
        tempfile.tempdir = None
        process._current_process, process._children = _main, set()  # type: ignore[attr-defined]
        process._parent_process = None  # type: ignore[attr-defined]
        # the warm process is started by a sweep, in which Hydra runs; `set_state` would look for plugins now, and
        # the checkout is not on the path yet
        Singleton._instances = {**_hydra}
        GlobalHydra.instance().clear()
        if start.kind == "dvc":  # which has imported no torch, so has nothing of its to do at the end
            weakref.finalize._registry.clear()  # type: ignore[attr-defined]
        _arm(start)
        request = _server.Request(
            start.module, start.arguments, folder, start.environment, group=False, files=kept, client=os.getpid()
        )
        _server.become(request)
    except (
        KeyboardInterrupt
    ):  # before the module runs, or after it: a Python that starts or ends is killed by the signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - nothing of a fork may go on in the code that forked
        traceback.print_exc()
    finally:
        os._exit(127)


def _close(below: int, but: Collection[int]) -> None:
    """Closes the files from 3 on, and keeps their numbers taken: objects that are deleted later close them again.

    Args:
        below: the number from which on they stay open.
        but: numbers that stay open, too.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:  # noqa: PTH208
        if 3 <= number < below and number != nothing and number not in but:
            with suppress(OSError):  # that of the listing itself
                os.fstat(number)
                os.dup2(nothing, number, inheritable=False)


def _arm(start: Start) -> None:
    """The fault that the environment of `start` asks for, or none."""
    given = start.environment
    targeted = start.kind in given.get(TARGETS, "").split(",")
    if MEMORY in given and targeted:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + int(given[MEMORY])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if not hasattr(_libc, "torture_arm"):
        return
    _libc.torture_disarm()
    if FAULT in given and targeted:
        texts = (given[name].encode() for name in (FAULT, COUNTERS, LOG, PREFIX))
        if _libc.torture_arm(*texts):
            raise ValueError(f"{given[FAULT]}: the fault cannot be set up")
