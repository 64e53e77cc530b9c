"""Asks the warm process to run `python -m MODULE`; as a script it stands in for `python` on the PATH of a trial.

The script imports the standard library alone, for it starts once per stage. What is no module of a stage it leaves to
the real Python.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

SOCKET = "RETINUE_WARM_SOCKET"
"""Environment variable: the name that the warm process listens on."""

STAGES = "retinue.stages."

BEGUN = b"+"
"""What the warm process sends before the answer (`server.BEGUN`; this script imports the standard library alone)."""


def request(
    name: str,
    module: str,
    arguments: Sequence[str],
    *,
    folder: str,
    environment: Mapping[str, str],
    files: Sequence[int],
    group: bool = False,
    begun: Callable[[], object] = lambda: None,
) -> int:
    """Runs `python -m module arguments` in a fork of the warm process that listens on `name`, and waits for it.

    Args:
        name: of the warm process's abstract Unix socket.
        module: run as `__main__`.
        arguments: of the module.
        folder: working directory.
        environment: all of it.
        files: descriptors of input, output and error output.
        group: whether the fork leads a process group of its own, which ends with it; else it joins the caller's.
        begun: called when the fork has begun; until then the end of this process is the end of the request.

    Returns:
        The exit status; below zero, the number of the signal that ended it.

    Raises:
        ConnectionError: the warm process has gone, goes before the end, or turns the request away.
    """
    request = {
        "module": module,
        "arguments": list(arguments),
        "folder": folder,
        "environment": dict(environment),
        "group": group,
    }
    data = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"\0{name}")
        message = b"%d\n%s" % (len(data), data)
        sent = socket.send_fds(connection, [message], list(files))
        connection.sendall(message[sent:])
        answer = connection.recv(64)
        if answer.startswith(BEGUN):
            begun()
            answer = answer.removeprefix(BEGUN) or connection.recv(64)
    if not answer:
        raise ConnectionError("the warm process ended, or turned the request away")
    try:
        return int(answer)
    except ValueError as error:
        raise ConnectionError(f"the warm process answered {answer!r}, which is no exit status") from error


def main() -> None:
    """`python ARGUMENTS`: a stage by the warm process, anything else by the real Python."""
    match sys.argv[1:]:
        case ["-m", module, *arguments] if module.startswith(STAGES):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            try:
                status = request(
                    os.environ[SOCKET],
                    module,
                    arguments,
                    folder=os.getcwd(),  # noqa: PTH109 - pathlib takes as long to import as all else here
                    environment=os.environ,
                    files=(0, 1, 2),
                    begun=_leave_interruptions_to_the_stage,
                )
            except ConnectionError:
                sys.exit(f"error: stage {module.removeprefix(STAGES)}: the warm process it was started by has ended.")
            if status < 0:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), -status)  # ends as the stage ended
            sys.exit(status)
        case arguments:
            os.execv(sys.executable, [sys.executable, *arguments])


def _leave_interruptions_to_the_stage() -> None:
    """A Ctrl-C of the terminal is sent to the stage, too, and it answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
