"""`retinue dashboard`: reads all experiments, writes one page."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from retinue.dashboard.collect import chosen_outcomes, collect
from retinue.dashboard.page import render_dashboard
from retinue.dashboard.results import Result
from retinue.pipeline import artifacts
from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.numbers import figure, short

LARGE_BYTES = 25_000_000
"""A page above this size opens slowly, and few mail servers take it."""


def run(names: Sequence[str], *, output: Path, baseline: str | None, images: int, with_latency: bool) -> Path:
    """Writes the page and says where it is.

    Args:
        names: of experiments, or "workspace"; none: all.
        output: the page (.html), or the folder of its index.html.
        baseline: a commit that is compared, too; None: none.
        images: explained test images of each group of comparable experiments, >= 0.
        with_latency: loads every network and times it.

    Raises:
        RetinueError: there is nothing to compare, or none of it can be read.
    """
    outcomes = chosen_outcomes(names, baseline)
    threads = 0
    if with_latency:
        import torch

        threads = torch.get_num_threads()
    measure = _latency_of if with_latency else None
    board = collect(outcomes, images=images, measure=measure, progress=_say_progress, threads=threads)
    _say_progress("")
    if not board.results:
        reasons = "; ".join(f"{result.name}: {result.notes[0]}" for result in board.left_out)
        raise RetinueError(f"nothing to compare: no experiment has metrics. {reasons}")
    target = output if output.suffix == ".html" else output / "index.html"
    text = render_dashboard(board, f"Experiments of {project_root().name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(target)
    size = len(text.encode())
    left_out = f", {len(board.left_out)} left out, with the reason" if board.left_out else ""
    print(f"{figure(len(board.results))} experiments{left_out}; {short(size, 'B')}")
    if size > LARGE_BYTES:
        print(f"warning: more than {short(LARGE_BYTES, 'B')}; fewer images (--images) or names make it smaller")
    print(f"dashboard {target.resolve().as_uri()}")
    return target


def _latency_of(result: Result) -> tuple[float, float, float] | None:
    """Latency of a result's network; None, with a note on the result, where it cannot be loaded."""
    from retinue.bundle import Bundle
    from retinue.dashboard.latency import latency

    try:
        with tempfile.TemporaryDirectory() as folder:
            for path in (artifacts.BUNDLE, artifacts.WEIGHTS):
                Path(folder, path.name).symlink_to(result.outcome.files(path.as_posix())[""].resolve())
            return latency(Bundle.load(folder))
    except RetinueError as error:
        result.note("latency", error)
        return None


def _say_progress(what: str) -> None:
    """Progress: on a terminal in one line, which an empty text clears."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what[:100]}", end="", file=sys.stderr, flush=True)
    elif what:
        print(what, file=sys.stderr, flush=True)
