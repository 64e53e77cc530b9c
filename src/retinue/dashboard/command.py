"""`retinue dashboard`: reads all experiments, writes one page."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from retinue.dashboard.collect import DETAILS, Dashboard, chosen_outcomes, collect
from retinue.dashboard.extracted import extract_reports
from retinue.dashboard.page import render_dashboard
from retinue.dashboard.results import Result
from retinue.pipeline import artifacts
from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.numbers import figure, short
from retinue.reports.page import write_page

LARGE_BYTES = 25_000_000
"""A page above this size opens slowly, and few mail servers take it."""


def run(
    names: Sequence[str],
    *,
    output: Path,
    baseline: str | None,
    images: int,
    with_latency: bool,
    details: int = DETAILS,
    with_reports: bool = True,
) -> Path:
    """Writes the page and says where it is.

    Args:
        names: of experiments, or "workspace"; none: all.
        output: the page (.html), or the folder of its index.html.
        baseline: a commit that is compared, too; None: none.
        images: test images of each group of comparable experiments, >= 0.
        with_latency: loads every network and times it.
        details: how many experiments are shown with curves, maps and comparisons among each other, >= 0.
        with_reports: puts the reports of these beside the page.

    Raises:
        RetinueError: there is nothing to compare, or none of it can be read.
    """
    outcomes = chosen_outcomes(names, baseline)
    threads = 0
    if with_latency:
        import torch

        threads = torch.get_num_threads()
    measure = _latency_of if with_latency else None
    board = collect(outcomes, images=images, measure=measure, progress=_say_progress, threads=threads, details=details)
    _say_progress("")
    if not board.results:
        reasons = "; ".join(f"{result.name}: {result.notes[0]}" for result in board.left_out)
        raise RetinueError(f"nothing to compare: no experiment has metrics. {reasons}")
    target = output if output.suffix == ".html" else output / "index.html"
    if with_reports:
        board = _with_reports(board, target)
    size = write_page(target, render_dashboard(board, f"Experiments of {project_root().name}"))
    left_out = f", {len(board.left_out)} left out, with the reason" if board.left_out else ""
    print(f"{figure(len(board.results))} experiments{left_out}; {short(size, 'B')}")
    if size > LARGE_BYTES:
        print(f"warning: more than {short(LARGE_BYTES, 'B')}; fewer --images, --details or names make it smaller")
    print(f"dashboard {target.resolve().as_uri()}")
    return target


def _with_reports(board: Dashboard, target: Path) -> Dashboard:
    """`board` with the reports of its detailed experiments, which lie in a folder beside `target`."""
    folder = target.with_name("reports" if target.name == "index.html" else f"{target.stem}-reports")
    found = extract_reports(board.results, board.detailed, folder)
    return replace(board, reports={i: f"{quote(folder.name)}/{name}" for i, name in found.items()})


def _latency_of(result: Result) -> tuple[float, float, float] | None:
    """Latency of a result's network; None, with a note on the result, where it cannot be loaded."""
    from retinue.bundle import Bundle
    from retinue.dashboard.latency import latency

    try:
        with tempfile.TemporaryDirectory() as folder:
            for path in (artifacts.BUNDLE, artifacts.WEIGHTS):
                Path(folder, path.name).symlink_to(result.outcome.files(path.as_posix())[""].resolve())
            return latency(Bundle.load(folder))  # without decision.json, which takes no time
    except RetinueError as error:
        result.note("latency", error)
        return None


def _say_progress(what: str) -> None:
    """Progress: on a terminal in one line, which an empty text clears."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what[:100]}", end="", file=sys.stderr, flush=True)
    elif what:
        print(what, file=sys.stderr, flush=True)
