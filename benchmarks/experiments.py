"""DVC experiments run one after another in checkouts of their own, and tables in docs/results.md made of them."""

import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from retinue.experiments.outcomes import Experiment, all_experiments, committed
from retinue.pipeline import numbers
from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import RetinueError


def run(name: str, overrides: Sequence[str]) -> Experiment:
    """Runs the pipeline with `overrides` of conf/ as the DVC experiment `name`, in a temporary checkout.

    An earlier experiment of that name is replaced; what DVC has run before with the same settings is not run again.

    Raises:
        RetinueError: it failed, with the error of the stage.
    """
    print(f"{name} …", end="", flush=True)
    begun = time.monotonic()
    settings = [part for override in (*overrides, "tracking=off") for part in ("--set-param", override)]
    finished = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--force", "--name", name, *settings],
        cwd=project_root(),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begun
    if finished.returncode:
        reasons = re.findall(r"^error: (.*)|^ERROR: (.*)", finished.stdout + finished.stderr, re.MULTILINE)
        raise RetinueError(next((ours or dvcs for ours, dvcs in reasons), finished.stderr.strip()[-500:]))
    print(f" {numbers.seconds(seconds)}")
    baseline = committed("HEAD").revision
    for experiment in all_experiments():
        if experiment.name == name and experiment.baseline == baseline:
            return experiment
    raise RetinueError(f"{name}: DVC ran the experiment and lists none of that name. See `dvc exp list`.")


def with_interval(metrics: dict[str, Any], name: str) -> str:
    """A metric and its interval, of evaluation/metrics.json."""
    return f"{numbers.figure(metrics[name])} ({numbers.interval(metrics['intervals'][name])})"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(document: Path, section: str, text: str) -> None:
    """Puts `text` between the section's two marks in `document`.

    Raises:
        RetinueError: the document lacks them.
    """
    begin, end = f"<!-- {section}: made by its command -->", f"<!-- {section}: end -->"
    content = document.read_text("utf-8")
    if begin not in content or end not in content:
        raise RetinueError(f"{document}: expected the marks {begin!r} and {end!r}.")
    before, _, rest = content.partition(begin)
    document.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}", "utf-8")
